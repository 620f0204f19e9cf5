"""Choose the stars that shape the PSF, in any field, and say of all others why they do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.sources import Shapes, detect, flags_near
from apstream.arrays.stars import contamination, every_nth_over_field, stellar_locus, stellar_size
from apstream.arrays.types import F64, BoolArray, FloatArray, IntArray
from apstream.errors import TooFewStars
from apstream.model.mask import MaskPlane
from apstream.tasks.star_list import FLAGGED
from apstream.tasks.working_image import WorkingImage

__all__ = ["StarChoice", "StarConfig", "choose_stars", "detect_sources", "guess_seeing"]

_LONGEST = 0.7  # ellipticity of a star, unless the bright sources are all trailed
_FEWEST_TO_RESERVE = 60
_MUCH_LOST, _SMALL_PX = 0.2, 100  # beyond these it is the image that lacks stars, not the sky


class StarConfig(BaseModel):
    """Detection and the choice of stars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detect_sigma: float = Field(5.0, gt=0, description="detection threshold, sigma of the smoothed sky")
    fwhm_guess_px: float = Field(4.0, gt=1, description="width of the first smoothing, pixels")
    min_fwhm_px: float = Field(1.0, gt=0, description="narrower sources are never stars, pixels")
    min_snr: float = Field(50.0, gt=0, description="least S/N of a star that shapes the PSF; halved twice if few")
    max_contamination: float = Field(0.02, gt=0, description="most light of neighbours on an isolated star, fraction")
    max_sources: int = Field(40000, ge=10, description="most sources measured, the brightest")
    locus_width: float = Field(0.2, gt=0, description="first half-width of the stellar locus in log size")
    reserve: float = Field(0.1, ge=0, le=0.5, description="share of the stars left out of the PSF, to judge it")


@dataclass(frozen=True, slots=True, eq=False)
class StarChoice:
    """The roles of the sources; `refused` counts, by reason, those that do not shape the PSF."""

    shaping: BoolArray
    reserved: BoolArray
    on_locus: BoolArray
    refused: dict[str, int]

    def as_judges(self) -> StarChoice:
        """Return the choice for a PSF that no star shapes: all its stars judge it."""
        every = self.shaping | self.reserved
        count = self.refused.get("reserved", 0) + int(np.count_nonzero(self.shaping))
        return StarChoice(np.zeros_like(every), every, self.on_locus, {**self.refused, "reserved": count})


def guess_seeing(state: WorkingImage, config: StarConfig) -> float:
    """Set the seeing of `state` from its bright sources; return the FWHM of the stars across their trail, pixels.

    Raises
    ------
    TooFewStars
        If no source can be a star.
    """
    shapes = detect_sources(state, config.fwhm_guess_px, n_sigma=2 * config.detect_sigma, limit=3000)
    trusted = _none_of(_faults(state, shapes, config, radius=2.0))
    size = stellar_size(np.where(trusted, shapes.sigma, np.nan), shapes.snr, (shapes.e1, shapes.e2))
    if not np.isfinite(size):
        raise _too_few(state, 0, len(shapes), 1)
    state.fwhm = size * FWHM_PER_SIGMA
    near = trusted & (np.abs(shapes.sigma - size) < 0.15 * size)
    return float(np.median(shapes.minor[near])) * FWHM_PER_SIGMA if near.any() else state.fwhm


def detect_sources(state: WorkingImage, fwhm: float, *, n_sigma: float, limit: int) -> Shapes:
    """Detect at most `limit` sources, the brightest, and measure their moments."""
    return detect(state.image, state.bad, state.sky, fwhm=fwhm, n_sigma=n_sigma, limit=limit)


def _faults(state: WorkingImage, shapes: Shapes, config: StarConfig, *, radius: float) -> dict[str, BoolArray]:
    """Tell which sources are spoiled, or sharper or longer than any star, by reason."""
    flags = flags_near(state.mask, y=shapes.y, x=shapes.x, radius=radius)
    shaped = np.isfinite(shapes.sigma)
    bright = shapes.ellipticity[shaped & (shapes.snr > config.min_snr)][:300]
    longest = max(_LONGEST, min(0.95, float(np.median(bright)) + 0.1)) if bright.size else _LONGEST
    return {
        "saturated": (flags & int(MaskPlane.SAT)) != 0,
        "flagged": (flags & FLAGGED) != 0,
        "shapeless": ~shaped,
        "sharp": shaped & (shapes.minor <= config.min_fwhm_px / FWHM_PER_SIGMA),
        "long": shaped & (shapes.ellipticity >= longest),
    }


