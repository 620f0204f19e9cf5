"""Time the classical chain on the same pair of images: SExtractor, PSFEx, SWarp, HOTPANTS, SExtractor.

    python -m benchmarks.peers SCIENCE.fits TEMPLATE.fits [--work DIR] [--cpu 0]

The programs are separate packages with their own licences; they are run where they are on the PATH, one
process per step, files between the steps, one thread each. Steps and settings follow the usual recipe for one
visit against an existing template coadd; the astrometric solution is taken as given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

__all__ = ["PROGRAMS", "Step", "find_programs", "missing_programs", "run_chain", "table"]

# names under which distributions install the programs
PROGRAMS = {
    "source-extractor": ("source-extractor", "sex", "sextractor"),
    "psfex": ("psfex", "PSFEx"),
    "swarp": ("SWarp", "swarp"),
    "hotpants": ("hotpants",),
}

SOURCE_COLUMNS = """\
X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ALPHA_J2000 DELTA_J2000
FLUX_AUTO FLUXERR_AUTO MAG_AUTO FLUX_APER(3) FLUXERR_APER(3) FLUX_RADIUS
SNR_WIN ELONGATION FWHM_IMAGE FLAGS VIGNET(41,41)
"""
DIFFERENCE_COLUMNS = "X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE FLUX_APER FLUXERR_APER FLAGS\n"


@dataclass(frozen=True)
class Step:
    """What one step of the chain took."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Image:
    """A plain image on disk and what the programs have to be told of it, in its own units."""

    path: Path
    gain: float
    read_noise: float
    saturation: float
    sky: float
    sigma: float

    def noise(self, pixels: np.ndarray, sky: float) -> np.ndarray:
        """Return the noise of sky-subtracted pixels."""
        light = np.maximum(pixels + np.float32(sky), 0) / np.float32(self.gain)
        return np.sqrt(light + np.float32((self.read_noise / self.gain) ** 2))


def find_programs() -> dict[str, str]:
    """Map each program to its path; a program that is not installed is left out."""
    found = {name: next(filter(None, map(shutil.which, names)), None) for name, names in PROGRAMS.items()}
    return {name: path for name, path in found.items() if path is not None}


def missing_programs() -> list[str]:
    """Name the programs of the chain that are not on the PATH."""
    return sorted(set(PROGRAMS) - set(find_programs()))


def run_chain(science: Path, template: Path, work: Path, *, cpu: int | None = None) -> list[Step]:
    """Run the chain in `work` and return its steps; the difference is `work/difference.fits`.

    Parameters
    ----------
    science, template
        Images with a WCS in their headers; GAIN, RDNOISE and SATURATE are used when there.
    work
        Directory for all files between the steps.
    cpu
        The one processor the chain may use; None leaves the choice to the system.

    Raises
    ------
    FileNotFoundError
        If a program is not installed.
    RuntimeError
        If a program fails; carries the end of its output.
    """
    if missing_programs():
        raise FileNotFoundError(f"not installed: {', '.join(missing_programs())}")
    work.mkdir(parents=True, exist_ok=True)
    programs = find_programs()
    new, old = _prepare(science, work / "science.fits"), _prepare(template, work / "template.fits")
    _write_settings(work, new)
    everywhere = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        return [
            _timed("source-extractor", [programs["source-extractor"], *_detection(new)], work),
            _timed("psfex", [programs["psfex"], *_psf_model()], work),
            _timed("swarp", [programs["swarp"], *_warp(old)], work),
            _timed_here("noise maps", lambda: _noise_maps(work, new, old)),
            _timed("hotpants", [programs["hotpants"], *_subtraction(new, old)], work),
            _timed("source-extractor on the difference", [programs["source-extractor"], *_search()], work),
        ]
    finally:
        os.sched_setaffinity(0, everywhere)


