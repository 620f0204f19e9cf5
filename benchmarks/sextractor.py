"""SExtractor and SCAMP on one image: sources with shapes and fluxes, and a WCS of degree three.

The programs are separate packages with their own licences; they are run where they are on the PATH, one process
each, one thread each, files between them.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32, Records
from apstream.model.wcs import SkyWcs

__all__ = ["Found", "Plate", "find_and_solve", "missing_programs", "run_scamp", "write_references"]

SEXTRACTOR = ("source-extractor", "sex")
#: What astrometry needs; and further what a list of sources holds: apertures, second moments, background.
FEW = (
    "NUMBER XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE FLUX_AUTO FLUXERR_AUTO FLAGS "
    "FLAGS_WEIGHT FLUX_RADIUS ELONGATION SNR_WIN MAG_AUTO MAGERR_AUTO"
)
MORE = (
    "FLUX_APER(5) FLUXERR_APER(5) KRON_RADIUS X2WIN_IMAGE Y2WIN_IMAGE XYWIN_IMAGE FLUX_MAX BACKGROUND XPEAK_IMAGE "
    "YPEAK_IMAGE"
)
APERTURES_PX = (3.0, 4.5, 6.0, 9.0, 12.0)  # radii, as `MeasureListConfig.apertures_px`
_SIGMA_OF_FWHM = 2.3548200450309493


@dataclass(frozen=True)
class Plate:
    """An image as the programs get it, electrons, and the catalogue that it is solved with."""

    image: F32
    header: SkyWcs
    stars: Records
    error_mas: float
    saturation: float
    fwhm_px: float
    seeing_arcsec: float


@dataclass(frozen=True)
class Found:
    """What the programs found, array pixels, and the seconds of each."""

    wcs: SkyWcs
    rows: Records
    wall_s: tuple[float, float]
    cpu_s: tuple[float, float]


def missing_programs() -> list[str]:
    """Return what is not on the PATH."""
    missing = [] if next(filter(None, map(shutil.which, SEXTRACTOR)), None) else ["SExtractor"]
    return missing if shutil.which("scamp") else [*missing, "SCAMP"]


def find_and_solve(plate: Plate, folder: Path, *, depth: float | None) -> Found:
    """Run both.

    Parameters
    ----------
    depth
        Detection threshold, sigma of a point source: a Gaussian of the seeing is the filter, a single pixel above
        the threshold is enough, and `MORE` is measured. None: 5 sigma of a pixel, five pixels, the 3 x 3 filter of
        its default settings, and `FEW`.
    """
    fits.PrimaryHDU(plate.image, plate.header.to_header()).writeto(folder / "image.fits", overwrite=True)
    write_references(plate.stars, plate.error_mas, folder / "ref.cat")
    (folder / "none.conf").write_text("")
    find = _time(folder, [str(next(filter(None, map(shutil.which, SEXTRACTOR)))), *_detection(plate, folder, depth)])
    wcs, solve = run_scamp(folder)
    wall, cpu = zip(find, solve, strict=True)
    return Found(wcs, np.array(fits.getdata(folder / "image.cat", 2)), wall, cpu)


def run_scamp(folder: Path) -> tuple[SkyWcs, tuple[float, float]]:
    """Return SCAMP's WCS for the list image.cat and the catalogue ref.cat of a folder, and wall and CPU seconds."""
    seconds = _time(folder, [
        "scamp", "image.cat", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "ref.cat", "-ASTREFCENT_KEYS",
        "X_WORLD,Y_WORLD", "-ASTREFERR_KEYS", "ERRA_WORLD,ERRB_WORLD,ERRTHETA_WORLD", "-ASTREFMAG_KEY", "MAG",
        "-ASTREFMAGERR_KEY", "MAGERR", "-DISTORT_DEGREES", "3", "-SOLVE_PHOTOM", "N", "-CHECKPLOT_TYPE", "NONE",
        "-WRITE_XML", "N", "-NTHREADS", "1", "-STABILITY_TYPE", "INSTRUMENT",
    ])  # fmt: skip
    wcs = SkyWcs.from_header(_header(folder / "image.head"))
    assert wcs is not None
    return wcs, seconds


def _detection(plate: Plate, folder: Path, depth: float | None) -> list[str]:
    """Return the arguments of SExtractor; writes its filter and its list of columns."""
    columns = FEW if depth is None else f"{FEW} {MORE}"
    (folder / "sex.param").write_text(columns.replace(" ", "\n") + "\n")
    taps, threshold = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]), 5.0
    if depth is not None:
        half = int(np.ceil(1.1 * plate.fwhm_px))
        line = np.exp(-0.5 * (np.arange(-half, half + 1) * _SIGMA_OF_FWHM / plate.fwhm_px) ** 2)
        taps = np.outer(line, line)
        # it compares the filtered image with the noise of a pixel
        threshold = depth * float(np.sqrt(np.sum(taps**2)) / taps.sum())
    text = "\n".join(" ".join(f"{tap:.6f}" for tap in row) for row in taps)
    (folder / "filter.conv").write_text(f"CONV NORM\n{text}\n")
    return [
        "image.fits", "-CATALOG_NAME", "image.cat", "-CATALOG_TYPE", "FITS_LDAC", "-PARAMETERS_NAME", "sex.param",
        "-FILTER_NAME", "filter.conv", "-DETECT_THRESH", f"{threshold:.4f}", "-ANALYSIS_THRESH", f"{threshold:.4f}",
        "-DETECT_MINAREA", "5" if depth is None else "1", "-SATUR_LEVEL", str(plate.saturation), "-GAIN", "1",
        "-NTHREADS", "1", "-SEEING_FWHM", f"{plate.seeing_arcsec:.2f}",
        "-PHOT_APERTURES", ",".join(str(2 * radius) for radius in APERTURES_PX), "-MEMORY_PIXSTACK", "3000000",
    ]  # fmt: skip


def _time(folder: Path, command: list[str]) -> tuple[float, float]:
    """Run a program; return wall and CPU seconds."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, "-c", "none.conf"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _header(path: Path) -> fits.Header:
    lines = path.read_text(encoding="latin-1").splitlines()
    cards = [line for line in lines if not line.startswith(("HISTORY", "COMMENT", "END"))]
    return fits.Header.fromstring("\n".join(cards), sep="\n")


def write_references(stars: Records, error_mas: float, path: Path) -> None:
    """Write a catalogue as SCAMP reads a local one."""
    cards = np.array([fits.Header().tostring(padding=True)])
    head = fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", f"{len(cards[0])}A", array=cards)], name="LDAC_IMHEAD"
    )
    error = np.full(len(stars), error_mas / 3.6e6)
    columns = {
        "X_WORLD": (stars["ra"], "deg"), "Y_WORLD": (stars["dec"], "deg"), "ERRA_WORLD": (error, "deg"),
        "ERRB_WORLD": (error, "deg"), "ERRTHETA_WORLD": (0 * error, "deg"), "MAG": (stars["mag"], "mag"),
        "MAGERR": (stars["mag_err"], "mag"),
    }  # fmt: skip
    table = [fits.Column(name, "1D", unit=unit, array=values) for name, (values, unit) in columns.items()]
    objects = fits.BinTableHDU.from_columns(table, name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(path, overwrite=True)
