"""Calibrate a simulated image, and do the same with SExtractor and SCAMP where they are on the PATH.

    python -m benchmarks.calibrate --size 4096 --seed 3

All see the same pixels, the same wrong header and the same catalogue, and all solutions are held against the truth.
The peers run twice: as deep as we detect, with the columns that we measure but no PSF fluxes, which they have not;
and as they come, 5 sigma of a pixel and the columns of astrometry alone, which finds bright sources only. Our seconds
are those of `calibrate` in a process that runs already, as the daemon has it, and of a process of its own, with its
imports. Pixels are in memory for the first; the second and the peers read files. Each runs some times, by turns, and
the least CPU time counts.

Printed are seconds (wall and CPU), the error of the WCS, the residuals of isolated stars of S/N above 100 to where
they truly are, and what each found: sources, the stars among them by S/N, and the part that lies on nothing.
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from apstream.arrays.types import F64, Records
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.refcat import REFCAT_DTYPE, RefCat
from apstream.model.wcs import SkyWcs, separation
from apstream.simulate.config import NightConfig
from apstream.simulate.optics import Conditions, FocalPlane, draw_conditions, header_wcs
from apstream.simulate.scene import View, paint_objects, paint_sky
from apstream.simulate.sky import draw_objects, magnitude_flux, positions_at
from apstream.tasks.calibrate import CalibrateConfig, calibrate
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.find_sources import find_sources
from benchmarks.sextractor import Plate, find_and_solve, missing_programs

FULL_WELL = 100_000.0
READ_NOISE = 5.0
#: Error of the catalogue's positions per axis, mas, and of its magnitudes.
CATALOGUE_MAS, CATALOGUE_MAG = 5.0, 0.01
#: S/N of stars whose completeness is told.
SNR_BINS = ((5, 7), (7, 15), (15, 100))
#: Detection thresholds of the peers' two runs, sigma of a point source; None: their own.
DEPTHS = (("peers, as deep", CalibrateConfig().detection.detect_sigma), ("peers, as they come", None))
CHILD = """
import pickle, sys
from apstream.tasks.calibrate import CalibrateConfig, calibrate
char, catalogue = pickle.load(open(sys.argv[1], "rb"))
calibrate(char, catalogue, CalibrateConfig())
"""


@dataclass(frozen=True)
class Scene:
    """An exposure of simulated sky, what is true of it, and a catalogue of its stars."""

    exposure: Exposure
    conditions: Conditions
    wcs: SkyWcs
    header: SkyWcs
    catalogue: RefCat
    stars: Records  # y, x, ra, dec, flux of all that is there
    objects: Records  # what was painted
    fwhm: float


@dataclass(frozen=True)
class Solution:
    """A WCS with the stars that were measured, and what it took."""

    wcs: SkyWcs
    y: F64
    x: F64
    snr: F64
    wall_s: float
    cpu_s: float
    parts: dict[str, float]  # CPU seconds of parts
    places: F64  # y, x of all that was found


def make_scene(size: int, seed: int, band: str, config: NightConfig | None = None) -> Scene:
    """Draw a sky and expose it once."""
    config, rng = config or NightConfig(size=size), np.random.default_rng(seed)
    sky, optics, plane = config.sky, config.optics, FocalPlane(size, 1)
    half = (size / 2 + 100) * optics.pixel_scale_arcsec
    objects = draw_objects(rng, sky, (half, half))
    conditions = draw_conditions(
        rng, optics, centre=(sky.ra_deg, sky.dec_deg), visit=1, role="science", band=band, mjd_start_utc=61100.0,
        exposure_s=30.0,
    )  # fmt: skip
    view = View.of(conditions, plane, 0, optics)
    light = paint_sky(view)
    paint_objects(light, view, objects)
    pixels = rng.poisson(np.minimum(light, 1e9)) + rng.normal(0, READ_NOISE, light.shape)
    saturated = pixels > 0.98 * FULL_WELL
    pixels = np.minimum(pixels, FULL_WELL).astype(np.float32)
    mask = np.where(saturated, int(MaskPlane.SAT), 0).astype(np.int32)
    variance = np.maximum(pixels, 0) + np.float32(READ_NOISE**2)
    info = ExposureInfo(
        id=VisitDetector("simcam", 1, 0), band=band, physical_filter=band, mid_mjd_tai=conditions.mjd_mid_utc,
        exposure_s=30.0,
    )  # fmt: skip
    header = header_wcs(conditions, plane, 0, optics)
    exposure = Exposure(image=MaskedImage.make(pixels, mask, variance, "electron"), info=info, wcs=header)
    catalogue, there = _tables(rng, objects, view)
    return Scene(
        exposure, conditions, view.wcs, header, catalogue, there, objects,
        conditions.seeing_arcsec / optics.pixel_scale_arcsec,
    )  # fmt: skip


def _tables(rng: np.random.Generator, objects: Records, view: View) -> tuple[RefCat, Records]:
    """Return the catalogue, at the epoch of the exposure, and the truth of everything."""
    band = view.conditions.band
    ra, dec = positions_at(objects, view.conditions.mjd_mid_utc)
    listed = objects["is_star"] & (objects["mag_r"] < 21)
    rows = np.zeros(int(listed.sum()), REFCAT_DTYPE)
    noise = CATALOGUE_MAS / 3.6e6
    rows["dec"] = dec[listed] + rng.normal(0, noise, len(rows))
    rows["ra"] = ra[listed] + rng.normal(0, noise, len(rows)) / np.cos(np.deg2rad(rows["dec"]))
    rows["mag"] = objects[f"mag_{band}"][listed] + rng.normal(0, CATALOGUE_MAG, len(rows))
    rows["pos_err"] = CATALOGUE_MAS
    rows["mag_err"], rows["color"], rows["epoch"] = CATALOGUE_MAG, np.nan, np.nan
    there = np.zeros(len(objects), [(name, "f8") for name in ("y", "x", "ra", "dec", "flux")] + [("star", "?")])
    there["y"], there["x"] = view.wcs.sky_to_pixel(ra, dec)
    there["ra"], there["dec"], there["star"] = ra, dec, objects["is_star"]
    there["flux"] = view.conditions.electrons(magnitude_flux(objects[f"mag_{band}"]))
    return RefCat(rows, "simulated"), there


def ours(scene: Scene, char: CharacterizedExposure) -> tuple[Solution, dict[str, float]]:
    """Time `calibrate` as a daemon runs it, all imported, all kernels loaded; and its detection alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = calibrate(char, scene.catalogue, CalibrateConfig())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    start = time.process_time()
    find_sources(char, CalibrateConfig().detection)
    parts = {"detection": time.process_time() - start}
    stars = out.stars[out.stars["is_star"] & ~out.stars["saturated"] & ~out.stars["flagged"]]
    places = np.column_stack([out.stars["y"], out.stars["x"]])
    snr = stars["flux"] / stars["flux_err"]
    return Solution(out.wcs, stars["y"], stars["x"], snr, wall, cpu, parts, places), out.metrics


