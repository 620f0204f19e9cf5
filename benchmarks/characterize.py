"""Characterize a simulated image with cosmic rays, and do the same with astroscrappy, SExtractor and PSFEx.

    python -m benchmarks.characterize [--size 4096] [--seed 1] [--fields 7] [--field-size 1536] [--no-rays]

All see the same pixels. Peers: astroscrappy in this process, its cleaned image to SExtractor, its stars to PSFEx. Ours:
`characterize` in a process that runs already, as the daemon has it, and the command with imports, reading and writing.
Printed are CPU seconds (one core; the peers' files between the steps are not counted); how far both PSFs are from the
true one at stars that did not shape ours, in this field and in smaller ones of other seeing, crowding and shape, with
the ellipticity error that the photons of the stars leave the best of fits; and what part of the rays was found and
what was taken for one, in a well sampled and in an undersampled field. astroscrappy (BSD-3) is optional, and so are the
programs: what is not installed is left out.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy.spatial import cKDTree

from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import psf_stamps
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.characterize import characterize
from benchmarks.psf_truth import ellipticity_floor, judge
from benchmarks.psfex import find_peers, run_astroscrappy, run_psfex, run_sextractor
from benchmarks.ray_truth import PEAK_SNR, score
from benchmarks.star_fields import FieldConfig, Rays, StarField, add_tracks, make_star_field

__all__ = ["Shot", "expose", "ray_mask"]

RAYS_PER_MPX = 60
FIELDS: tuple[dict[str, Any], ...] = (
    {"fwhm": 4.0}, {"fwhm": 3.0, "density": 600.0}, {"fwhm": 5.5, "profile": "moffat"},
    {"fwhm": 2.5, "galaxies": 500.0}, {"fwhm": 4.0, "density": 150.0, "variation": 0.08, "ellipticity": 0.08},
    {"fwhm": 2.0}, {"fwhm": 3.5, "profile": "moffat", "density": 1000.0},
)  # fmt: skip
_SEEN = ("size_residual", "e1_residual", "e2_residual", "e_residual_error")
INFO = ExposureInfo(
    id=VisitDetector("bench", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
)


@dataclass(frozen=True, eq=False)
class Shot:
    """A field with rays on it."""

    field: StarField
    rays: Rays
    exposure: Exposure

    @property
    def pixels(self) -> Any:
        """The image."""
        return self.exposure.image.image


@dataclass(frozen=True, eq=False)
class Done:
    """A PSF as a function of (y, x, half), a mask of rays, and CPU seconds by step."""

    psf: Callable[[float, float, int], Any] | None
    mask: Any
    seconds: dict[str, float]


def expose(config: FieldConfig, *, rays_per_mpx: float = RAYS_PER_MPX) -> Shot:
    """Draw a field, and rays with a seed of their own."""
    field = make_star_field(config)
    image = field.image.copy()
    count = int(rays_per_mpx * config.size**2 / 1e6)
    rays = add_tracks(np.random.default_rng(config.seed + 1000), image, count)
    variance = field.variance + rays.charge.astype(np.float32)
    pixels = MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "electron")
    return Shot(field, rays, Exposure(image=pixels, info=INFO, wcs=None))


def ray_mask(char: CharacterizedExposure) -> Any:
    """Return what was flagged as hit."""
    return (char.image.mask & int(MaskPlane.CR)) != 0


def ours(shot: Shot) -> tuple[Done, CharacterizedExposure]:
    """Characterize."""
    seconds = time.process_time()
    char = characterize(shot.exposure)
    return Done(_evaluate(char.psf), ray_mask(char), {"characterize": time.process_time() - seconds}), char


def _evaluate(psf: Psf) -> Callable[[float, float, int], Any]:
    def at(y: float, x: float, half: int) -> Any:
        place = np.array([y]), np.array([x])
        terms = np.ascontiguousarray(poly_terms(*psf.box.normalize(*place), psf.degree).T)
        kernel = psf_stamps(psf.basis, terms, y=place[0], x=place[1])[0]
        out, inner = np.zeros((2 * half + 1, 2 * half + 1)), min(half, kernel.shape[0] // 2)
        a, b = half - inner, kernel.shape[0] // 2 - inner
        out[a : a + 2 * inner + 1, a : a + 2 * inner + 1] = kernel[b : b + 2 * inner + 1, b : b + 2 * inner + 1]
        return out

    return at


def theirs(shot: Shot, found: dict[str, str]) -> Done:
    """Run the peers that are there: rays, sources, PSF."""
    config, seconds, mask, image, psf = shot.field.config, {}, None, shot.pixels, None
    if "astroscrappy" in found:
        begun = time.process_time()
        mask, image = run_astroscrappy(image, gain=1.0, read_noise=config.read_noise, fwhm=config.fwhm)
        seconds["astroscrappy"] = time.process_time() - begun
    if {"sextractor", "psfex"} <= set(found):
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            fits.writeto(work / "image.fits", np.asarray(image, np.float32))
            seconds["SExtractor"] = _children(lambda: run_sextractor(work / "image.fits", work, fwhm=config.fwhm))
            seconds["PSFEx"] = _children(lambda: run_psfex(work, fwhm=config.fwhm))
            psf = run_psfex(work, fwhm=config.fwhm).at
    return Done(psf, mask, seconds)


def _children(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the processes that `work` runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command_seconds(shot: Shot) -> float:
    """Return the CPU seconds of `apstream characterize` on a file."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.fits"
        header = fits.Header({"BUNIT": "electron", "FILTER": "r", "MJD-OBS": 60000.0, "EXPTIME": 30.0})
        variance = fits.ImageHDU(shot.exposure.image.variance, name="VAR")
        fits.HDUList([fits.PrimaryHDU(shot.pixels, header), variance]).writeto(path)
        words = [sys.executable, "-m", "apstream", "characterize", str(path), "--out", str(Path(name) / "out")]
        return _children(lambda: subprocess.run(words, check=True, capture_output=True))


