"""Resampling of an image, its mask and its variance onto another pixel grid.

The source position of every target pixel is interpolated bilinearly from a coarse grid of exact positions;
weights come from a table (`arrays.lanczos`). `arrays.warp_plain` says the same slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apstream.arrays.lanczos import CENTRE, PHASES, TAPS
from apstream.arrays.positions import CELL, position, row_positions
from apstream.arrays.types import F32, F64, FloatArray, IntArray

__all__ = ["CELL", "LOST_WEIGHT", "MASK_WEIGHT", "MIN_WEIGHT", "MapGrid", "PixelMap", "map_grid", "resample"]

#: A map of pixel positions: (y, x) on the target grid to (y, x) on the source grid, arrays to arrays.
PixelMap = Callable[[FloatArray, FloatArray], tuple[F64, F64]]

#: A source pixel hands its mask on where its weights along y and along x are both larger than this.
MASK_WEIGHT = 0.1
#: Weight, in sum of magnitudes, that may be missing under the taps without a mark.
LOST_WEIGHT = 0.02
#: Weight that must be there.
MIN_WEIGHT = 0.5
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
    tables = (table, np.ascontiguousarray(table.T))
    _resample((image, mask, variance, status), (grid.y, grid.x, grid.area), tables, grid.offset, bits, out)
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
    tables: tuple[F32, F32],
    offset: tuple[int, int],
    bits: tuple[int, int],
    out: tuple[F32, IntArray, F32],
) -> None:
    status = source[3]
    ny, nx = out[0].shape
    wy, wx = np.empty((TAPS, nx), np.float32), np.empty((TAPS, nx), np.float32)
    fractions, scale = np.empty((2, nx), np.float32), np.empty(nx, np.float32)
    whole = np.empty((2, nx), np.int32)
    for i in range(ny):
        row_positions(status.shape, nodes, tables[1], (offset, i), (wy, wx), (whole, fractions, scale))
        j = 0
        while j < nx:
            end, state = _run_end(whole, status, j)
            if state & _BAD:
                sy, sx = position(nodes, offset, i, j)
                value, noise, union = _border(source, sy, sx, tables[0], bits)
                out[0][i, j], out[2][i, j] = scale[j] * value, scale[j] * scale[j] * noise
                out[1][i, j] = union
            else:
                first, where = (whole[0, j], whole[1, j]), (i, j, end)
                _run_image(source[0], (wy, wx), first, scale, where, out[0])
                _run_variance(source[2], first, (fractions, scale), where, out[2])
                if state & _MASKED:
                    _run_mask(source, (wy, wx), first, where, out[1])
            j = end


@njit(cache=True, nogil=True)
def _run_end(whole: IntArray, status: Status, start: int) -> tuple[int, np.int64]:
    # where the successive good source pixels end that begin here, and the union of their states
    nx, y, x = whole.shape[1], whole[0, start], whole[1, start]
    if y < 0 or status[y, x] & _BAD:
        return start + 1, np.int64(_BAD)
    row, state, end = status[y], np.int64(status[y, x]), start + 1
    while end < nx and whole[0, end] == y and whole[1, end] == x + (end - start):
        here = np.int64(row[x + (end - start)])
        if here & _BAD:
            break
        state |= here
        end += 1
    return end, state


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _run_image(
    image: F32, weights: tuple[F32, F32], first: tuple[int, int], scale: F32, where: tuple[int, int, int], out: F32
) -> None:
    wy, wx = weights
    # pixels of one row that lie on successive source pixels: all is read in order, many pixels at a time
    top, left = np.uintp(first[0] - CENTRE), np.uintp(first[1] - CENTRE)
    row, start = np.uintp(where[0]), np.uintp(where[1])
    u1, u2, u3, u4, u5 = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4), np.uintp(5)
    for n in range(np.uintp(where[2] - where[1])):
        j, x = start + np.uintp(n), left + np.uintp(n)
        w0, w1, w2, w3, w4, w5 = wx[0, j], wx[1, j], wx[2, j], wx[3, j], wx[4, j], wx[5, j]
        total = np.float32(0)
        for k in range(TAPS):
            y = top + np.uintp(k)
            total += wy[k, j] * (
                w0 * image[y, x] + w1 * image[y, x + u1] + w2 * image[y, x + u2]
                + w3 * image[y, x + u3] + w4 * image[y, x + u4] + w5 * image[y, x + u5]
            )  # fmt: skip
        out[row, j] = scale[j] * total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _run_variance(
    variance: F32, first: tuple[int, int], position: tuple[F32, F32], where: tuple[int, int, int], out: F32
) -> None:
    fractions, scale = position
    y, left, row, start = np.uintp(first[0]), np.uintp(first[1]), np.uintp(where[0]), np.uintp(where[1])
    one = np.uintp(1)
    for n in range(np.uintp(where[2] - where[1])):
        j, x = start + np.uintp(n), left + np.uintp(n)
        fy, fx = fractions[0, j], fractions[1, j]
        upper = variance[y, x] + fx * (variance[y, x + one] - variance[y, x])
        lower = variance[y + one, x] + fx * (variance[y + one, x + one] - variance[y + one, x])
        out[row, j] = scale[j] * scale[j] * (upper + fy * (lower - upper))


@njit(cache=True, nogil=True)
def _run_mask(
    source: tuple[F32, IntArray, F32, Status],
    weights: tuple[F32, F32],
    first: tuple[int, int],
    where: tuple[int, int, int],
    out: IntArray,
) -> None:
    _, mask, _, status = source
    y, x = first
    i, start, end = where
    for n in range(end - start):
        if status[y, x + n] & _MASKED:
            wy, wx = weights[0][:, start + n], weights[1][:, start + n]
            out[i, start + n] = _mask_union(mask, y - CENTRE, x + n - CENTRE, wy, wx)


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
    if weight < MIN_WEIGHT:
        return np.nan, np.nan, no_data
    union |= partial if lost > LOST_WEIGHT else 0
    return total / weight, _linear_variance(variance, iy, ix, fy, fx), union