def _prepare(source: Path, target: Path) -> Image:
    """Write the image as one plain float32 plane, since the programs read nothing else; not timed."""
    with fits.open(source) as hdus:
        names = [hdu.name for hdu in hdus]
        hdu = hdus["SCI"] if "SCI" in names else next(hdu for hdu in hdus if hdu.data is not None)
        pixels = np.asarray(hdu.data, np.float32)
        cards = {**hdus[0].header, **hdu.header}
        header = _plain_wcs(hdu.header)
    fits.PrimaryHDU(pixels, header).writeto(target, overwrite=True)
    good = pixels[np.isfinite(pixels)][::7]
    sky = float(np.median(good))
    sigma = 1.4826 * float(np.median(np.abs(good - sky)))
    return Image(
        path=target,
        gain=float(cards.get("GAIN", max(sky, 1.0) / sigma**2)),
        read_noise=float(cards.get("RDNOISE", 0.0)),
        saturation=float(cards.get("SATURATE", float(good.max()))),
        sky=sky,
        sigma=sigma,
    )


def _plain_wcs(header: fits.Header) -> fits.Header:
    """Return the WCS without SIP terms: these programs ignore them, and both images have nearly the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = WCS(header).celestial.to_header()
    for axis in (1, 2):
        plain[f"CTYPE{axis}"] = plain[f"CTYPE{axis}"].removesuffix("-SIP")
    return plain


def _write_settings(work: Path, new: Image) -> None:
    (work / "default.sex").write_text("")
    (work / "source.param").write_text(SOURCE_COLUMNS.replace(" ", "\n"))
    (work / "difference.param").write_text(DIFFERENCE_COLUMNS.replace(" ", "\n"))
    (work / "source.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    rows = [" ".join(f"{value:.6f}" for value in row) for row in _matched_filter()]
    (work / "difference.conv").write_text("CONV NORM\n" + "\n".join(rows) + "\n")
    header = fits.getheader(new.path)
    (work / "warped.head").write_text(header.tostring(sep="\n", endcard=True, padding=False) + "\n")


def _matched_filter(fwhm: float = 4.0, size: int = 7) -> np.ndarray:
    offsets = np.arange(size) - size // 2
    profile = np.exp(-4 * np.log(2) * (offsets / fwhm) ** 2)
    return np.outer(profile, profile) / profile.sum() ** 2


def _options(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in (f"-{name}", str(value))]


def _detection(new: Image) -> list[str]:
    return [
        new.path.name,
        *_options(
            c="default.sex",
            PARAMETERS_NAME="source.param",
            FILTER_NAME="source.conv",
            CATALOG_NAME="science.ldac",
            CATALOG_TYPE="FITS_LDAC",
            DETECT_MINAREA=5,
            DETECT_THRESH=1.5,
            ANALYSIS_THRESH=1.5,
            PHOT_APERTURES="8,12,24",
            GAIN=new.gain,
            GAIN_KEY="NONE",
            SATUR_LEVEL=new.saturation,
            SATUR_KEY="NONE",
            BACK_SIZE=128,
            CHECKIMAGE_TYPE="-BACKGROUND",
            CHECKIMAGE_NAME="science_flat.fits",
            VERBOSE_TYPE="QUIET",
        ),
    ]


def _psf_model() -> list[str]:
    return [
        "science.ldac",
        *_options(
            BASIS_TYPE="PIXEL_AUTO",
            PSF_SIZE="31,31",
            PSFVAR_DEGREES=2,
            SAMPLE_MINSN=20,
            CHECKIMAGE_TYPE="NONE",
            CHECKPLOT_TYPE="NONE",
            WRITE_XML="N",
            NTHREADS=1,
            VERBOSE_TYPE="QUIET",
        ),
    ]


def _warp(old: Image) -> list[str]:
    return [
        old.path.name,
        *_options(
            IMAGEOUT_NAME="warped.fits",
            WEIGHTOUT_NAME="warped.weight.fits",
            RESAMPLING_TYPE="LANCZOS3",
            FSCALASTRO_TYPE="VARIABLE",
            SUBTRACT_BACK="Y",
            BACK_SIZE=256,
            COMBINE_TYPE="WEIGHTED",
            WRITE_XML="N",
            NTHREADS=1,
            VERBOSE_TYPE="QUIET",
        ),
    ]


def _noise_maps(work: Path, new: Image, old: Image) -> None:
    """Write noise and mask planes for both images."""
    for name, image, stem in (("science_flat", new, "science"), ("warped", old, "template")):
        pixels = fits.getdata(work / f"{name}.fits")
        fits.writeto(work / f"{stem}_noise.fits", image.noise(pixels, image.sky), overwrite=True)
        bad = pixels > 0.9 * (image.saturation - image.sky)
        if stem == "template":
            bad |= fits.getdata(work / "warped.weight.fits") == 0
        fits.writeto(work / f"{stem}_mask.fits", bad.astype(np.int32), overwrite=True)


def _subtraction(new: Image, old: Image) -> list[str]:
    return [
        *_options(inim="science_flat.fits", tmplim="warped.fits", outim="difference.fits"),
        *_options(ini="science_noise.fits", tni="template_noise.fits", oni="difference_noise.fits"),
        *_options(imi="science_mask.fits", tmi="template_mask.fits"),
        *_options(iu=new.saturation - new.sky, il=-20 * new.sigma, ig=new.gain, ir=new.read_noise),
        *_options(tu=old.saturation - old.sky, tl=-20 * old.sigma, tg=old.gain, tr=old.read_noise),
        *_options(r=10, rss=15, ko=2, bgo=1, nsx=20, nsy=20, nss=3, c="t", n="i", v=0),
        *("-ng", "3", "6", "0.7", "4", "1.5", "2", "3.0"),
    ]


def _search() -> list[str]:
    smoothing = float(np.sqrt((_matched_filter() ** 2).sum()))  # the threshold counts in unfiltered noise
    return [
        "difference.fits",
        *_options(
            c="default.sex",
            PARAMETERS_NAME="difference.param",
            FILTER_NAME="difference.conv",
            CATALOG_NAME="difference.cat",
            CATALOG_TYPE="FITS_1.0",
            WEIGHT_TYPE="MAP_RMS",
            WEIGHT_IMAGE="difference_noise.fits",
            THRESH_TYPE="RELATIVE",
            DETECT_THRESH=5.0 * smoothing,
            DETECT_MINAREA=1,
            BACK_TYPE="MANUAL",
            BACK_VALUE=0,
            PHOT_APERTURES=8,
            VERBOSE_TYPE="QUIET",
        ),
    ]


def _timed(name: str, command: Sequence[str], work: Path) -> Step:
    """Run one program and take its wall time, CPU time and largest resident size (never below our own)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    log = work / f"{name.replace(' ', '_')}.log"
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=work, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{name} failed ({process.returncode}):\n{said}")
    return Step(name, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _timed_here(name: str, work: Callable[[], None]) -> Step:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return Step(name, time.perf_counter() - begin, time.process_time() - cpu, 0.0)


def table(steps: Sequence[Step]) -> str:
    """Format steps and their sum as lines of text."""
    total = Step(
        "whole chain",
        sum(step.wall_s for step in steps),
        sum(step.cpu_s for step in steps),
        max(step.peak_mb for step in steps),
    )
    lines = [f"{'step':<36}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}"]
    lines += [f"{s.name:<36}{s.wall_s:>9.2f}{s.cpu_s:>9.2f}{s.peak_mb:>9.0f}" for s in (*steps, total)]
    return "\n".join(lines)


def main() -> None:
    """Run the chain on the pair named on the command line and print its table."""
    parser = argparse.ArgumentParser(description="Time SExtractor, PSFEx, SWarp and HOTPANTS on a pair.")
    parser.add_argument("science", type=Path)
    parser.add_argument("template", type=Path)
    parser.add_argument("--work", type=Path, help="keep all files here; by default they are thrown away")
    parser.add_argument("--cpu", type=int, help="pin the chain to this processor")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (arguments.work or Path(scratch)).absolute()
        print(table(run_chain(arguments.science, arguments.template, work, cpu=arguments.cpu)))


if __name__ == "__main__":
    main()