def judges(field: StarField, char: CharacterizedExposure) -> tuple[Any, Any]:
    """Return the places of true stars that see the PSF and did not shape ours; of all if those are ten or fewer."""
    used = char.stars[char.stars["psf_used"]]
    weakest = np.min(used["flux"])
    far = cKDTree(np.column_stack([used["y"], used["x"]])).query(np.column_stack([field.y, field.x]))[0] > 2
    bright = field.flux > weakest
    chosen = bright & far if np.count_nonzero(bright & far) > 10 else bright
    return field.y[chosen], field.x[chosen]


def psf_rows(shot: Shot, mine: Done, char: CharacterizedExposure, peer: Done) -> Iterator[str]:
    """Compare both PSFs with the true one."""
    field, config = shot.field, shot.field.config
    y, x = judges(field, char)
    used = char.stars[char.stars["psf_used"]]
    floor = ellipticity_floor(field, used["y"], used["x"], (y, x), char.psf.degree)
    seen = [1000 * char.metrics[f"characterize.psf_{name}"] for name in _SEEN]
    label = f"{config.fwhm:4.1f} {config.profile:11} {config.density:5.0f}"
    for name, done in (("apstream", mine), ("PSFEx", peer)):
        if done.psf is not None:
            found = judge(field, done.psf, y, x)
            more = f"{1000 * floor:7.2f}   " + "".join(f"{value:7.1f}" for value in seen) if done is mine else ""
            yield f"{label} {name:9}{found.n:5d}{found.row()}{more}"
            label = " " * len(label)


def ray_table(size: int, seed: int, found: dict[str, str]) -> Iterator[str]:
    """Compare the masks of rays with the truth, in a well sampled and an undersampled field."""
    classes = "".join(f"{f'{low:.0f}+':>7}" for low in PEAK_SNR[:-1])
    yield f"{'':24}{'rays found, per cent, by peak S/N':<28}{'their charge':<28}"
    yield f"{'FWHM':<24}{classes}{classes}{'pixels':>8}{'cores':>8}{'false':>8}"
    for fwhm in (4.0, 2.0, 1.6):
        shot = expose(FieldConfig(size=size, fwhm=fwhm, seed=seed))
        masks = {"apstream": ours(shot)[0].mask}
        if "astroscrappy" in found:
            config = shot.field.config
            masks["astroscrappy"] = run_astroscrappy(
                shot.pixels, gain=1.0, read_noise=config.read_noise, fwhm=config.fwhm
            )[0]
        for name, mask in masks.items():
            result = score(mask, shot.field, shot.rays)
            yield f"{fwhm:4.1f} {name:19}{result.row()}"
    yield f"rays by class {result.rays}, {result.stars} stars; cores of stars hit, per mille; false pixels per 10^6"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fields", type=int, default=len(FIELDS), help="further fields for the PSF")
    parser.add_argument("--field-size", type=int, default=1536, help="their side, pixels")
    parser.add_argument("--no-rays", action="store_true", help="leave the table of rays out")
    options = parser.parse_args()
    found = find_peers()
    print("peers:", ", ".join(found) or "none installed")
    ours(expose(FieldConfig(size=512, seed=options.seed)))  # compiles the kernels
    shot = expose(FieldConfig(size=options.size, seed=options.seed))
    peer = theirs(shot, found)
    mine, char = ours(shot)
    whole = command_seconds(shot)
    for name, seconds in (*peer.seconds.items(), *mine.seconds.items(), ("apstream characterize, a process", whole)):
        print(f"{name:34}{seconds:8.2f} CPU s")
    total = sum(peer.seconds.values())
    print(f"ratio {total / mine.seconds['characterize']:.1f}; as a process {total / whole:.1f}")
    print(f"\n{'FWHM, profile, density':32}{'n':>5}{'size':>9}{'e1':>9}{'e2':>9}{'|size|':>9}{'|e|':>9}  floor"
          "      as the reserved stars see it (size, e1, e2, error of these two); all per mille")  # fmt: skip
    print("\n".join(psf_rows(shot, mine, char, peer)))
    for number, kind in enumerate(FIELDS[: options.fields]):
        small = expose(FieldConfig(size=options.field_size, seed=options.seed + 100 + number, **kind))
        print("\n".join(psf_rows(small, *ours(small), theirs(small, found))), flush=True)
    if options.no_rays:
        return
    print()
    print("\n".join(ray_table(min(options.size, 2048), options.seed + 50, found)))


if __name__ == "__main__":
    main()
