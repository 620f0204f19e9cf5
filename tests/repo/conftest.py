from __future__ import annotations

import numpy as np
import pytest

from apstream.model.exposures import (
    STAR_DTYPE,
    CalExp,
    DifferenceImage,
    ExposureInfo,
    MatchingKernel,
)
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs

BOX = Box(100, -20, 148, 44)  # unequal sides, an origin that is not zero


def info(visit: int = 2025120200351, detector: int = 94) -> ExposureInfo:
    return ExposureInfo(
        id=VisitDetector("simcam", visit, detector),
        band="r",
        physical_filter="r_57",
        mid_mjd_tai=61000.123456789,
        exposure_s=30.0,
        ra=10.5,
        dec=-0.25,
        object_name="field ü",
        origin="/data/raw/x.fits",
    )


def masked_image(unit: str) -> MaskedImage:
    rng = np.random.default_rng(7)
    mask = rng.integers(0, 1 << 19, BOX.shape).astype(np.int32)
    return MaskedImage.make(rng.normal(size=BOX.shape), mask, rng.uniform(1, 2, BOX.shape), unit, BOX)


def psf() -> Psf:
    basis = np.zeros((3, 9, 9))
    basis[0] = Psf.gaussian(3.0, BOX, 4).basis[0]
    basis[1, 4, 3:6] = -0.01, 0.02, -0.01
    return Psf(basis.astype(np.float32).astype(float), BOX)


def wcs() -> SkyWcs:
    return SkyWcs.tan(10.5, -0.25, pixel_scale_arcsec=0.25, y=120.0, x=10.0, rotation=12.0)


@pytest.fixture
def calexp() -> CalExp:
    stars = np.zeros(4, STAR_DTYPE)
    stars["y"], stars["x"], stars["flux"] = np.arange(4) + 100.25, np.arange(4) - 0.5, [1e3, 1e4, 1e5, 1e6]
    stars["is_star"] = [True, False, True, True]
    return CalExp(
        image=masked_image("nJy"),
        info=info(),
        psf=psf(),
        wcs=wcs(),
        photo_calib=PhotoCalib(njy_per_unit=3.25, error=0.01, n_stars=312),
        stars=stars,
        metrics={"calibrate.n_matched": 312.0, "characterize.fwhm_pixel": float("nan")},
    )


@pytest.fixture
def difference() -> DifferenceImage:
    rng = np.random.default_rng(8)
    kernel = MatchingKernel(
        basis=rng.normal(size=(5, 7, 7)).astype(np.float32).astype(float),
        coefficients=rng.normal(size=(5, 6)),
        background=rng.normal(size=3),
        box=BOX,
    )
    return DifferenceImage(
        image=masked_image("nJy"),
        info=info(),
        psf=psf(),
        wcs=wcs(),
        kernel=kernel,
        matched_template=rng.normal(size=BOX.shape).astype(np.float32),
        convolved="template",
        metrics={"subtract.variance_scale": 1.01},
    )
