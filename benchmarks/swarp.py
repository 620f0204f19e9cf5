"""Coadds beside SWarp's: the same simulated visits, files to file, one core; time and quality in one run.

    python -m benchmarks.swarp WORK --size 4096 --visits 5 10

Visits of one made-up sky (stars, seeing 0.7 to 1.3 arcsec, shifted and turned) are written as calexps for us
and as image and weight for SWarp, with an asteroid, a satellite trail and cosmic-ray hits in single visits.
Both combine them on the same grid with Lanczos-3: weighted mean, and with outliers left out. Quality is
measured alike on both results: stars' fluxes and blank sky with the PSF of the ideal coadd, and what is left of
the artifacts. Without SWarp on the PATH only ours is run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32, F64
from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.fits import read_calexp, write_exposure
from apstream.repo.formats.layout import OurFits, open_ours
from apstream.repo.formats.parts import PARTS, image_box, masked_image
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warp import WarpConfig, wcs_map
from apstream.tasks.warped_input import WarpedInput, clipped_mean, warped_input

__all__ = ["Field", "Quality", "main", "make_field", "quality"]

SCALE = 0.25
SKY = 40.0
_OURS = {"mean": {"artifacts": None}, "artifacts left out": {}}
_SWARP = {"mean": "WEIGHTED", "artifacts left out": "CLIPPED"}


@dataclass(frozen=True)
class Field:
    """What was simulated: stars on the coadd's grid, PSFs, weights, and pixels that artifacts light up."""

    y: F64
    x: F64
    flux: F64
    fwhm: F64
    noise: F64
    artifacts: F32
    seeds: F64


@dataclass(frozen=True)
class Quality:
    """Noise of PSF fluxes over the ideal weighted mean's, flux bias, and what is left of artifacts."""

    noise_ratio: float
    bias_mmag: float
    bright_bias_mmag: float
    artifacts_sigma: float
    asteroid_sigma: float


def moffat(fwhm: float, dy: float = 0.0, dx: float = 0.0, half: int = 24) -> F64:
    """Return a Moffat profile (beta 3) on pixels, centred at (dy, dx), summing to one over the plane."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.0) - 1)
    return np.asarray(2.0 / (np.pi * alpha**2) * (1 + ((y - dy) ** 2 + (x - dx) ** 2) / alpha**2) ** -3.0)


def grid_wcs(size: int) -> SkyWcs:
    """Return the coadd's WCS."""
    return SkyWcs.tan(150.0, 2.0, pixel_scale_arcsec=SCALE, y=(size - 1) / 2, x=(size - 1) / 2)


def visit_wcs(size: int, visit: int) -> SkyWcs:
    """Return the WCS of a visit: shifted by some pixels and turned by up to half a degree."""
    rng = np.random.default_rng(1000 + visit)
    angle, step = np.deg2rad(rng.uniform(-0.5, 0.5)), SCALE / 3600
    dy, dx = rng.uniform(-12, 12, 2)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = (size + 1) / 2 + dx, (size + 1) / 2 + dy
    header["CD1_1"], header["CD1_2"] = -step * np.cos(angle), step * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = step * np.sin(angle), step * np.cos(angle)
    found = SkyWcs.from_header(header)
    assert found is not None
    return found


def make_field(work: Path, size: int, visits: int, seed: int = 5) -> Field:
    """Write the visits under `work` and return the truth."""
    rng = np.random.default_rng(seed)
    target, n = grid_wcs(size), int(18000 * (size / 4096) ** 2)
    y, x = rng.uniform(60, size - 60, (2, n))
    flux = 10 ** (0.4 * (25.0 - (14.5 + 10 * rng.power(3.0, n)))) * 60
    fwhm = np.linspace(0.7, 1.3, visits)[rng.permutation(visits)] / SCALE
    noise = np.sqrt(SKY) * rng.uniform(0.8, 1.3, visits)
    artifacts = np.zeros((size, size), np.float32)
    seeds = rng.uniform(100, size - 100, (visits, 6, 2))
    ra, dec = target.pixel_to_sky(y, x)
    for k in range(visits):
        wcs = visit_wcs(size, k)
        image = np.zeros((size, size), np.float32)
        vy, vx = wcs.sky_to_pixel(ra, dec)
        paint(image, vy, vx, flux, fwhm[k])
        extra = _spots(image.shape, wcs, target, seeds[k], fwhm[k], noise[k])
        if k == 0:
            extra += satellite(size, noise[k])
        artifacts_on_grid(artifacts, extra, wcs, target)
        variance = np.maximum(image + extra, 0) * 0.2 + noise[k] ** 2
        image += extra + rng.normal(size=image.shape).astype(np.float32) * np.sqrt(variance)
        made = MaskedImage.make(image, np.zeros(image.shape, np.int32), variance, "nJy")
        _write(work, k, made, wcs, fwhm[k], noise[k])
    return Field(y, x, flux, fwhm, noise, artifacts, seeds)


