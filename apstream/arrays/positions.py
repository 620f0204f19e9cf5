"""Where the pixels of a row lie on another grid, and the interpolation weights there: kernels of `arrays.warp`.

They work on `BLOCK` pixels of a row at a time, in flat arrays whose sections begin at multiples of `BLOCK`: that is
what a compiler turns into operations on many pixels at once. No views are made, for counting their references would
cost as much as the arithmetic.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.lanczos import TAPS
from apstream.arrays.types import F32, F64, IntArray

__all__ = ["BLOCK", "CELL", "FX", "FY", "SCALE", "SECTIONS", "block_positions", "block_weights", "position", "run_end"]

#: Pixels between nodes of the grid of exact positions.
CELL = 32
#: Pixels of a row that are dealt with at a time.
BLOCK = 256
#: Sections of what is known of a block: weights along y, along x, fractions of a pixel, area ratio.
FY, FX, SCALE, SECTIONS = 2 * TAPS, 2 * TAPS + 1, 2 * TAPS + 2, 2 * TAPS + 3
_FY, _FX, _SCALE, _COLUMN = np.uintp(FY * BLOCK), np.uintp(FX * BLOCK), np.uintp(SCALE * BLOCK), np.uintp(BLOCK)
#: Positions farther off than this, pixels, lie outside every image.
_FARTHEST = 1e8
_NOWHERE = -2


@njit(cache=True, nogil=True)
def position(nodes: tuple[F64, F64, F64], offset: tuple[int, int], i: int, j: int) -> tuple[float, float]:
    """Return (y, x) of target pixel (i, j) on the source."""
    gi, gj = (i + offset[0]) // CELL, (j + offset[1]) // CELL
    ty, tx = (i + offset[0] - gi * CELL) / CELL, (j + offset[1] - gj * CELL) / CELL
    yl, yr = _ends(nodes[0], gi, gj, ty)
    xl, xr = _ends(nodes[1], gi, gj, ty)
    return yl + (yr - yl) * tx, xl + (xr - xl) * tx


@njit(cache=True, nogil=True)
def block_positions(
    nodes: tuple[F64, F64, F64], offset: tuple[int, int], where: tuple[int, int, int], whole: IntArray, found: F32
) -> None:
    """Find whole pixels, fractions and area ratios of a part of a row, in place.

    Parameters
    ----------
    nodes, offset
        As in `MapGrid`.
    where
        Row, first pixel and number of pixels, at most `BLOCK`.
    whole : ndarray, shape (2 BLOCK,), int32
        Row of the source, and its column less the place in the block; the row is -2 where there is none.
    found : ndarray, shape (SECTIONS BLOCK,), float32
        Sections `FY`, `FX` and `SCALE` are filled.
    """
    i, first, n = where
    begin = first + offset[1]
    gi = (i + offset[0]) // CELL
    ty = (i + offset[0] - gi * CELL) / CELL
    left = _between(nodes, gi, begin // CELL, ty)
    for gj in range(begin // CELL, (begin + n + CELL - 1) // CELL):
        start, stop = max(0, gj * CELL - begin), min(n, (gj + 1) * CELL - begin)
        right = _between(nodes, gi, gj + 1, ty)
        y, x, area = (left[0], right[0]), (left[1], right[1]), (left[2], right[2])
        left = right
        far = max(abs(y[0]), abs(y[1]), abs(x[0]), abs(x[1]))
        if far < _FARTHEST:  # false for NaN
            _cell_positions((y, x, area), (start, stop, begin + start - gj * CELL), whole, found)
        else:
            whole[start:stop] = _NOWHERE
            found[FY * BLOCK + start : FY * BLOCK + stop] = 0
            found[FX * BLOCK + start : FX * BLOCK + stop] = 0


@njit(cache=True, nogil=True, fastmath={"contract"})
def _cell_positions(
    ends: tuple[tuple[float, float], tuple[float, float], tuple[float, float]],
    where: tuple[int, int, int],
    whole: IntArray,
    found: F32,
) -> None:
    # free of branches, and in single precision from the whole pixel at the cell's start on: many at a time
    y, x, area = ends
    start, stop, into = where
    y0, x0 = np.int32(np.floor(y[0])), np.int32(np.floor(x[0]))
    ry, rx, dy, dx = np.float32(y[0] - y0), np.float32(x[0] - x0), np.float32(y[1] - y[0]), np.float32(x[1] - x[0])
    a0, da = np.float32(area[0]), np.float32(area[1] - area[0])
    first, x1 = np.uintp(start), x0 - np.int32(start)
    for k in range(stop - start):
        j = first + np.uintp(k)
        t = np.float32(np.int32(k) + np.int32(into)) * np.float32(1 / CELL)
        py, px = ry + dy * t, rx + dx * t
        wy, wx = np.floor(py), np.floor(px)
        whole[j], whole[_COLUMN + j] = y0 + np.int32(wy), x1 + np.int32(wx) - np.int32(k)
        found[_FY + j], found[_FX + j], found[_SCALE + j] = py - wy, px - wx, a0 + da * t


@njit(cache=True, nogil=True, fastmath={"contract"})
def block_weights(coefficients: F32, fractions: int, first: int, found: F32) -> None:
    """Work out the weights of a block along one axis, in place.

    Parameters
    ----------
    coefficients
        From `arrays.lanczos.tap_polynomials`.
    fractions, first
        The section of `found` that has the fractions, and the first of the weights.
    """
    at, base = np.uintp(fractions * BLOCK), np.uintp(first * BLOCK)
    for tap in range(TAPS // 2):
        e0, e1, e2 = coefficients[tap, 0], coefficients[tap, 1], coefficients[tap, 2]
        o0, o1, o2 = coefficients[tap, 3], coefficients[tap, 4], coefficients[tap, 5]
        near = np.float32(tap == TAPS // 2 - 1)
        left, right = base + np.uintp(tap * BLOCK), base + np.uintp((TAPS - 1 - tap) * BLOCK)
        for k in range(BLOCK):
            j = np.uintp(k)
            t = found[at + j]
            u = t - np.float32(0.5)
            s, rest = u * u, np.float32(1) - t
            even, odd = e0 + s * (e1 + s * e2), u * (o0 + s * (o1 + s * o2))
            found[left + j], found[right + j] = rest * (near + t * (even + odd)), t * (near + rest * (even - odd))


@njit(cache=True, nogil=True)
def run_end(whole: IntArray, start: int, n: int) -> int:
    """Return where the pixels of a block end that, beginning at `start`, lie on successive pixels of one row."""
    first, end, stop = np.uintp(start), np.uintp(start + 1), np.uintp(n)
    y, x = whole[first], whole[_COLUMN + first]
    while end + np.uintp(CELL) <= stop:
        other = np.int32(0)
        for k in range(CELL):
            j = end + np.uintp(k)
            other |= (whole[j] ^ y) | (whole[_COLUMN + j] ^ x)
        if other:
            break
        end += np.uintp(CELL)
    while end < stop and whole[end] == y and whole[_COLUMN + end] == x:
        end += np.uintp(1)
    return int(np.intp(end))  # int() alone keeps it unsigned, and numba makes floats of signed with unsigned


@njit(cache=True, nogil=True)
def _between(nodes: tuple[F64, F64, F64], gi: int, gj: int, ty: float) -> tuple[float, float, float]:
    # position and area where a row crosses a column of nodes
    i, j = np.uintp(gi), np.uintp(gj)
    below = i + np.uintp(1)
    y, x, area = nodes
    return (
        y[i, j] + (y[below, j] - y[i, j]) * ty,
        x[i, j] + (x[below, j] - x[i, j]) * ty,
        area[i, j] + (area[below, j] - area[i, j]) * ty,
    )


@njit(cache=True, nogil=True)
def _ends(nodes: F64, gi: int, gj: int, ty: float) -> tuple[float, float]:
    # values at the two ends of a cell's row
    left = nodes[gi, gj] + (nodes[gi + 1, gj] - nodes[gi, gj]) * ty
    right = nodes[gi, gj + 1] + (nodes[gi + 1, gj + 1] - nodes[gi, gj + 1]) * ty
    return left, right
