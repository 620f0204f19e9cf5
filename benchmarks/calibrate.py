"""Calibrate a simulated image, and do the same with SExtractor and SCAMP where they are on the PATH.

    python -m benchmarks.calibrate --size 4096 --seed 3

Both see the same pixels, the same wrong header and the same catalogue; both solutions are held against the truth.
Printed are seconds (wall and CPU; ours is `calibrate`, detection included), the error of the WCS, and the
residuals of isolated stars of S/N above 100 to where they truly are.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
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

FULL_WELL = 100_000.0
READ_NOISE = 5.0
#: Error of the catalogue's positions per axis, mas, and of its magnitudes.
CATALOGUE_MAS, CATALOGUE_MAG = 5.0, 0.01
SEXTRACTOR = ("source-extractor", "sex")
COLUMNS = (
    "NUMBER XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE FLUX_AUTO FLUXERR_AUTO FLAGS "
    "FLAGS_WEIGHT FLUX_RADIUS ELONGATION SNR_WIN MAG_AUTO MAGERR_AUTO"
)


@dataclass(frozen=True)
class Scene:
    """An exposure of simulated sky, what is true of it, and a catalogue of its stars."""

    exposure: Exposure
    conditions: Conditions
    wcs: SkyWcs
    header: SkyWcs
    catalogue: RefCat
    stars: Records  # y, x, ra, dec, flux of all that is there
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


def make_scene(size: int, seed: int, band: str) -> Scene:
    """Draw a sky and expose it once."""
    config, rng = NightConfig(size=size), np.random.default_rng(seed)
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
        exposure, conditions, view.wcs, header, catalogue, there, conditions.seeing_arcsec / optics.pixel_scale_arcsec
    )


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
    rows["mag_err"], rows["color"], rows["epoch"] = CATALOGUE_MAG, np.nan, np.nan
    there = np.zeros(len(objects), [(name, "f8") for name in ("y", "x", "ra", "dec", "flux")] + [("star", "?")])
    there["y"], there["x"] = view.wcs.sky_to_pixel(ra, dec)
    there["ra"], there["dec"], there["star"] = ra, dec, objects["is_star"]
    there["flux"] = view.conditions.electrons(magnitude_flux(objects[f"mag_{band}"]))
    return RefCat(rows, "simulated"), there


def ours(scene: Scene, char: CharacterizedExposure) -> tuple[Solution, dict[str, float]]:
    """Time `calibrate`."""
    wall, cpu = time.perf_counter(), time.process_time()
    out = calibrate(char, scene.catalogue, CalibrateConfig())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stars = out.stars[out.stars["is_star"] & ~out.stars["saturated"] & ~out.stars["flagged"]]
    return Solution(out.wcs, stars["y"], stars["x"], stars["flux"] / stars["flux_err"], wall, cpu), out.metrics


def theirs(scene: Scene, folder: Path) -> Solution | None:
    """Run SExtractor and SCAMP, one thread each; None where they are not installed."""
    sextractor, scamp = next(filter(None, map(shutil.which, SEXTRACTOR)), None), shutil.which("scamp")
    if sextractor is None or scamp is None:
        return None
    image = scene.exposure.image.image
    fits.PrimaryHDU(image, scene.header.to_header()).writeto(folder / "image.fits")
    (folder / "sex.param").write_text(COLUMNS.replace(" ", "\n") + "\n")
    (folder / "default.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    _write_ldac(scene.catalogue.stars, folder / "ref.cat")
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(folder, [
        sextractor, "image.fits", "-CATALOG_NAME", "image.cat", "-CATALOG_TYPE", "FITS_LDAC", "-PARAMETERS_NAME",
        "sex.param", "-FILTER_NAME", "default.conv", "-DETECT_THRESH", "5", "-ANALYSIS_THRESH", "5", "-SATUR_LEVEL",
        str(0.98 * FULL_WELL), "-GAIN", "1", "-NTHREADS", "1", "-SEEING_FWHM", f"{scene.conditions.seeing_arcsec:.2f}",
    ])  # fmt: skip
    _run(folder, [
        scamp, "image.cat", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "ref.cat", "-ASTREFCENT_KEYS",
        "X_WORLD,Y_WORLD", "-ASTREFERR_KEYS", "ERRA_WORLD,ERRB_WORLD,ERRTHETA_WORLD", "-ASTREFMAG_KEY", "MAG",
        "-ASTREFMAGERR_KEY", "MAGERR", "-DISTORT_DEGREES", "3", "-SOLVE_PHOTOM", "N", "-CHECKPLOT_TYPE", "NONE",
        "-WRITE_XML", "N", "-NTHREADS", "1", "-STABILITY_TYPE", "INSTRUMENT",
    ])  # fmt: skip
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wcs = SkyWcs.from_header(_header(folder / "image.head"))
    assert wcs is not None
    rows = fits.getdata(folder / "image.cat", 2)
    good = rows["FLAGS"] == 0
    return Solution(wcs, rows["YWIN_IMAGE"][good] - 1, rows["XWIN_IMAGE"][good] - 1, rows["SNR_WIN"][good], wall, cpu)


def _run(folder: Path, command: list[str]) -> None:
    if Path(command[0]).name.startswith("s") and not (folder / "none.conf").exists():
        (folder / "none.conf").write_text("")
    done = subprocess.run([*command, "-c", "none.conf"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def _header(path: Path) -> fits.Header:
    lines = path.read_text(encoding="latin-1").splitlines()
    cards = [line for line in lines if not line.startswith(("HISTORY", "COMMENT", "END"))]
    return fits.Header.fromstring("\n".join(cards), sep="\n")


def _write_ldac(stars: Records, path: Path) -> None:
    """Write a catalogue as SCAMP reads a local one."""
    cards = np.array([fits.Header().tostring(padding=True)])
    head = fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", f"{len(cards[0])}A", array=cards)], name="LDAC_IMHEAD"
    )
    error = np.full(len(stars), CATALOGUE_MAS / 3.6e6)
    columns = {
        "X_WORLD": (stars["ra"], "deg"), "Y_WORLD": (stars["dec"], "deg"), "ERRA_WORLD": (error, "deg"),
        "ERRB_WORLD": (error, "deg"), "ERRTHETA_WORLD": (0 * error, "deg"), "MAG": (stars["mag"], "mag"),
        "MAGERR": (stars["mag_err"], "mag"),
    }  # fmt: skip
    table = [fits.Column(name, "1D", unit=unit, array=values) for name, (values, unit) in columns.items()]
    objects = fits.BinTableHDU.from_columns(table, name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(path)


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


def main() -> None:
    """Print times and accuracy of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--band", default="r")
    options = parser.parse_args()
    calibrate_once(512, options.seed, options.band)  # compiles the kernels
    scene, found, metrics = calibrate_once(options.size, options.seed, options.band)
    rows = {"apstream calibrate": found}
    with tempfile.TemporaryDirectory() as folder:
        peers = theirs(scene, Path(folder))
    if peers is not None:
        rows["SExtractor + SCAMP"] = peers
    print(f"{'':20} {'wall s':>8} {'CPU s':>8} {'WCS median':>11} {'largest':>8} {'stars rms':>10} {'n':>6}   (mas)")
    for name, one in rows.items():
        median, largest, rms, n = accuracy(scene, one)
        print(f"{name:20} {one.wall_s:8.2f} {one.cpu_s:8.2f} {median:11.2f} {largest:8.2f} {rms:10.2f} {n:6d}")
    if peers is not None:
        print(f"ratio of wall times {peers.wall_s / found.wall_s:.1f}, of CPU times {peers.cpu_s / found.cpu_s:.1f}")
    error = metrics["calibrate.zero_point"] - scene.conditions.zero_point
    print(f"zero point (PSF flux) {error:+.4f} mag from that of all light; scatter of stars "
          f"{metrics['calibrate.zero_point_scatter']:.4f}; depth {metrics['calibrate.depth_mag']:.2f}")  # fmt: skip


def calibrate_once(size: int, seed: int, band: str) -> tuple[Scene, Solution, dict[str, float]]:
    """Simulate, characterize and calibrate one exposure."""
    scene = make_scene(size, seed, band)
    char = characterize(scene.exposure, CharacterizeConfig())
    return scene, *ours(scene, char)


if __name__ == "__main__":
    main()