def paint(image: F32, y: F64, x: F64, flux: F64, fwhm: float) -> None:
    """Add stars, in place."""
    for a, b, f in zip(y, x, flux, strict=True):
        i, j = round(a), round(b)
        if 24 <= i < image.shape[0] - 24 and 24 <= j < image.shape[1] - 24:
            image[i - 24 : i + 25, j - 24 : j + 25] += f * moffat(fwhm, a - i, b - j)


def _spots(shape: tuple[int, int], wcs: SkyWcs, target: SkyWcs, seeds: F64, fwhm: float, noise: float) -> F32:
    """Return asteroids, still and trailed, and hits of cosmic rays, of one visit."""
    out = np.zeros(shape, np.float32)
    vy, vx = wcs.sky_to_pixel(*target.pixel_to_sky(seeds[:, 0], seeds[:, 1]))
    area = np.sqrt(4 * np.pi) * fwhm / 2.355 * noise
    for n in range(4):
        steps = np.arange(8.0) * (n % 2)
        paint(out, vy[n] + 0.5 * steps, vx[n] + steps, np.full(8, (12.0, 20.0, 100.0, 60.0)[n] * area / 8), fwhm)
    for a, b in zip(vy[4:], vx[4:], strict=True):
        out[int(a) % shape[0], int(b) % (shape[1] - 20) : int(b) % (shape[1] - 20) + 9] += 40 * noise
    return out


def satellite(size: int, noise: float) -> F32:
    """Return a trail of 1.5 sigma per pixel with wings."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    distance = (0.37 * x - y + 0.3 * size) / np.hypot(0.37, 1)
    profile = 1.5 * np.exp(-0.5 * (distance / 2.2) ** 2) + 0.06 / (1 + (distance / 8) ** 2)
    return np.asarray(noise * profile, np.float32)


def artifacts_on_grid(total: F32, extra: F32, wcs: SkyWcs, target: SkyWcs) -> None:
    """Add what artifacts light up, moved to the coadd's grid by nearest pixels, in place."""
    y, x = np.nonzero(np.abs(extra) > 0.02 * np.sqrt(SKY))
    ty, tx = target.sky_to_pixel(*wcs.pixel_to_sky(y.astype(float), x.astype(float)))
    i, j = np.rint(ty).astype(int), np.rint(tx).astype(int)
    inside = (i >= 0) & (j >= 0) & (i < total.shape[0]) & (j < total.shape[1])
    np.add.at(total, (i[inside], j[inside]), extra[y, x][inside])