def choose_stars(state: WorkingImage, shapes: Shapes, config: StarConfig, *, least: int, most: int) -> StarChoice:
    """Find the stellar locus and choose the stars that shape the PSF, `most` at most.

    Raises
    ------
    TooFewStars
        If fewer than `least` stars can be found.
    """
    reasons = _faults(state, shapes, config, radius=max(1.5, state.fwhm))
    trusted = _none_of(reasons)
    lonely = contamination(shapes.y, shapes.x, shapes.flux, radius=5 * state.fwhm, scale=state.fwhm)
    ty, tx = _normalised(state, shapes.y, shapes.x)
    snr_limit, crowding = config.min_snr, config.max_contamination
    for _ in range(4):
        reasons |= {"faint": ~(shapes.snr > snr_limit), "crowded": ~(lonely < crowding)}
        usable = trusted & ~reasons["faint"] & ~reasons["crowded"]
        sizes = np.where(usable, shapes.sigma, np.nan)
        locus, expected = stellar_locus(
            sizes, shapes.snr, ty=ty, tx=tx, width=config.locus_width, shape=(shapes.e1, shapes.e2)
        )
        if locus.sum() >= 4 * max(least, 1):
            break
        snr_limit, crowding = max(snr_limit / 2, 10.0), min(2.5 * crowding, 0.3)
    if locus.sum() < least:
        raise _too_few(state, int(locus.sum()), len(shapes), least, _count(reasons))
    brightest = _brightest(locus, shapes.snr, most)
    reserved = _reserve(brightest, shapes, config.reserve)
    reasons |= {"off_locus": ~locus, "surplus": ~brightest, "reserved": reserved}
    return StarChoice(brightest & ~reserved, reserved, _on_locus(shapes, _known(expected, state)), _count(reasons))


def _none_of(reasons: dict[str, BoolArray]) -> BoolArray:
    return np.asarray(~np.any(list(reasons.values()), axis=0))


def _on_locus(shapes: Shapes, expected: F64) -> BoolArray:
    with np.errstate(invalid="ignore"):
        offset = np.abs(np.log(shapes.sigma / expected))
        return np.isfinite(shapes.sigma) & (offset < np.hypot(0.08, 2 / np.maximum(shapes.snr, 1)))


def _known(expected: F64, state: WorkingImage) -> F64:
    return np.where(np.isfinite(expected), expected, state.fwhm / FWHM_PER_SIGMA)


def _count(reasons: dict[str, BoolArray]) -> dict[str, int]:
    """Return how many sources each reason refuses that none before it does."""
    left = np.ones(len(next(iter(reasons.values()))), bool)
    counts = {}
    for name, refused in reasons.items():
        counts[name] = int(np.count_nonzero(left & refused))
        left &= ~refused
    return counts


def _brightest(chosen: BoolArray, snr: FloatArray, most: int) -> BoolArray:
    order: IntArray = np.flatnonzero(chosen)[np.argsort(-snr[chosen], kind="stable")][:most]
    return _members(len(chosen), order)


def _reserve(chosen: BoolArray, shapes: Shapes, share: float) -> BoolArray:
    """Return every n-th of the chosen stars over the field; none where stars are few."""
    index: IntArray = np.flatnonzero(chosen)
    if share == 0 or len(index) < _FEWEST_TO_RESERVE:
        return np.zeros(len(chosen), bool)
    picked = every_nth_over_field(shapes.y[index], shapes.x[index], n=round(1 / share))
    return _members(len(chosen), index[picked])


def _members(length: int, index: IntArray) -> BoolArray:
    out = np.zeros(length, bool)
    out[index] = True
    return out


def _too_few(
    state: WorkingImage, found: int, sources: int, least: int, refused: dict[str, int] | None = None
) -> TooFewStars:
    why = ", ".join(f"{count} {name}" for name, count in (refused or {}).items() if count)
    obstacle, remedy = _obstacle(state)
    return TooFewStars(
        f"{found} stars for the PSF among {sources} sources{f' ({why})' if why else ''}; at least {least} are needed"
        + (f": {obstacle}" if obstacle else ""),
        remedy=remedy,
    )


def _obstacle(state: WorkingImage) -> tuple[str, str]:
    """Return what of the image itself leaves too few stars, empty if nothing does, and what to do."""
    ny, nx = state.shape
    lost, given = float(state.bad.mean()), "or supply the PSF: characterize.psf_source=supplied"
    if lost > _MUCH_LOST:
        causes = {"not finite or without data": "NO_DATA", "saturated": "SAT", "flagged as bad": "BAD"}
        counts = {cause: np.count_nonzero(state.mask & int(MaskPlane[name])) for cause, name in causes.items()}
        most = max(counts, key=lambda cause: counts[cause])
        word = most if counts[most] else "without variance"
        return f"{lost:.0%} of the pixels cannot be used, most of them {word}", f"see to these pixels, {given}"
    if min(ny, nx) < _SMALL_PX:
        return f"the image is only {ny} x {nx} pixels", f"take one of {_SMALL_PX} pixels a side at least, {given}"
    return "", (
        "check focus, clouds and saturation, or lower characterize.stars.detect_sigma, "
        "characterize.stars.min_snr or characterize.psf.min_stars"
    )


def _normalised(state: WorkingImage, y: F64, x: F64) -> tuple[F64, F64]:
    ny, nx = state.shape
    return (y - (ny - 1) / 2) / max(ny / 2, 1), (x - (nx - 1) / 2) / max(nx / 2, 1)
