"""Small values of every kind that a repository stores, different for different seeds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from apstream.model.exposures import STAR_DTYPE, Background, CalExp, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.sources import source_catalog
from apstream.model.wcs import SkyWcs

BOX = Box(0, 0, 24, 32)


def wcs(seed: int = 0) -> SkyWcs:
    return SkyWcs.tan(10.0 + seed, -5.0, pixel_scale_arcsec=0.25, y=12.0, x=16.0)


def calib(seed: int = 0) -> PhotoCalib:
    return PhotoCalib(njy_per_unit=2.0 + seed, error=0.01, n_stars=30)


def psf(seed: int = 0) -> Psf:
    return Psf.gaussian(3.0 + seed, BOX, 6)


def stars(seed: int = 0) -> np.ndarray:
    rows = np.zeros(3, STAR_DTYPE)
    rows["y"], rows["x"], rows["flux"] = [3, 9, 15], [4, 8, 12], 100.0 * (seed + 1)
    return rows


def sources(seed: int = 0) -> np.ndarray:
    return source_catalog(stars(seed), None)


def masked_image(unit: str, seed: int = 0) -> MaskedImage:
    rng = np.random.default_rng(seed)
    return MaskedImage.make(rng.normal(size=BOX.shape), np.zeros(BOX.shape), np.ones(BOX.shape), unit, BOX)


def info(visit: int = 1, detector: int = 0) -> ExposureInfo:
    id = VisitDetector("simcam", visit, detector)
    return ExposureInfo(id=id, band="r", physical_filter="sim-r", mid_mjd_tai=61000.25, exposure_s=30.0)


def exposure(seed: int = 0) -> Exposure:
    return Exposure(image=masked_image("electron", seed), info=info(), wcs=None)


def background(seed: int = 0) -> Background:
    mesh = np.full((3, 4), 10.0 + seed, np.float32)
    return Background(mesh, np.ones_like(mesh), BOX, 8)


def calexp(seed: int = 0) -> CalExp:
    return CalExp(
        image=masked_image("nJy", seed),
        info=info(),
        psf=psf(seed),
        wcs=wcs(seed),
        photo_calib=calib(seed),
        stars=stars(seed),
    )


def table(seed: int = 0, rows: int = 3) -> pa.Table:
    return pa.table({"id": np.arange(rows) + 10 * seed, "flux": np.full(rows, 1.5 * (seed + 1))})
