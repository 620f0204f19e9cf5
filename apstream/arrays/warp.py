"""Resampling of an image, its mask and its variance onto another pixel grid.

The source position of every target pixel is interpolated bilinearly from a coarse grid of exact positions;
weights come from polynomials through a table (`arrays.lanczos`). `arrays.warp_plain` says the same slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.lanczos import CENTRE, PHASES, TAPS, tap_polynomials
from apstream.arrays.positions import (
    BLOCK,
    CELL,
    FX,
    FY,
    SCALE,
    SECTIONS,
    block_positions,
    block_weights,
    position,
    run_end,
)
from apstream.arrays.types import F32, F64, FloatArray, IntArray
from apstream.arrays.warp_runs import Run, run_end_padded, run_image, run_variance

__all__ = ["CELL", "LOST_WEIGHT", "MASK_WEIGHT", "MIN_WEIGHT", "MapGrid", "PixelMap", "map_grid", "resample"]

#: A map of pixel positions: (y, x) on the target grid to (y, x) on the source grid, arrays to arrays.
PixelMap = Callable[[FloatArray, FloatArray], tuple[F64, F64]]

#: A source pixel hands its mask on where its weights along y and along x are both larger than this.
MASK_WEIGHT = 0.1
#: Weight, in sum of magnitudes, that may be missing under the taps without a mark.
LOST_WEIGHT = 0.02
#: Weight that must be there.
MIN_WEIGHT = 0.5
_MASKED, _BAD, _LACKING = 1, 2, 4
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
    out = (np.empty(shape, np.float32), np.empty(shape, np.int32), np.empty(shape, np.float32))
    taps = (table, tap_polynomials(table))
    _resample((image, mask, variance, status), (grid.y, grid.x, grid.area), taps, grid.offset, bits, out)
    return out


def _footprint_status(image: F32, mask: IntArray, variance: F32, no_data: int) -> Status:
    """Tell what lies under the taps of a position in pixel (y, x): masked or bad pixels, the image's end.

    The bit `_LACKING` says that the pixel itself is bad.
    """
    state = np.empty(image.shape, np.uint8)
    _pixel_status(image, mask, variance, no_data, state)
    status = (state & np.uint8(_LACKING)) | np.uint8(_MASKED | _BAD)
    _spread_status(state, status)
    return status


@njit(cache=True, nogil=True)
def _pixel_status(image: F32, mask: IntArray, variance: F32, no_data: int, out: Status) -> None:
    h, w = image.shape
    for y in range(h):
        for x in range(w):
            difference = image[y, x] - image[y, x] + (variance[y, x] - variance[y, x])  # NaN unless both finite
            bad = (difference != 0) | ((mask[y, x] & no_data) != 0)
            out[y, x] = np.uint8(mask[y, x] != 0) * np.uint8(_MASKED) | np.uint8(bad) * np.uint8(_BAD | _LACKING)


@njit(cache=True, nogil=True)
def _spread_status(state: Status, out: Status) -> None:
    h, w = state.shape
    line = np.zeros(w, np.uint8)
    for top in range(h - TAPS + 1):
        for x in range(w):
            line[x] = (
                state[top, x] | state[top + 1, x] | state[top + 2, x]
                | state[top + 3, x] | state[top + 4, x] | state[top + 5, x]
            ) & np.uint8(_MASKED | _BAD)  # fmt: skip
        row, own = out[top + CENTRE], state[top + CENTRE]
        for x in range(w - TAPS + 1):
            near = line[x] | line[x + 1] | line[x + 2] | line[x + 3] | line[x + 4] | line[x + 5]
            row[x + CENTRE] = near | (own[x + CENTRE] & np.uint8(_LACKING))


@njit(cache=True, nogil=True)
def _mask_union(mask: IntArray, corner: tuple[int, int], wy: F32, wx: F32) -> int:
    y0, x0 = corner
    bits = 0
    for k in range(TAPS):
        if abs(wy[k]) > MASK_WEIGHT:
            for m in range(TAPS):
                if abs(wx[m]) > MASK_WEIGHT:
                    bits |= mask[y0 + k, x0 + m]
    return bits


@njit(cache=True, nogil=True)
def _partial_sum(
    source: tuple[F32, IntArray, F32, Status], y0: int, x0: int, wy: F32, wx: F32
) -> tuple[float, float, float, int]:
    # over the good pixels under the taps: weighted values, weights, magnitude of weights lost, mask union
    image, mask, _, status = source
    h, w = image.shape
    total, weight, found, union = 0.0, 0.0, 0.0, 0
    rows, columns = (max(0, -y0), min(TAPS, h - y0)), (max(0, -x0), min(TAPS, w - x0))
    for k in range(rows[0], rows[1]):
        for m in range(columns[0], columns[1]):
            share = wy[k] * wx[m]
            y, x = y0 + k, x0 + m
            if share == 0 or status[y, x] & _LACKING:
                continue
            total += share * image[y, x]
            weight += share
            found += abs(share)
            if abs(wy[k]) > MASK_WEIGHT and abs(wx[m]) > MASK_WEIGHT:
                union |= mask[y, x]
    return total, weight, np.abs(wy).sum() * np.abs(wx).sum() - found, union


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


@njit(cache=True, nogil=True)
def _resample(
    source: tuple[F32, IntArray, F32, Status],
    nodes: tuple[F64, F64, F64],
    taps: tuple[F32, F32],
    offset: tuple[int, int],
    bits: tuple[int, int],
    out: tuple[F32, IntArray, F32],
) -> None:
    image, mask, variance, status = source
    out_image, out_mask, out_variance = out
    ny, nx = out_image.shape
    found, whole = np.zeros(SECTIONS * BLOCK, np.float32), np.zeros(2 * BLOCK, np.int32)
    for i in range(ny):
        for first in range(0, nx, BLOCK):
            n = min(BLOCK, nx - first)
            for j in range(np.uintp(first), np.uintp(first + n)):
                out_mask[np.uintp(i), j] = 0
            block_positions(nodes, offset, (i, first, n), whole, found)
            block_weights(taps[1], FY, 0, found)
            block_weights(taps[1], FX, TAPS, found)
            end = 0
            while end < n:
                start, end = end, run_end(whole, end, n)
                where = (whole[start], whole[BLOCK + start] + start, i, first, start, end)
                state = _run_state(status, where)
                if state & _BAD:
                    _odd_run(source, nodes, taps[0], (offset, bits), where, (whole, found), out)
                    continue
                if state & _MASKED:
                    _run_mask(mask, status, found, where, out_mask)
                padded = run_end_padded(status.shape, where, n)
                where = (where[0], where[1], i, first, start, padded)
                run_image(image, found, where, out_image)
                run_variance(variance, found, where, out_variance)


@njit(cache=True, nogil=True)
def _run_state(status: Status, where: Run) -> np.uint8:
    # the union of the states of successive source pixels; bad if some are not there
    y, x, n = where[0], where[1], where[5] - where[4]
    if y < 0 or x < 0 or y >= status.shape[0] or x + n > status.shape[1]:
        return np.uint8(_BAD)
    row, column, union = np.uintp(y), np.uintp(x), np.uint8(0)
    for k in range(n):
        union |= status[row, column + np.uintp(k)]
    return union


@njit(cache=True, nogil=True)
def _odd_run(
    source: tuple[F32, IntArray, F32, Status],
    nodes: tuple[F64, F64, F64],
    table: F32,
    how: tuple[tuple[int, int], tuple[int, int]],
    where: Run,
    known: tuple[IntArray, F32],
    out: tuple[F32, IntArray, F32],
) -> None:
    # pixels of which some have not all they need: piece by piece
    offset, bits = how
    y, x, i, first, start, end = where
    inside, beyond = _reached(source[3].shape, known[0], start, end)
    for a, b in ((start, inside), (beyond, end)):
        here = slice(first + a, first + b)
        out[0][i, here], out[1][i, here], out[2][i, here] = np.nan, bits[0], np.nan
    j = inside
    while j < beyond:
        last, state = _good_end(source[3], known[0], j, beyond)
        if last > j:
            piece = (y, x + j - start, i, first, j, last)
            run_image(source[0], known[1], piece, out[0])
            run_variance(source[2], known[1], piece, out[2])
            if state & _MASKED:
                _run_mask(source[1], source[3], known[1], piece, out[1])
            j = last
            continue
        sy, sx = position(nodes, offset, i, first + j)
        value, noise, union = _border(source, sy, sx, table, bits)
        scale = known[1][SCALE * BLOCK + j]
        out[0][i, first + j], out[2][i, first + j] = scale * value, scale * scale * noise
        out[1][i, first + j] = union
        j += 1


@njit(cache=True, nogil=True)
def _good_end(status: Status, whole: IntArray, start: int, end: int) -> tuple[int, np.uint8]:
    # where the pixels of a run end that, from `start` on, have all they need; the union of their states
    y, x, union = whole[start], whole[BLOCK + start], np.uint8(0)
    if y < 0 or y >= status.shape[0]:
        return start, union
    for k in range(start, end):
        if x + k < 0 or x + k >= status.shape[1] or status[y, x + k] & _BAD:
            return k, union
        union |= status[y, x + k]
    return end, union


@njit(cache=True, nogil=True)
def _reached(shape: tuple[int, int], whole: IntArray, start: int, end: int) -> tuple[int, int]:
    # the part of a run that may lie on the source
    y, x = whole[start], whole[BLOCK + start]
    if y < -1 or y >= shape[0]:
        return end, end
    inside = min(max(start, -1 - x), end)
    return inside, max(inside, min(end, shape[1] - x))


@njit(cache=True, nogil=True)
def _run_mask(mask: IntArray, status: Status, found: F32, where: Run, out: IntArray) -> None:
    y, x, row, begin, start, end = where
    for n in range(end - start):
        if status[y, x + n] & _MASKED:
            weights = found[start + n : 2 * TAPS * BLOCK : BLOCK]
            corner = (y - CENTRE, x + n - CENTRE)
            out[row, begin + start + n] = _mask_union(mask, corner, weights[:TAPS], weights[TAPS:])


@njit(cache=True, nogil=True)
def _border(
    source: tuple[F32, IntArray, F32, Status], sy: float, sx: float, table: F32, bits: tuple[int, int]
) -> tuple[float, float, int]:
    # one position where pixels are missing under the taps
    variance, status = source[2], source[3]
    no_data, partial = bits
    h, w = variance.shape
    if not (sy > -0.5 and sx > -0.5 and sy < h - 0.5 and sx < w - 0.5):
        return np.nan, np.nan, no_data  # NaN positions end here too
    if status[int(np.floor(sy + 0.5)), int(np.floor(sx + 0.5))] & _LACKING:
        return np.nan, np.nan, no_data
    iy, ix = int(np.floor(sy)), int(np.floor(sx))
    fy, fx = np.float32(sy - iy), np.float32(sx - ix)
    wy = table[int(fy * np.float32(PHASES) + np.float32(0.5))]
    wx = table[int(fx * np.float32(PHASES) + np.float32(0.5))]
    total, weight, lost, union = _partial_sum(source, iy - CENTRE, ix - CENTRE, wy, wx)
    if weight < MIN_WEIGHT:
        return np.nan, np.nan, no_data
    union |= partial if lost > LOST_WEIGHT else 0
    return total / weight, _linear_variance(variance, iy, ix, fy, fx), union
