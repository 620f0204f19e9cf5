"""Resampling as it is defined, pixel by pixel: what the fast `arrays.warp` is held to."""

from __future__ import annotations

import numpy as np

from apstream.arrays.lanczos import CENTRE, PHASES, TAPS
from apstream.arrays.types import F32, F64, BoolArray, IntArray
from apstream.arrays.warp import LOST_WEIGHT, MASK_WEIGHT, MIN_WEIGHT

__all__ = ["resample_plain"]


def resample_plain(
    image: F32,
    mask: IntArray,
    variance: F32,
    positions: tuple[F64, F64],
    *,
    area: F64,
    table: F32,
    bits: tuple[int, int],
) -> tuple[F32, IntArray, F32]:
    """Do what `arrays.warp.resample` does, pixel by pixel, from the position and area ratio of every target pixel."""
    shape = positions[0].shape
    out_image, out_variance = np.full(shape, np.nan), np.full(shape, np.nan)
    out_mask = np.full(shape, bits[0], np.int32)
    good = np.isfinite(image) & np.isfinite(variance) & ((mask & bits[0]) == 0)
    for i, j in np.ndindex(*shape):
        sy, sx = float(positions[0][i, j]), float(positions[1][i, j])
        if not (-0.5 < sy < image.shape[0] - 0.5 and -0.5 < sx < image.shape[1] - 0.5):
            continue
        if not good[int(np.floor(sy + 0.5)), int(np.floor(sx + 0.5))]:
            continue
        iy, ix = int(np.floor(sy)), int(np.floor(sx))
        fy, fx = sy - iy, sx - ix
        taps = np.arange(TAPS) - CENTRE
        y, x = np.meshgrid(iy + taps, ix + taps, indexing="ij")
        wy, wx = table[int(fy * PHASES + 0.5)], table[int(fx * PHASES + 0.5)]
        weights = np.outer(wy, wx).astype(float)
        inside = (y >= 0) & (x >= 0) & (y < image.shape[0]) & (x < image.shape[1]) & (weights != 0)
        use = inside.copy()
        use[inside] = good[y[inside], x[inside]]
        total = weights[use].sum()
        if total < MIN_WEIGHT:
            continue
        heavy = use & np.outer(np.abs(wy) > MASK_WEIGHT, np.abs(wx) > MASK_WEIGHT)
        lost = np.abs(weights[(weights != 0) & ~use]).sum()
        out_mask[i, j] = np.bitwise_or.reduce(mask[y[heavy], x[heavy]], initial=0)
        out_mask[i, j] |= bits[1] if lost > LOST_WEIGHT else 0
        out_image[i, j] = area[i, j] * (weights[use] * image[y[use], x[use]]).sum() / total
        linear = np.outer(np.maximum(0, 1 - np.abs(sy - y[:, 0])), np.maximum(0, 1 - np.abs(sx - x[0])))
        near = _inside_finite(variance, y, x) & (linear > 0)
        out_variance[i, j] = area[i, j] ** 2 * np.average(variance[y[near], x[near]], weights=linear[near])
    return out_image.astype(np.float32), out_mask, out_variance.astype(np.float32)


def _inside_finite(plane: F32, y: IntArray, x: IntArray) -> BoolArray:
    # which integer positions lie inside the plane on a finite value
    inside = (y >= 0) & (x >= 0) & (y < plane.shape[0]) & (x < plane.shape[1])
    result: BoolArray = inside.copy()
    result[inside] = np.isfinite(plane[y[inside], x[inside]])
    return result
