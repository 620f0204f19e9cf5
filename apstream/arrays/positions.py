"""Where the pixels of a row lie on another grid, and the interpolation weights there: kernels of `arrays.warp`."""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.lanczos import PHASES, TAPS
from apstream.arrays.types import F32, F64, IntArray

__all__ = ["CELL", "position", "row_positions"]

#: Pixels between nodes of the grid of exact positions.
CELL = 32
#: Positions farther off than this, pixels, lie outside every image.
_FARTHEST = 1e8


@njit(cache=True, nogil=True)
def position(nodes: tuple[F64, F64, F64], offset: tuple[int, int], i: int, j: int) -> tuple[float, float]:
    """Return (y, x) of target pixel (i, j) on the source."""
    gi, gj = (i + offset[0]) // CELL, (j + offset[1]) // CELL
    ty, tx = (i + offset[0] - gi * CELL) / CELL, (j + offset[1] - gj * CELL) / CELL
    yl, yr = _ends(nodes[0], gi, gj, ty)
    xl, xr = _ends(nodes[1], gi, gj, ty)
    return yl + (yr - yl) * tx, xl + (xr - xl) * tx


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def row_positions(
    shape: tuple[int, int],
    nodes: tuple[F64, F64, F64],
    table: F32,
    at: tuple[tuple[int, int], int],
    weights: tuple[F32, F32],
    found: tuple[IntArray, F32, F32],
) -> None:
    """Find for one row whole pixels (-1 beyond the image), fractions, area ratios and weights, in place."""
    (oy, ox), i = at
    _, fractions, scale = found
    nx = scale.size
    gi = (i + oy) // CELL
    ty = (i + oy - gi * CELL) / CELL
    for gj in range((nx + ox + CELL - 1) // CELL):
        ends = (*_ends(nodes[0], gi, gj, ty), *_ends(nodes[1], gi, gj, ty), *_ends(nodes[2], gi, gj, ty))
        j0 = gj * CELL - ox
        _cell_positions(ends, j0, (max(0, j0), min(nx, j0 + CELL)), shape, found)
    for axis in range(2):
        _look_up(table, fractions[axis], weights[axis])


@njit(cache=True, nogil=True)
def _cell_positions(
    ends: tuple[float, float, float, float, float, float],
    j0: int,
    span: tuple[int, int],
    shape: tuple[int, int],
    found: tuple[IntArray, F32, F32],
) -> None:
    # free of branches, and in single precision from the whole pixel at the cell's start on: many at a time
    yl, yr, xl, xr, al, ar = ends
    first, n = span[0], span[1] - span[0]
    sy, sx = found[0][0, first : span[1]], found[0][1, first : span[1]]
    fy, fx = found[1][0, first : span[1]], found[1][1, first : span[1]]
    scale = found[2][first : span[1]]
    if not (abs(yl) < _FARTHEST and abs(yr) < _FARTHEST and abs(xl) < _FARTHEST and abs(xr) < _FARTHEST):
        sy[:], sx[:], fy[:], fx[:], scale[:] = -1, 0, 0, 0, np.nan  # NaN ends here too
        return
    h, w, y0, x0 = np.int32(shape[0]), np.int32(shape[1]), np.int32(np.floor(yl)), np.int32(np.floor(xl))
    ry, rx, dy, dx = np.float32(yl - y0), np.float32(xl - x0), np.float32(yr - yl), np.float32(xr - xl)
    a0, da, lag, zero = np.float32(al), np.float32(ar - al), np.int32(first - j0), np.int32(0)
    for j in range(n):
        tx = np.float32(np.int32(j) + lag) * np.float32(1 / CELL)
        ty, tz = ry + dy * tx, rx + dx * tx
        wy, wx = np.floor(ty), np.floor(tz)
        jy, jx = y0 + np.int32(wy), x0 + np.int32(wx)
        scale[j] = a0 + da * tx
        inside = (jy >= zero) & (jx >= zero) & (jy < h) & (jx < w)
        sy[j], sx[j] = jy if inside else np.int32(-1), jx if inside else zero
        fy[j], fx[j] = ty - wy, tz - wx


@njit(cache=True, nogil=True)
def _look_up(table: F32, fraction: F32, weights: F32) -> None:
    # tap by tap, so that many positions are looked up at a time
    half, phases = np.float32(0.5), np.float32(PHASES)
    place = np.empty(fraction.size, np.int32)
    for j in range(fraction.size):
        place[j] = np.int32(fraction[j] * phases + half)
    for k in range(TAPS):
        tap, row = table[k], weights[k]
        for j in range(fraction.size):
            row[j] = tap[np.uintp(np.uint32(place[j]))]


@njit(cache=True, nogil=True)
def _ends(nodes: F64, gi: int, gj: int, ty: float) -> tuple[float, float]:
    # values at the two ends of a cell's row
    left = nodes[gi, gj] + (nodes[gi + 1, gj] - nodes[gi, gj]) * ty
    right = nodes[gi, gj + 1] + (nodes[gi + 1, gj + 1] - nodes[gi, gj + 1]) * ty
    return left, right
