"""Point-source fluxes at the positions of known objects."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.types import F64, Records
from apstream.errors import BadHeader
from apstream.model.columns import DIA_FORCED_SOURCE
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.products import KnownObjects
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.stamps import cut_points

__all__ = ["ForcedConfig", "forced_photometry", "forced_source_ids"]


class ForcedConfig(BaseModel):
    """How fluxes at known positions are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit_half_fwhm: float = Field(2.5, gt=0.5, le=6, description="Half side of the fitted square, in FWHM.")
    edge_px: int = Field(
        0, ge=0, description="Objects closer to the edge than this many pixels are left out."
    )


def forced_photometry(
    known: KnownObjects,
    difference: DifferenceImage,
    science: CalExp | CharacterizedExposure,
    config: ForcedConfig,
) -> Records:
    """Measure PSF fluxes on the difference and on the science image where objects are known.

    Returns
    -------
    ndarray
        Rows of `columns.DIA_FORCED_SOURCE` for the objects inside the image, in their order; fluxes are
        in the unit of the images, NaN where too few pixels are good; timeProcessedMjdTai stays empty.

    Raises
    ------
    BadHeader
        If there are objects but the difference image has no WCS.
    """
    if len(known.ids) == 0:
        return DIA_FORCED_SOURCE.empty(0)
    if difference.wcs is None:
        raise BadHeader("forced photometry needs a WCS, and the difference image has none")
    inside, y, x = _inside(known, difference.wcs, difference.box.grow(-config.edge_px))
    rows = DIA_FORCED_SOURCE.empty(len(inside))
    rows["diaObjectId"] = known.ids[inside]
    rows["ra"], rows["dec"] = known.ra[inside], known.dec[inside]
    info = difference.info
    rows["diaForcedSourceId"] = forced_source_ids(info.id, rows["diaObjectId"])
    rows["visit"], rows["detector"], rows["band"] = info.id.visit, info.id.detector, info.band
    rows["midpointMjdTai"] = info.mid_mjd_tai
    rows["psfFlux"], rows["psfFluxErr"] = _fluxes(difference.image, difference.psf, y, x, config)
    rows["scienceFlux"], rows["scienceFluxErr"] = _fluxes(science.image, science.psf, y, x, config)
    return rows


def _inside(known: KnownObjects, wcs: SkyWcs, box: Box) -> tuple[NDArray[np.intp], F64, F64]:
    # Far from the image a distorted WCS cannot be inverted: only the neighbourhood is projected.
    ra, dec, radius = wcs.circle(box)
    near = np.flatnonzero(separation(np.array(ra), np.array(dec), known.ra, known.dec) <= radius)
    if len(near) == 0:
        return near, np.zeros(0), np.zeros(0)
    y, x = wcs.sky_to_pixel(known.ra[near], known.dec[near])
    inside = box.contains(y, x)
    return near[inside], y[inside], x[inside]


def forced_source_ids(key: VisitDetector, object_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 63-bit ids hashed (BLAKE2b) from visit, detector and object, whatever else is measured."""
    head = key.visit.to_bytes(8, "big") + key.detector.to_bytes(2, "big")
    tails = (int(i).to_bytes(8, "big", signed=True) for i in object_ids)
    digests = (hashlib.blake2b(head + tail, digest_size=8).digest() for tail in tails)
    return np.array([int.from_bytes(digest, "big") >> 1 for digest in digests], np.int64)


def _fluxes(image: MaskedImage, psf: Psf, y: F64, x: F64, config: ForcedConfig) -> tuple[F64, F64]:
    half = min(int(np.ceil(config.fit_half_fwhm * psf.fwhm())), psf.shape[0] // 2)
    fits = cut_points(image, psf, y, x, side=2 * half + 1).fluxes(y, x, half=half)
    return fits["flux"], fits["flux_err"]
