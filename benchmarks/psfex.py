"""SExtractor, PSFEx and astroscrappy on one image, and PSFEx's model evaluated with plain numpy."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

__all__ = ["PsfexModel", "find_peers", "run_astroscrappy", "run_psfex", "run_sextractor"]

_NAMES = {"sextractor": ("source-extractor", "sex", "sextractor"), "psfex": ("psfex", "PSFEx")}
_COLUMNS = """\
X_IMAGE Y_IMAGE FLUX_APER FLUXERR_APER FLUX_AUTO FLUXERR_AUTO FLUX_RADIUS SNR_WIN ELONGATION FWHM_IMAGE FLAGS
VIGNET({0},{0})
"""


@dataclass(frozen=True, eq=False)
class PsfexModel:
    """A .psf file: a pixel basis sampled every `step` pixels, polynomial in (x, y) with x varying fastest."""

    planes: Any
    step: float
    zero: tuple[float, float]
    scale: tuple[float, float]
    degree: int

    @classmethod
    def read(cls, path: Path) -> PsfexModel:
        """Read the first extension of a .psf file."""
        with fits.open(path) as hdus:
            header, mask = hdus[1].header, np.asarray(hdus[1].data["PSF_MASK"][0], float)
        degree = int(header.get("POLDEG1", 0)) if header["POLNAXIS"] else 0
        zero = tuple(float(header.get(f"POLZERO{k}", 0)) for k in (1, 2))
        scale = tuple(float(header.get(f"POLSCAL{k}", 1)) for k in (1, 2))
        return cls(mask, float(header["PSF_SAMP"]), zero, scale, degree)

    def at(self, y: float, x: float, half: int) -> Any:
        """Return a star at a 0-based position on the image's own pixels around it, by Lanczos-4, unit sum."""
        u, v = (x + 1 - self.zero[0]) / self.scale[0], (y + 1 - self.zero[1]) / self.scale[1]
        terms = [u**i * v**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        plane = np.tensordot(terms, self.planes, axes=1)
        middle, width = plane.shape[0] // 2, max(1.0, self.step)
        taps = []
        for place in (y, x):
            places = middle + (np.arange(-half, half + 1) - (place - np.floor(place + 0.5))) / self.step
            offsets = (places[:, None] - np.arange(plane.shape[0])[None, :]) * (self.step if self.step > 1 else 1.0)
            taps.append(np.where(np.abs(offsets) < 4 * width, np.sinc(offsets) * np.sinc(offsets / 4), 0))
        kernel = taps[0] @ plane @ taps[1].T
        return kernel / kernel.sum()


def find_peers() -> dict[str, str]:
    """Map each program, and astroscrappy, to where it is; what is missing is left out."""
    found = {name: next(filter(None, map(shutil.which, names)), None) for name, names in _NAMES.items()}
    try:
        import astroscrappy

        found["astroscrappy"] = astroscrappy.__version__
    except ImportError:
        pass
    return {name: path for name, path in found.items() if path}


def run_astroscrappy(image: Any, *, gain: float, read_noise: float, fwhm: float, sharp: float = 5.0) -> tuple[Any, Any]:
    """Return (mask, cleaned image), the usual settings of L.A.Cosmic with the PSF's width given."""
    import astroscrappy

    return astroscrappy.detect_cosmics(  # type: ignore[no-any-return]
        image, gain=gain, readnoise=read_noise, satlevel=1e7, sigclip=4.5, sigfrac=0.3, objlim=sharp, niter=4,
        fsmode="median", psffwhm=fwhm, verbose=False,
    )  # fmt: skip


def run_sextractor(image: Path, work: Path, *, fwhm: float, gain: float = 1.0) -> None:
    """Write `work/peer.ldac` with vignettes, as PSFEx wants it."""
    (work / "peer.sex").write_text("")
    side = 2 * int(5 * fwhm) + 1
    (work / "peer.param").write_text(_COLUMNS.format(side).replace(" ", "\n"))
    (work / "peer.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    _run("sextractor", [str(image)], {
        "c": "peer.sex", "PARAMETERS_NAME": "peer.param", "FILTER_NAME": "peer.conv", "CATALOG_NAME": "peer.ldac",
        "CATALOG_TYPE": "FITS_LDAC", "DETECT_MINAREA": 5, "DETECT_THRESH": 1.5, "ANALYSIS_THRESH": 1.5,
        "PHOT_APERTURES": round(4 * fwhm), "GAIN": gain, "GAIN_KEY": "NONE", "SATUR_LEVEL": 1e7, "SATUR_KEY": "NONE",
        "BACK_SIZE": 128, "VERBOSE_TYPE": "QUIET",
    }, work)  # fmt: skip


def run_psfex(work: Path, *, fwhm: float, degree: int = 2) -> PsfexModel:
    """Model the PSF of `work/peer.ldac`."""
    side = 2 * int(4 * fwhm / min(1.0, fwhm / 4)) + 1
    _run("psfex", ["peer.ldac"], {
        "BASIS_TYPE": "PIXEL_AUTO", "PSF_SIZE": f"{side},{side}", "PSFVAR_DEGREES": degree, "SAMPLE_MINSN": 20,
        "SAMPLE_FWHMRANGE": "1.2,20", "CHECKIMAGE_TYPE": "NONE", "CHECKPLOT_TYPE": "NONE", "WRITE_XML": "N",
        "NTHREADS": 1, "VERBOSE_TYPE": "QUIET",
    }, work)  # fmt: skip
    return PsfexModel.read(work / "peer.psf")


def _run(program: str, words: list[str], options: dict[str, object], work: Path) -> None:
    command = [find_peers()[program], *words]
    command += [word for name, value in options.items() for word in (f"-{name}", str(value))]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr[-500:]}")
