"""Choose the stars that shape the PSF, in any field."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.sources import Shapes, detect, flags_near
from apstream.arrays.stars import contamination, stellar_locus, stellar_size
from apstream.arrays.types import F64, BoolArray, FloatArray
from apstream.errors import TooFewStars
from apstream.model.mask import MaskPlane
from apstream.tasks.star_list import FLAGGED
from apstream.tasks.working_image import WorkingImage

__all__ = ["StarConfig", "choose_stars", "detect_sources", "guess_seeing"]


class StarConfig(BaseModel):
    """Detection and the choice of stars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detect_sigma: float = Field(5.0, gt=0, description="detection threshold, sigma of the smoothed sky")
    fwhm_guess_px: float = Field(4.0, gt=1, description="width of the first smoothing, pixels")
    min_fwhm_px: float = Field(1.2, gt=0, description="narrower sources are never stars, pixels")
    min_snr: float = Field(50.0, gt=0, description="least S/N of a star that shapes the PSF; halved twice if few")
    max_contamination: float = Field(0.02, gt=0, description="most light of neighbours on an isolated star, fraction")
    max_sources: int = Field(40000, ge=10, description="most sources measured, the brightest")
    locus_width: float = Field(0.2, gt=0, description="first half-width of the stellar locus in log size")


def guess_seeing(state: WorkingImage, config: StarConfig) -> float:
    """Set the seeing of `state` from its bright sources; return the FWHM of the stars across their trail, pixels.

    Raises
    ------
    TooFewStars
        If no source can be a star.
    """
    shapes = detect_sources(state, config.fwhm_guess_px, n_sigma=2 * config.detect_sigma, limit=3000)
    trusted = _trusted(state, shapes, config, radius=2.0)
    size = stellar_size(np.where(trusted, shapes.sigma, np.nan), shapes.snr)
    if not np.isfinite(size):
        raise _too_few(0, len(shapes), 1)
    state.fwhm = size * FWHM_PER_SIGMA
    near = trusted & (np.abs(shapes.sigma - size) < 0.15 * size)
    return float(np.median(shapes.minor[near])) * FWHM_PER_SIGMA if near.any() else state.fwhm


def detect_sources(state: WorkingImage, fwhm: float, *, n_sigma: float, limit: int) -> Shapes:
    """Detect at most `limit` sources, the brightest, and measure their moments."""
    return detect(state.image, state.bad, state.sky, fwhm=fwhm, n_sigma=n_sigma, limit=limit)


def _trusted(state: WorkingImage, shapes: Shapes, config: StarConfig, *, radius: float) -> BoolArray:
    """Tell which sources are neither flagged nor saturated nor sharper or longer than any star."""
    flags = flags_near(state.mask, y=shapes.y, x=shapes.x, radius=radius)
    narrow = config.min_fwhm_px / FWHM_PER_SIGMA
    chosen: BoolArray = (
        np.isfinite(shapes.sigma)
        & (shapes.minor > narrow)
        & (shapes.ellipticity < 0.7)
        & ((flags & (FLAGGED | int(MaskPlane.SAT))) == 0)
    )
    return chosen


def choose_stars(
    state: WorkingImage, shapes: Shapes, config: StarConfig, *, least: int, most: int
) -> tuple[BoolArray, BoolArray]:
    """Return the stars that shape the PSF, `most` at most, and all sources on the stellar locus.

    Raises
    ------
    TooFewStars
        If fewer than `least` stars can be found.
    """
    trusted = _trusted(state, shapes, config, radius=max(1.5, state.fwhm))
    lonely = contamination(shapes.y, shapes.x, shapes.flux, radius=5 * state.fwhm, scale=state.fwhm)
    ty, tx = _normalised(state, shapes.y, shapes.x)
    snr_limit, crowding = config.min_snr, config.max_contamination
    wanted = 4 * least
    for _ in range(4):
        usable = trusted & (shapes.snr > snr_limit) & (lonely < crowding)
        locus, expected = stellar_locus(
            np.where(usable, shapes.sigma, np.nan), shapes.snr, ty=ty, tx=tx, width=config.locus_width
        )
        if locus.sum() >= wanted:
            break
        snr_limit, crowding = max(snr_limit / 2, 10.0), min(2.5 * crowding, 0.3)
    if locus.sum() < least:
        raise _too_few(int(locus.sum()), len(shapes), least)
    with np.errstate(invalid="ignore"):
        offset = np.abs(np.log(shapes.sigma / expected))
        on_locus = np.isfinite(shapes.sigma) & (offset < np.hypot(0.08, 2 / np.maximum(shapes.snr, 1)))
    return _brightest(locus, shapes.snr, most), on_locus


def _brightest(chosen: BoolArray, snr: FloatArray, most: int) -> BoolArray:
    order = np.flatnonzero(chosen)[np.argsort(-snr[chosen], kind="stable")][:most]
    out = np.zeros(len(chosen), bool)
    out[order] = True
    return out


def _too_few(found: int, sources: int, least: int) -> TooFewStars:
    return TooFewStars(
        f"{found} stars for the PSF among {sources} sources; at least {least} are needed",
        remedy="check focus, clouds and saturation, or lower stars.detect_sigma, stars.min_snr or psf.min_stars",
    )


def _normalised(state: WorkingImage, y: F64, x: F64) -> tuple[F64, F64]:
    ny, nx = state.shape
    return (y - (ny - 1) / 2) / max(ny / 2, 1), (x - (nx - 1) / 2) / max(nx / 2, 1)
