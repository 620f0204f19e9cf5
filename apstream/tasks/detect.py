"""Find what changed: matched-filter detection of both signs on a difference image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.detect import (
    SeparableFilters,
    empty_width,
    separable_filters,
    significance,
    tile_centers,
)
from apstream.arrays.footprints import find_footprints, paint_signs
from apstream.arrays.mesh import median_mesh, subtract_mesh
from apstream.arrays.stamps import psf_stamps
from apstream.arrays.types import F32, BoolArray, Records
from apstream.errors import NoGoodPixels, SubtractionFailed
from apstream.model.exposures import DifferenceImage
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane, planes

__all__ = ["DetectConfig", "Detections", "detect"]

_TILE = 256
#: What surrounds saturated pixels is one thing, however many peaks it has.
_NOT_DIVIDED = planes("SAT", "SAT_TEMPLATE")


class DetectConfig(BaseModel):
    """How deep to search and how to merge what is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    excluded_planes: tuple[str, ...] = Field(
        ("NO_DATA", "BAD", "EDGE", "SAT", "SAT_TEMPLATE"), description="Pixels of these planes are not searched."
    )
    threshold_sigma: float = Field(5.0, gt=0, description="Least significance of a detection, either sign.")
    grow_fwhm: float = Field(0.6, ge=0, le=5, description="Growth of footprints, in FWHM of the PSF.")
    split_fwhm: float | None = Field(
        2.2, gt=1, description="Peaks of one footprint this far apart may be sources of their own; null: never."
    )
    filter_fwhm: float = Field(1.5, gt=0.5, le=4, description="Half width of the matched filter, in FWHM.")
    background_cell_px: int | None = Field(
        256, ge=32, description="Cell of the residual background in pixels; null leaves the background alone."
    )
    rescale_variance: bool = Field(
        True, description="Scale the variance so that the significance of empty sky has unit width."
    )
    sky_sources: int = Field(100, ge=0, description="Empty positions at which the noise is recorded.")
    max_detections: int = Field(
        10_000, gt=0, le=16_384, description="More footprints than this mean a failed subtraction."
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detections:
    """Footprints on a difference image.

    Parameters
    ----------
    difference
        The image as searched: residual background subtracted, variance rescaled, DETECTED and
        DETECTED_NEGATIVE set, metrics ``detect.*`` added. Measure and save this one.
    footprints
        Rows of `apstream.arrays.footprints.FOOTPRINT_DTYPE` in array indices of the image, by decreasing
        significance.
    labels : ndarray, shape (ny, nx), int32
        The label of the footprint that holds each pixel; 0 elsewhere.
    sky_y, sky_x : ndarray
        Absolute pixels of the sky sources.
    """

    difference: DifferenceImage
    footprints: Records
    labels: NDArray[np.int32]
    sky_y: NDArray[np.int64]
    sky_x: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.footprints)


def detect(difference: DifferenceImage, config: DetectConfig) -> Detections:
    """Find the footprints whose matched-filter significance passes the threshold, either sign.

    Pixels of `excluded_planes` and pixels that are not finite give neither signal nor noise and are not
    searched; cosmic rays are searched, and flagged when measured.

    Raises
    ------
    NoGoodPixels
        If no pixel can be searched.
    SubtractionFailed
        If there are more footprints than `max_detections`.
    """
    image = difference.image
    usable = ~image.flagged(planes(*config.excluded_planes)) & np.isfinite(image.image) & (image.variance > 0)
    if not usable.any():
        raise NoGoodPixels("the difference image has no pixel that could be searched")
    pixels = _flatten(image.image, image.variance, usable, config)
    fwhm = difference.psf.fwhm()
    snr = significance(pixels, image.variance, usable, _filters(difference, fwhm, config))
    scale = empty_width(snr) ** 2
    factor = scale if config.rescale_variance and np.isfinite(scale) and scale > 0 else 1.0
    snr /= np.float32(np.sqrt(factor))
    footprints, labels = _footprints(snr, image, fwhm, config)
    _check(len(footprints), config)
    footprints = footprints[np.lexsort((footprints["x"], footprints["y"], -np.abs(footprints["snr"])))]
    sky_y, sky_x = _sky_sources(labels, usable, difference, config.sky_sources)
    mask = paint_signs(image.mask, snr, labels, positive=MaskPlane.DETECTED, negative=MaskPlane.DETECTED_NEGATIVE)
    searched = image.with_image(pixels).with_mask(mask).with_variance(image.variance * np.float32(factor))
    metrics = difference.metrics | _metrics(footprints, snr[sky_y, sky_x], scale)
    return Detections(
        difference=replace(difference, image=searched, metrics=metrics),
        footprints=footprints,
        labels=labels,
        sky_y=sky_y + image.box.y0,
        sky_x=sky_x + image.box.x0,
    )


def _footprints(snr: F32, image: MaskedImage, fwhm: float, config: DetectConfig) -> tuple[Records, NDArray[np.int32]]:
    split = np.inf if config.split_fwhm is None else config.split_fwhm * fwhm
    grow = max(1.0, config.grow_fwhm * fwhm)
    return find_footprints(snr, config.threshold_sigma, grow, split=split, whole=image.flagged(_NOT_DIVIDED))


def _flatten(image: F32, variance: F32, usable: BoolArray, config: DetectConfig) -> F32:
    if config.background_cell_px is None:
        return image
    mesh = median_mesh(image, variance, usable, cell=config.background_cell_px)
    return subtract_mesh(image, mesh)


def _filters(difference: DifferenceImage, fwhm: float, config: DetectConfig) -> SeparableFilters:
    box = difference.box
    y, x = tile_centers(box.shape, _TILE)
    psfs = psf_stamps(difference.psf.basis, *_normalized(difference, box, y, x))
    half = max(3, int(np.ceil(config.filter_fwhm * fwhm)))
    return separable_filters(psfs, half=half, tile=_TILE)


def _normalized(
    difference: DifferenceImage, box: Box, y: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # The last tiles may have their centres beyond the edge, where the polynomial is not defined.
    y, x = np.minimum(y, box.shape[0] - 1), np.minimum(x, box.shape[1] - 1)
    return difference.psf.box.normalize(y + box.y0, x + box.x0)


def _check(count: int, config: DetectConfig) -> None:
    if count > config.max_detections:
        raise SubtractionFailed(
            f"{count} detections, more than {config.max_detections}: the subtraction is not usable",
            remedy="check the template and the matching kernel, or raise detect.max_detections",
        )


def _sky_sources(
    labels: NDArray[np.int32], usable: BoolArray, difference: DifferenceImage, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    key = difference.info.id
    rng = np.random.default_rng([key.visit, key.detector])
    y = rng.integers(0, labels.shape[0], 8 * count)
    x = rng.integers(0, labels.shape[1], 8 * count)
    empty = np.flatnonzero((labels[y, x] == 0) & usable[y, x])[:count]
    return y[empty], x[empty]


def _metrics(footprints: Records, sky_snr: F32, scale: float) -> dict[str, float]:
    return {
        "detect.n_footprints": float(len(footprints)),
        "detect.n_positive": float(np.count_nonzero(footprints["snr"] > 0)),
        "detect.n_two_signed": float(np.count_nonzero((footprints["pos_snr"] > 0) & (footprints["neg_snr"] < 0))),
        "detect.variance_scale": float(scale),
        "detect.sky_snr_mean": float(np.mean(sky_snr)) if len(sky_snr) else float("nan"),
        "detect.sky_snr_std": float(np.std(sky_snr)) if len(sky_snr) else float("nan"),
    }
