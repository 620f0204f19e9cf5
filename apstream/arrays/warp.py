"""Resampling of an image, its mask and its variance onto another pixel grid.

The source position of every target pixel is interpolated bilinearly from a coarse grid of exact positions;
weights come from a table (`arrays.lanczos`). `resample` is fast; `resample_plain` says the same slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apstream.arrays.lanczos import CENTRE, PHASES, TAPS
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray

__all__ = ["CELL", "LOST_WEIGHT", "MASK_WEIGHT", "MapGrid", "PixelMap", "map_grid", "resample", "resample_plain"]

#: A map of pixel positions: (y, x) on the target grid to (y, x) on the source grid, arrays to arrays.
PixelMap = Callable[[FloatArray, FloatArray], tuple[F64, F64]]

#: Pixels between nodes of the grid of exact positions.
CELL = 32
#: A source pixel hands its mask on where its weights along y and along x are both larger than this.
MASK_WEIGHT = 0.1
#: Weight, in sum of magnitudes, that may be missing under the taps without a mark.
LOST_WEIGHT = 0.02
_MIN_WEIGHT = 0.5
_MASKED, _BAD = 1, 2
Status = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class MapGrid:
    """Source positions and area ratios on nodes every `CELL` pixels of the target.

    Nodes lie at absolute multiples of `CELL`, so the result does not depend on how the target is divided.

    Parameters
    ----------
    y, x, area : ndarray, shape (n, m)
        Position of a node on the source, relative to its first pixel, and the area of a target pixel
        there in source pixels; NaN where the map has no answer.
    offset
        (y, x) of the first target pixel from the first node.
    """

    y: F64
    x: F64
    area: F64
    offset: tuple[int, int]


def map_grid(
    pixel_map: PixelMap, shape: tuple[int, int], origin: tuple[int, int], source: tuple[int, int] = (0, 0)
) -> MapGrid:
    """Evaluate `pixel_map` over a target of `shape` at `origin`; the first source pixel is `source`."""
    first = [o // CELL - 1 for o in origin]  # one node more on every side, for the derivatives
    last = [-(-(o + n) // CELL) + 2 for o, n in zip(origin, shape, strict=True)]
    nodes = (CELL * np.arange(f, e + 1, dtype=float) for f, e in zip(first, last, strict=True))
    y, x = np.meshgrid(*nodes, indexing="ij")
    sy, sx = pixel_map(y.ravel(), x.ravel())
    ys, xs = np.asarray(sy, float).reshape(y.shape), np.asarray(sx, float).reshape(y.shape)
    (yy, yx), (xy, xx) = np.gradient(ys, CELL), np.gradient(xs, CELL)
    area = np.abs(yy * xx - yx * xy)
    offset = (origin[0] - CELL * (first[0] + 1), origin[1] - CELL * (first[1] + 1))
    inner = np.s_[1:-1, 1:-1]
    return MapGrid(ys[inner] - source[0], xs[inner] - source[1], area[inner], offset)


def resample(
    image: F32,
    mask: IntArray,
    variance: F32,
    grid: MapGrid,
    *,
    shape: tuple[int, int],
    table: F32,
    bits: tuple[int, int],
) -> tuple[F32, IntArray, F32]:
    """Resample a masked image; flux is conserved.

    Parameters
    ----------
    image, mask, variance : ndarrays, shape (h, w)
        Source planes. Pixels that are not finite or have the NO_DATA bit are left out of every sum.
    grid
        From `map_grid`, made with the position of the first source pixel.
    shape
        Of the target.
    table
        Weights from `arrays.lanczos`.
    bits
        The NO_DATA bit, and the bits set where a sum lacked pixels and was renormalised.

    Returns
    -------
    (image, mask, variance)
        Image and variance are NaN, the mask is NO_DATA, where the nearest source pixel has no data or less
        than half of the weight has. The mask is the union of pixels that weigh more than `MASK_WEIGHT`.
        Variance is interpolated linearly and not reduced by the smoothing, so the noise on the scale of a
        star stays right (the neighbouring pixels' covariance is carried by the diagonal).
    """
    image, variance = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(variance, np.float32)
    mask = np.ascontiguousarray(mask, np.int32)
    status = _footprint_status(image, mask, variance, bits[0])
    out = (np.empty(shape, np.float32), np.zeros(shape, np.int32), np.empty(shape, np.float32))
    _resample((image, mask, variance, status), (grid.y, grid.x, grid.area), table, grid.offset, bits, out)
    return out


@njit(cache=True, nogil=True)
def _is_bad(image: F32, mask: IntArray, variance: F32, y: int, x: int, no_data: int) -> bool:
    finite = np.isfinite(image[y, x]) and np.isfinite(variance[y, x])
    return (not finite) or (mask[y, x] & no_data) != 0


def _footprint_status(image: F32, mask: IntArray, variance: F32, no_data: int) -> Status:
    """Tell what lies under the taps of a position in pixel (y, x): masked or bad pixels, the image's end."""
    state = np.empty(image.shape, np.uint8)
    status = np.full(image.shape, _MASKED | _BAD, np.uint8)
    _pixel_status(image, mask, variance, no_data, state)
    _spread_status(state, status)
    return status


@njit(cache=True, nogil=True)
def _pixel_status(image: F32, mask: IntArray, variance: F32, no_data: int, out: Status) -> None:
    h, w = image.shape
    for y in range(h):
        for x in range(w):
            difference = image[y, x] - image[y, x] + (variance[y, x] - variance[y, x])  # NaN unless both finite
            bad = (difference != 0) | ((mask[y, x] & no_data) != 0)
            out[y, x] = np.uint8(mask[y, x] != 0) * np.uint8(_MASKED) | np.uint8(bad) * np.uint8(_BAD)


@njit(cache=True, nogil=True)
def _spread_status(state: Status, out: Status) -> None:
    h, w = state.shape
    line = np.zeros(w, np.uint8)
    for top in range(h - TAPS + 1):
        for x in range(w):
            line[x] = (
                state[top, x] | state[top + 1, x] | state[top + 2, x]
                | state[top + 3, x] | state[top + 4, x] | state[top + 5, x]
            )  # fmt: skip
        row = out[top + CENTRE]
        for x in range(w - TAPS + 1):
            row[x + CENTRE] = line[x] | line[x + 1] | line[x + 2] | line[x + 3] | line[x + 4] | line[x + 5]


@njit(cache=True, nogil=True)
def _mask_union(mask: IntArray, y0: int, x0: int, wy: F32, wx: F32) -> int:
    bits = 0
    for k in range(TAPS):
        if abs(wy[k]) > MASK_WEIGHT:
            for m in range(TAPS):
                if abs(wx[m]) > MASK_WEIGHT:
                    bits |= mask[y0 + k, x0 + m]
    return bits


@njit(cache=True, nogil=True)
def _partial_sum(
    source: tuple[F32, IntArray, F32, Status], y0: int, x0: int, wy: F32, wx: F32, no_data: int
) -> tuple[float, float, float, int]:
    # over the good pixels under the taps: weighted values, weights, magnitude of weights lost, mask union
    image, mask, variance, _ = source
    h, w = image.shape
    total, weight, lost, union = 0.0, 0.0, 0.0, 0
    for k in range(TAPS):
        for m in range(TAPS):
            share = wy[k] * wx[m]
            if share == 0:
                continue
            y, x = y0 + k, x0 + m
            if y < 0 or x < 0 or y >= h or x >= w or _is_bad(image, mask, variance, y, x, no_data):
                lost += abs(share)
                continue
            total += share * image[y, x]
            weight += share
            if abs(wy[k]) > MASK_WEIGHT and abs(wx[m]) > MASK_WEIGHT:
                union |= mask[y, x]
    return total, weight, lost, union


@njit(cache=True, nogil=True)
def _linear_variance(variance: F32, y: int, x: int, fy: float, fx: float) -> float:
    # bilinear over the pixels that are there; the nearest one is known to be good
    h, w = variance.shape
    total, weight = 0.0, 0.0
    for k in range(2):
        for m in range(2):
            if 0 <= y + k < h and 0 <= x + m < w and np.isfinite(variance[y + k, x + m]):
                share = (fy if k else 1 - fy) * (fx if m else 1 - fx)
                total += share * variance[y + k, x + m]
                weight += share
    return total / weight


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _resample(
    source: tuple[F32, IntArray, F32, Status],
    nodes: tuple[F64, F64, F64],
    table: F32,
    offset: tuple[int, int],
    bits: tuple[int, int],
    out: tuple[F32, IntArray, F32],
) -> None:
    image, mask, variance, status = source
    ys, xs, area = nodes
    out_image, out_mask, out_variance = out
    h, w = image.shape
    ny, nx = out_image.shape
    half, phases, one = np.float32(0.5), np.float32(PHASES), np.uintp(1)
    oy, ox = offset
    for i in range(ny):
        gi = (i + oy) // CELL
        ty = (i + oy - gi * CELL) / CELL
        for gj in range((nx + ox + CELL - 1) // CELL):
            yl, yr = _ends(ys, gi, gj, ty)
            xl, xr = _ends(xs, gi, gj, ty)
            al, ar = _ends(area, gi, gj, ty)
            j0 = gj * CELL - ox
            for j in range(max(0, j0), min(nx, j0 + CELL)):
                tx = (j - j0) / CELL
                sy, sx = yl + (yr - yl) * tx, xl + (xr - xl) * tx
                scale = np.float32(al + (ar - al) * tx)
                inside = sy >= 0 and sx >= 0 and sy < h and sx < w
                jy, jx = (int(sy), int(sx)) if inside else (0, 0)
                iy, ix = np.uintp(jy), np.uintp(jx)  # unsigned indices need no test of their sign
                if not inside or status[iy, ix] & _BAD:
                    value, noise, union = _border(source, sy, sx, table, bits)
                    out_image[i, j], out_variance[i, j] = scale * value, scale * scale * noise
                    out_mask[i, j] = union
                    continue
                fy, fx = np.float32(sy - jy), np.float32(sx - jx)
                py, px = np.uintp(int(fy * phases + half)), np.uintp(int(fx * phases + half))
                top, left = np.uintp(jy - CENTRE), np.uintp(jx - CENTRE)
                total = np.float32(0)
                for k in range(TAPS):
                    line = np.float32(0)
                    for m in range(TAPS):
                        line += table[px, np.uintp(m)] * image[top + np.uintp(k), left + np.uintp(m)]
                    total += table[py, np.uintp(k)] * line
                out_image[i, j] = scale * total
                upper = variance[iy, ix] + fx * (variance[iy, ix + one] - variance[iy, ix])
                lower = variance[iy + one, ix] + fx * (variance[iy + one, ix + one] - variance[iy + one, ix])
                out_variance[i, j] = scale * scale * (upper + fy * (lower - upper))
                out_mask[i, j] = 0
                if status[iy, ix] & _MASKED:
                    out_mask[i, j] = _mask_union(mask, jy - CENTRE, jx - CENTRE, table[py], table[px])


@njit(cache=True, nogil=True)
def _ends(nodes: F64, gi: int, gj: int, ty: float) -> tuple[float, float]:
    # values at the two ends of a cell's row
    left = nodes[gi, gj] + (nodes[gi + 1, gj] - nodes[gi, gj]) * ty
    right = nodes[gi, gj + 1] + (nodes[gi + 1, gj + 1] - nodes[gi, gj + 1]) * ty
    return left, right


@njit(cache=True, nogil=True)
def _border(
    source: tuple[F32, IntArray, F32, Status], sy: float, sx: float, table: F32, bits: tuple[int, int]
) -> tuple[float, float, int]:
    # one position where pixels are missing under the taps
    image, mask, variance, _ = source
    no_data, partial = bits
    h, w = image.shape
    if not (sy > -0.5 and sx > -0.5 and sy < h - 0.5 and sx < w - 0.5):
        return np.nan, np.nan, no_data  # NaN positions end here too
    if _is_bad(image, mask, variance, int(np.floor(sy + 0.5)), int(np.floor(sx + 0.5)), no_data):
        return np.nan, np.nan, no_data
    iy, ix = int(np.floor(sy)), int(np.floor(sx))
    fy, fx = np.float32(sy - iy), np.float32(sx - ix)
    wy = table[int(fy * np.float32(PHASES) + np.float32(0.5))]
    wx = table[int(fx * np.float32(PHASES) + np.float32(0.5))]
    total, weight, lost, union = _partial_sum(source, iy - CENTRE, ix - CENTRE, wy, wx, no_data)
    if weight < _MIN_WEIGHT:
        return np.nan, np.nan, no_data
    union |= partial if lost > LOST_WEIGHT else 0
    return total / weight, _linear_variance(variance, iy, ix, fy, fx), union


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
    """Do what `resample` does, pixel by pixel, from the position and area ratio of every target pixel."""
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
        if total < _MIN_WEIGHT:
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
