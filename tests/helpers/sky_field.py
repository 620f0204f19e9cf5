"""Calibrated exposures of one field of stars, wherever they point; no raw frame is simulated for them."""

from __future__ import annotations

import numpy as np

from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs

RA, DEC, SCALE, SIDE, NOISE = 30.0, -12.0, 0.5, 240, 3.0
#: Degrees between the detectors' centres: they touch.
STEP = SIDE * SCALE / 3600


def stars(seed: int = 7, n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and fluxes (nJy) of all stars around the field."""
    rng = np.random.default_rng(seed)
    ra = RA + rng.uniform(-1.6, 1.6, n) * STEP / np.cos(np.deg2rad(DEC))
    return ra, DEC + rng.uniform(-1.2, 1.2, n) * STEP, 10 ** rng.uniform(3.0, 4.6, n)


def pointing(detector: int, dither: float = 0.0, rotation: float = 0.0) -> SkyWcs:
    """WCS of a detector: 0 lies west, 1 east of the field's centre; `dither` in pixels."""
    east = (detector - 0.5) * STEP
    middle = (SIDE - 1) / 2
    ra = RA + east / np.cos(np.deg2rad(DEC))
    return SkyWcs.tan(ra, DEC, pixel_scale_arcsec=SCALE, y=middle + dither, x=middle - 0.7 * dither, rotation=rotation)


def rendered(wcs: SkyWcs, fwhm: float, box: Box) -> np.ndarray:
    """The field without noise, Gaussian stars of `fwhm` pixels."""
    image, sigma = np.zeros(box.shape), fwhm / 2.3548
    ra, dec, flux = stars()
    ys, xs = wcs.sky_to_pixel(ra, dec)
    reach = int(6 * sigma) + 1
    for y, x, f in zip(ys, xs, flux, strict=True):
        near = Box(int(y) - reach, int(x) - reach, int(y) + reach + 1, int(x) + reach + 1).intersect(box)
        if near.is_empty:
            continue
        yy, xx = np.mgrid[near.y0 : near.y1, near.x0 : near.x1]
        shape = np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
        image[near.slices(box)] += f * shape
    return image


def calexp(
    visit: int, detector: int, *, fwhm: float = 3.5, dither: float = 0.0, rotation: float = 0.0, band: str = "r"
) -> CalExp:
    """One detector of a visit."""
    box = Box(0, 0, SIDE, SIDE)
    wcs = pointing(detector, dither, rotation)
    noise = np.random.default_rng([visit, detector]).normal(0, NOISE, box.shape)
    image = rendered(wcs, fwhm, box) + noise
    return CalExp(
        image=MaskedImage.make(image, np.zeros(box.shape, np.int32), np.full(box.shape, NOISE**2), "nJy", box),
        info=ExposureInfo(
            id=VisitDetector("simcam", visit, detector),
            band=band,
            physical_filter=f"{band}_sim",
            mid_mjd_tai=60000.0 + visit,
            exposure_s=30.0,
            ra=RA,
            dec=DEC,
        ),
        psf=Psf.gaussian(fwhm, box, half=13),
        wcs=wcs,
        photo_calib=PhotoCalib(njy_per_unit=1.0, n_stars=9),
        stars=np.zeros(0, STAR_DTYPE),
    )
