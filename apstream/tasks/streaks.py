"""Mask the trails of satellites and aircraft in a single image."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.masks import dilate
from apstream.arrays.regions import compact_regions
from apstream.arrays.streaks import Streak, bin_significance, find_streaks, fit_streak, paint_streak
from apstream.arrays.types import F32, BoolArray, IntArray
from apstream.model.mask import MaskPlane

__all__ = ["StreakConfig", "mask_streaks"]

_MOST_BINS = 256  # along an axis: the sums along lines take time as the cube
_REACH_BINS = 3
_UNUSABLE = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA | MaskPlane.CR | MaskPlane.INTRP)


class StreakConfig(BaseModel):
    """Trails of satellites."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bin_px: int = Field(4, ge=1, le=32, description="least side of the bins in which lines are sought, pixels")
    n_sigma: float = Field(9.0, gt=0, description="least significance of the light along a line")
    clip_sigma: float = Field(4.0, gt=0, description="brighter bins count as this much")
    min_part: float = Field(0.7, gt=0, le=1, description="least part of a trail's length that shines")
    max_streaks: int = Field(5, ge=1, description="most trails of an image")
    longest_source: float = Field(0.25, gt=0, le=1, description="longer sources may be trails, part of the image")
    grow_saturated_px: int = Field(24, ge=0, description="pixels around saturated ones in which no trail is sought")


def mask_streaks(
    image: F32, variance: F32, mask: IntArray, covered: BoolArray | None, config: StreakConfig
) -> tuple[IntArray, list[Streak]]:
    """Flag STREAK on trails that cross the image.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted.
    mask : ndarray, shape (ny, nx), int32
    covered : ndarray, shape (ny, nx), bool, or None
        Pixels of sources, which are left out where a line is sought.

    Returns
    -------
    mask : ndarray, int32
        A new mask.
    streaks
        The lines found, array pixels.
    """
    spoiled = (mask & _UNUSABLE) != 0
    saturated = (mask & int(MaskPlane.SAT)) != 0
    if saturated.any():
        spoiled |= dilate(saturated, config.grow_saturated_px)
    if covered is not None:  # a bright trail is a long source
        spoiled |= compact_regions(covered, config.longest_source * max(mask.shape))
    usable, clip = ~spoiled, config.clip_sigma
    side = max(config.bin_px, -(-max(image.shape) // _MOST_BINS))
    binned, weight = bin_significance(image, variance, usable, bin_px=side, clip=clip)
    streaks = find_streaks(
        binned, weight, n_sigma=config.n_sigma, most=config.max_streaks, bin_px=side, least_part=config.min_part
    )
    fitted = [fit_streak(image, variance, usable, one, reach=_REACH_BINS * side, clip=clip) for one in streaks]
    streaks = [one for one in fitted if one is not None]
    out = mask.copy()
    if streaks:
        trail = np.zeros(mask.shape, bool)
        for streak in streaks:
            paint_streak(trail, streak)
        out[trail] |= int(MaskPlane.STREAK)
    return out, streaks