def as_process(scene: Scene, char: CharacterizedExposure, folder: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of `calibrate` in a process of its own, imports and reading its input included."""
    with (folder / "input.pickle").open("wb") as stream:
        pickle.dump((char, scene.catalogue), stream, protocol=5)
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", CHILD, str(folder / "input.pickle")], check=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def theirs(scene: Scene, folder: Path, depth: float | None) -> Solution:
    """Run SExtractor and SCAMP, one thread each."""
    plate = Plate(
        image=scene.exposure.image.image, header=scene.header, stars=scene.catalogue.stars, error_mas=CATALOGUE_MAS,
        saturation=0.98 * FULL_WELL, fwhm_px=scene.fwhm, seeing_arcsec=scene.conditions.seeing_arcsec,
    )  # fmt: skip
    found = find_and_solve(plate, folder, depth=depth)
    places = np.column_stack([found.rows[name] - 1.0 for name in ("YWIN_IMAGE", "XWIN_IMAGE")])
    good = found.rows["FLAGS"] == 0
    parts = {"SExtractor": found.cpu_s[0], "SCAMP": found.cpu_s[1]}
    y, x, snr = places[good, 0], places[good, 1], found.rows["SNR_WIN"][good]
    return Solution(found.wcs, y, x, snr, sum(found.wall_s), sum(found.cpu_s), parts, places)


def accuracy(scene: Scene, found: Solution) -> tuple[float, float, float, int]:
    """Return median and largest error of the WCS, and the rms residual per axis of isolated bright stars (mas)."""
    size = scene.exposure.box.shape[0]
    y, x = (a.ravel() for a in np.meshgrid(np.linspace(0, size - 1, 20), np.linspace(0, size - 1, 20)))
    wrong = separation(*found.wcs.pixel_to_sky(y, x), *scene.wcs.pixel_to_sky(y, x)) * 3.6e6
    tree = cKDTree(np.column_stack([scene.stars["y"], scene.stars["x"]]))
    distance, index = tree.query(np.column_stack([found.y, found.x]))
    keep = (distance < 1) & (found.snr > 100) & scene.stars["star"][index] & _isolated(scene, tree)[index]
    ra, dec = found.wcs.pixel_to_sky(found.y[keep], found.x[keep])
    true = scene.stars[index[keep]]
    east, north = (ra - true["ra"]) * np.cos(np.deg2rad(dec)) * 3.6e6, (dec - true["dec"]) * 3.6e6
    rms = float(np.sqrt(np.mean(np.r_[east, north] ** 2)))
    return float(np.median(wrong)), float(wrong.max()), rms, int(keep.sum())


def _isolated(scene: Scene, tree: cKDTree) -> np.ndarray:
    """Tell what has less than half a per cent of others' light within five FWHM."""
    y, x, flux = (scene.stars[name] for name in ("y", "x", "flux"))
    bright = np.flatnonzero(flux > 1e4)
    alone = np.zeros(len(flux), bool)
    near = tree.query_ball_point(np.column_stack([y[bright], x[bright]]), 5 * scene.fwhm)
    for i, others in zip(bright, near, strict=True):
        alone[i] = flux[others].sum() - flux[i] < 0.005 * flux[i]
    return alone


def detections(scene: Scene, char: CharacterizedExposure, places: F64) -> str:
    """Tell which part of the stars was found, by S/N, and which part of what was found lies on nothing.

    S/N is that of a star alone in the typical noise of the sky; neighbours and galaxies hide some.
    """
    noise = char.metrics["characterize.sky_rms"] * np.sqrt(char.psf.effective_area())
    snr, tree = scene.stars["flux"] / noise, cKDTree(places)
    there = scene.stars["star"] & scene.exposure.box.grow(-20).contains(scene.stars["y"], scene.stars["x"])
    gap, _ = tree.query(np.column_stack([scene.stars["y"], scene.stars["x"]]))
    parts = [np.mean(gap[there & (snr >= low) & (snr < high)] < 1.5) for low, high in SNR_BINS]
    real = scene.stars[snr > 1.5]
    false = cKDTree(np.column_stack([real["y"], real["x"]])).query(places)[0] > 2
    found = ", ".join(f"{low}-{high} {part:.3f}" for (low, high), part in zip(SNR_BINS, parts, strict=True))
    return f"{len(places)} sources; of stars of S/N {found}; on nothing {false.mean():.3f}"


def by_turns(
    scene: Scene, char: CharacterizedExposure, found: Solution, turns: int
) -> tuple[dict[str, Solution], tuple[float, float]]:
    """Run all in turn, for a busy machine slows one and not the other; return of each the run of least CPU time."""
    runs: dict[str, list[Solution]] = {"apstream calibrate": [found]}
    processes = []
    if missing := missing_programs():
        print(f"not on the PATH: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(turns):
            runs["apstream calibrate"].append(ours(scene, char)[0])
            processes.append(as_process(scene, char, Path(folder)))
            for name, depth in () if missing else DEPTHS:
                runs.setdefault(name, []).append(theirs(scene, Path(folder), depth))
    best = {name: min(some, key=lambda one: one.cpu_s) for name, some in runs.items()}
    return best, min(processes, key=lambda seconds: seconds[1])


def main() -> None:
    """Print times and accuracy of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--band", default="r")
    parser.add_argument("--turns", type=int, default=3, help="runs of each, by turns; the least CPU time counts")
    options = parser.parse_args()
    calibrate_once(512, options.seed, options.band)  # compiles the kernels
    scene, char, found, metrics = calibrate_once(options.size, options.seed, options.band)
    rows, process = by_turns(scene, char, found, options.turns)
    found = rows["apstream calibrate"]
    print(f"{'':20} {'wall s':>8} {'CPU s':>8} {'WCS median':>11} {'largest':>8} {'stars rms':>10} {'n':>6}   (mas)")
    for name, one in rows.items():
        median, largest, rms, n = accuracy(scene, one)
        print(f"{name:20} {one.wall_s:8.2f} {one.cpu_s:8.2f} {median:11.2f} {largest:8.2f} {rms:10.2f} {n:6d}")
    print(f"{'a process of its own':20} {process[0]:8.2f} {process[1]:8.2f}")
    for name, one in rows.items():
        parts = ", ".join(f"{part} {seconds:.2f} CPU s" for part, seconds in one.parts.items())
        print(f"{name}: {parts}; {detections(scene, char, one.places)}")
    for name, one in list(rows.items())[1:]:
        print(f"{name}: {one.cpu_s / found.cpu_s:.1f} times the CPU time of calibrate, "
              f"{one.cpu_s / process[1]:.1f} times that of a process of its own")  # fmt: skip
    error = metrics["calibrate.zero_point"] - scene.conditions.zero_point
    print(f"zero point (PSF flux) {error:+.4f} mag from that of all light; scatter of stars "
          f"{metrics['calibrate.zero_point_scatter']:.4f}; depth {metrics['calibrate.depth_mag']:.2f}")  # fmt: skip


def calibrate_once(size: int, seed: int, band: str) -> tuple[Scene, CharacterizedExposure, Solution, dict[str, float]]:
    """Simulate, characterize and calibrate one exposure."""
    scene = make_scene(size, seed, band)
    char = characterize(scene.exposure, CharacterizeConfig())
    return scene, char, *ours(scene, char)


if __name__ == "__main__":
    main()