def _write(work: Path, visit: int, image: MaskedImage, wcs: SkyWcs, fwhm: float, noise: float) -> None:
    kernel = moffat(fwhm, half=22)
    info = ExposureInfo(
        id=VisitDetector("sim", visit, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0 + visit, exposure_s=30.0
    )
    write_exposure(
        work / f"calexp{visit}.fits",
        CalExp(
            image=image,
            info=info,
            psf=Psf((kernel / kernel.sum())[None], image.box),
            wcs=wcs,
            photo_calib=PhotoCalib(njy_per_unit=1.0),
            stars=np.zeros(0, STAR_DTYPE),
        ),
    )
    header = wcs.to_header()
    fits.PrimaryHDU(image.image, header).writeto(work / f"visit{visit}.fits", overwrite=True)
    weight = np.full(image.shape, 1 / noise**2, np.float32)
    fits.PrimaryHDU(weight, header).writeto(work / f"visit{visit}.weight.fits", overwrite=True)


def coadd_files(work: Path, size: int, visits: int, kind: str) -> None:
    """Combine the calexps of `work` into one file: our side, run in a process of its own."""
    target, box = grid_wcs(size), Box(0, 0, size, size)
    with ExitStack() as opened:
        files = [opened.enter_context(open_ours(work / f"calexp{k}.fits")) for k in range(visits)]
        inputs = [_input(str(k), file, target, box) for k, file in enumerate(files)]
        coadd = assemble_coadd(inputs, box, AssembleCoaddConfig.model_validate(_OURS[kind]))
    assert coadd.psf is not None
    first = read_first(work)
    write_exposure(
        work / f"ours {kind}.fits",
        CalExp(
            image=coadd.image, info=first, psf=coadd.psf, wcs=target,
            photo_calib=PhotoCalib(njy_per_unit=1.0), stars=np.zeros(0, STAR_DTYPE),
        ),
    )  # fmt: skip


def _input(name: str, file: OurFits, target: SkyWcs, box: Box) -> WarpedInput:
    weight = 1 / clipped_mean(PARTS["variance_sample"](file))
    source = PsfInput(PARTS["psf"](file), wcs_map(target, PARTS["wcs"](file)), image_box(file), weight)
    return warped_input(name, partial(masked_image, file), source, box=box, config=WarpConfig())


def read_first(work: Path) -> ExposureInfo:
    """Return a name for the coadd."""
    return ExposureInfo(
        id=VisitDetector("coadd", 0, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )


def swarp_files(work: Path, size: int, visits: int, kind: str) -> list[str]:
    """Return the command of SWarp for the same."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    assert program is not None
    (work / "coadd.head").write_text(grid_wcs(size).to_header().tostring(sep="\n", padding=False) + "\nEND\n")
    settings = {
        "COMBINE_TYPE": _SWARP[kind], "RESAMPLING_TYPE": "LANCZOS3", "SUBTRACT_BACK": "N", "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_SUFFIX": ".weight.fits", "IMAGEOUT_NAME": "coadd.fits", "WEIGHTOUT_NAME": "coadd.weight.fits",
        "CENTER_TYPE": "MANUAL", "CENTER": "150.0,2.0", "IMAGE_SIZE": f"{size},{size}", "PIXELSCALE_TYPE": "MANUAL",
        "PIXEL_SCALE": SCALE, "FSCALASTRO_TYPE": "FIXED", "NTHREADS": 1, "WRITE_XML": "N", "VERBOSE_TYPE": "QUIET",
        "CLIP_SIGMA": 4.0, "CLIP_AMPFRAC": 0.3, "DELETE_TMPFILES": "Y",
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"-{name}", str(value))]
    return [program, *(f"visit{k}.fits" for k in range(visits)), "-c", "/dev/null", *words]


def timed(command: list[str], work: Path, runs: int) -> tuple[float, float, float]:
    """Return the least wall and CPU seconds of a command pinned to one core, and the CPU seconds that it prints."""
    cpu = max(os.sched_getaffinity(0))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    found = []
    for _ in range(runs):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            ["taskset", "-c", str(cpu), *command],
            cwd=work,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((time.monotonic() - start, used, float(done.stdout or used)))
    wall, cpu_s, inside = zip(*found, strict=True)
    return min(wall), min(cpu_s), min(inside)


def truth_of(field: Field, size: int) -> F32:
    """Return the noiseless ideal coadd: the weighted mean of the visits' stars."""
    out = np.zeros((size, size), np.float32)
    weights = field.noise**-2.0 / (field.noise**-2.0).sum()
    for weight, fwhm in zip(weights, field.fwhm, strict=True):
        paint(out, field.y, field.x, weight * field.flux, fwhm)
    return out


def quality(image: F32, field: Field, truth: F32) -> Quality:
    """Measure a coadd by PSF fluxes with the PSF of the ideal weighted mean, beside the noiseless truth."""
    weights, half = field.noise**-2.0, 12
    size, noise = image.shape[0], 1 / np.sqrt(weights.sum())
    left = (image - truth) / noise
    kernel = sum(w * moffat(s, half=half) for w, s in zip(weights, field.fwhm, strict=True)) / weights.sum()
    kernel /= np.sqrt((kernel**2).sum())
    star = truth > 3 * noise
    found: dict[bool, list[float]] = {False: [], True: []}
    for i in range(80, size - 80, 27):
        for j in range(80, size - 80, 27):
            spot = np.s_[i - half : i + half + 1, j - half : j + half + 1]
            lit = bool(field.artifacts[spot].any())
            if not star[spot].any() and np.isfinite(left[spot]).all():
                found[lit].append(float((left[spot] * kernel).sum()))
    away = ~star & (np.abs(field.artifacts) > 0.5 * np.sqrt(SKY)) & np.isfinite(image)
    asteroid = []
    for y, x in field.seeds[:, :4].reshape(-1, 2):
        spot = np.s_[round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1]
        if not star[spot].any():
            asteroid.append(float((left[spot] * kernel).sum()))
    none = float("nan")
    return Quality(
        float(np.std(found[False])), *_biases(image, field, truth),
        float(left[away].mean()) if away.any() else none, float(np.mean(asteroid)) if asteroid else none,
    )  # fmt: skip


def _biases(image: F32, field: Field, truth: F32) -> tuple[float, float]:
    """Return the median flux error in mmag of stars of S/N 100 to 1000, and above, in apertures."""
    noise, half = 1 / np.sqrt((field.noise**-2.0).sum()), 9
    found: list[list[float]] = [[], []]
    for y, x, flux in zip(field.y, field.x, field.flux, strict=True):
        i, j = round(y), round(x)
        spot = np.s_[i - half : i + half + 1, j - half : j + half + 1]
        if flux < 100 * noise * 15 or field.artifacts[spot].any() or min(i, j) < 90 or max(i, j) > len(image) - 90:
            continue
        if truth[spot].sum() < 1.05 * flux:
            found[int(flux > 1000 * noise * 15)].append(-2.5e3 * np.log10(image[spot].sum() / truth[spot].sum()))
    return tuple(float(np.median(f)) if f else float("nan") for f in found)  # type: ignore[return-value]


def main() -> None:
    """Simulate, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--visits", type=int, nargs="+", default=[5])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--only", nargs=2, metavar=("VISITS", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    work = given.work.resolve()
    if given.only:
        before = time.process_time()
        coadd_files(work, given.size, int(given.only[0]), given.only[1])
        print(time.process_time() - before)
        return
    work.mkdir(parents=True, exist_ok=True)
    for visits in given.visits:
        field = make_field(work, given.size, visits)
        truth = truth_of(field, given.size)
        print(f"\n{visits} visits of {given.size} x {given.size}, one core")
        print(
            "| | wall s | CPU s | without start, imports | noise / ideal "
            "| bias, S/N > 100, 1000 (mmag) | artifacts (sigma) | asteroids (S/N) |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for kind in _OURS:
            _compare(work, visits, kind, (field, truth), given.runs)


def _compare(work: Path, visits: int, kind: str, known: tuple[Field, F32], runs: int) -> None:
    size = len(known[1])
    ours = [sys.executable, "-m", "benchmarks.swarp", str(work), "--size", str(size), "--only", str(visits), kind]
    root = Path(__file__).resolve().parents[1]
    timed(ours, root, 1)  # compiled once
    mine = timed(ours, root, runs)
    _row(f"apstream, {kind}", mine, quality(read_calexp(work / f"ours {kind}.fits").image.image, *known))
    flags = read_calexp(work / f"ours {kind}.fits").image.mask
    print(f"CLIPPED: {((flags & planes('CLIPPED')) != 0).mean():.2%} of the pixels")
    if shutil.which("SWarp") or shutil.which("swarp"):
        theirs = timed(swarp_files(work, size, visits, kind), work, runs)
        image = np.asarray(fits.getdata(work / "coadd.fits"), np.float32)
        _row(f"SWarp {_SWARP[kind]}", theirs, quality(image, *known))
        print(f"ratio of wall times {theirs[0] / mine[0]:.1f}, of CPU times {theirs[1] / mine[1]:.1f}")


def _row(name: str, took: tuple[float, float, float], q: Quality) -> None:
    print(
        f"| {name} | {took[0]:.2f} | {took[1]:.2f} | {took[2]:.2f} "
        f"| {q.noise_ratio:.3f} | {q.bias_mmag:.2f}, {q.bright_bias_mmag:.2f} "
        f"| {q.artifacts_sigma:.3f} | {q.asteroid_sigma:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
