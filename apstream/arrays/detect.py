"""The matched-filter significance image, on which detection thresholds.

The significance of a point source at a pixel is (image * F) / sqrt(variance * F^2) with F the PSF there
(notes on DIA detection; Zackay & Ofek 2017). F is replaced, tile by tile, by the few separable terms that
hold nearly all of its power: the ratio stays exactly normalised for whatever F is used, so this costs only
1 - correlation(F, PSF) of the depth, under 0.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray

__all__ = [
    "SeparableFilters",
    "empty_width",
    "separable_filters",
    "significance",
    "tile_centers",
]


@dataclass(frozen=True, slots=True, eq=False)
class SeparableFilters:
    """Matched filters of every tile as sums of separable terms.

    `rows[t, r]` and `columns[t, r]` (2 half + 1 taps) make the filter of tile t, `square_rows` and
    `square_columns` its square.
    """

    rows: F32
    columns: F32
    square_rows: F32
    square_columns: F32
    tile: int


def tile_centers(shape: tuple[int, int], tile: int) -> tuple[F64, F64]:
    """Return y and x (array indices) of the centres of tiles, row by row."""
    y, x = (np.arange((n + tile - 1) // tile) * tile + (tile - 1) / 2 for n in shape)
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    return grid_y.ravel(), grid_x.ravel()


def separable_filters(psfs: F64, *, half: int, tile: int, power: float = 0.999) -> SeparableFilters:
    """Decompose the PSFs of tiles into separable terms by singular values.

    Parameters
    ----------
    psfs : ndarray, shape (n_tiles, h, w)
        PSFs at the tile centres, row by row.
    half
        Half width of the filter; the PSF is cut there.
    tile
        Side of the tiles in pixels.
    power
        Part of the power of every PSF that the terms must hold.
    """
    cy, cx = psfs.shape[1] // 2, psfs.shape[2] // 2
    half = min(half, cy, cx)
    core = psfs[:, cy - half : cy + half + 1, cx - half : cx + half + 1]
    rows, columns = _terms(core, power)
    filters = np.einsum("tri,trj->tij", rows, columns)
    # The square is what normalises the significance, so it has to be exact; it falls off fast.
    square_rows, square_columns = _terms(filters**2, 1 - (1 - power) / 50)
    return SeparableFilters(
        rows=np.ascontiguousarray(rows, np.float32),
        columns=np.ascontiguousarray(columns, np.float32),
        square_rows=np.ascontiguousarray(square_rows, np.float32),
        square_columns=np.ascontiguousarray(square_columns, np.float32),
        tile=tile,
    )


def _terms(kernels: F64, power: float) -> tuple[F64, F64]:
    left, values, right = np.linalg.svd(kernels)
    held = np.cumsum(values**2, axis=1) / np.sum(values**2, axis=1, keepdims=True)
    rank = int(np.max(np.argmax(held >= power, axis=1))) + 1
    root = np.sqrt(values[:, :rank, None])
    return left.transpose(0, 2, 1)[:, :rank] * root, right[:, :rank] * root


def significance(image: F32, variance: F32, usable: BoolArray, filters: SeparableFilters) -> F32:
    """Return the signal-to-noise ratio of a point source centred on each pixel.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx)
        Difference image and its variance, same unit squared.
    usable : ndarray, shape (ny, nx), bool
        False pixels give neither signal nor variance; so do pixels that are not finite.
    filters
        The matched filters.

    Returns
    -------
    ndarray, shape (ny, nx), float32
        Zero on pixels that are not usable.
    """
    snr = np.zeros(image.shape, np.float32)
    terms = (filters.rows, filters.columns, filters.square_rows, filters.square_columns)
    _significance(image, variance, usable, terms, filters.tile, snr)
    return snr


@njit(cache=True, nogil=True)
def _significance(image, variance, usable, terms, tile, snr):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    rows, columns, rows2, columns2 = terms
    half, half2 = rows.shape[2] // 2, rows2.shape[2] // 2
    side = tile + 2 * half
    signal = np.zeros((side, side), np.float32)
    noise = np.zeros((side, side), np.float32)
    top = np.zeros((tile, tile), np.float32)
    bottom = np.zeros((tile, tile), np.float32)
    across = np.zeros((side, tile), np.float32)
    t = 0
    for y0 in range(0, ny, tile):
        for x0 in range(0, nx, tile):
            _load(image, variance, usable, y0 - half, x0 - half, signal, noise)
            _filter(signal, rows[t], columns[t], 0, across, top)
            _filter(noise, rows2[t], columns2[t], half - half2, across, bottom)
            last = min(tile, nx - x0)
            for i in range(min(tile, ny - y0)):
                line = snr[y0 + i, x0 : x0 + last]
                _divide(top[i, :last], bottom[i, :last], noise[i + half, half : half + last], line)
            t += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _divide(signal, square, noise, out):  # type: ignore[no-untyped-def]
    """Write the significance where a pixel has noise of its own, zero elsewhere; without branches, it vectorises."""
    one = np.float32(1)
    for j in range(len(out)):
        known = (noise[j] > 0) & (square[j] > 0)
        out[j] = signal[j] / np.sqrt(square[j] if known else one) if known else np.float32(0)


@njit(cache=True, nogil=True)
def _load(image, variance, usable, y0, x0, signal, noise):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    side = signal.shape[0]
    first, last = max(0, -x0), min(side, nx - x0)
    for i in range(side):
        y = y0 + i
        if not (0 <= y < ny and first == 0 and last == side):
            signal[i] = 0
            noise[i] = 0
        if 0 <= y < ny and first < last:
            a, b = x0 + first, x0 + last
            _load_line(image[y, a:b], variance[y, a:b], usable[y, a:b], signal[i, first:last], noise[i, first:last])


@njit(cache=True, nogil=True)
def _load_line(image, variance, usable, signal, noise):  # type: ignore[no-untyped-def]
    zero, endless = np.float32(0), np.float32(np.inf)
    for j in range(len(image)):
        value, spread = image[j], variance[j]
        good = usable[j] & (abs(value) < endless) & (spread > zero) & (spread < endless)
        signal[j] = value if good else zero
        noise[j] = spread if good else zero


@njit(cache=True, nogil=True, fastmath={"contract"})
def _filter(source, rows, columns, shift, across, out):  # type: ignore[no-untyped-def]
    """Correlate `source` with the sum of separable terms; plain equivalent: scipy.signal.correlate."""
    n_taps, tile = rows.shape[1], out.shape[0]
    whole = n_taps - n_taps % 4  # four taps at a time
    out[:] = 0
    for r in range(rows.shape[0]):
        for i in range(shift, shift + tile + n_taps - 1):
            across[i, :] = 0
            for k in range(0, whole, 4):
                a, b, c, d = columns[r, k], columns[r, k + 1], columns[r, k + 2], columns[r, k + 3]
                part, line = source[i, shift + k : shift + k + tile + 3], across[i]
                for j in range(tile):
                    line[j] += a * part[j] + b * part[j + 1] + c * part[j + 2] + d * part[j + 3]
            for k in range(whole, n_taps):
                _add_line(source[i, shift + k : shift + k + tile], columns[r, k], across[i])
        for i in range(tile):
            for k in range(0, whole, 4):
                a, b, c, d = rows[r, k], rows[r, k + 1], rows[r, k + 2], rows[r, k + 3]
                t, line = i + shift + k, out[i]
                p, q, u, v = across[t], across[t + 1], across[t + 2], across[t + 3]
                for j in range(tile):
                    line[j] += a * p[j] + b * q[j] + c * u[j] + d * v[j]
            for k in range(whole, n_taps):
                _add_line(across[i + shift + k], rows[r, k], out[i])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_line(part, weight, line):  # type: ignore[no-untyped-def]
    for j in range(len(line)):
        line[j] += weight * part[j]


def empty_width(snr: F32) -> float:
    """Return the robust standard deviation of a significance map where the sky is empty.

    The median of abs(snr) over a sample of pixels; cells of 8 pixels in which, or next to which, a pixel
    passes four times the first estimate are then left out, unless fewer than 1,000 pixels would remain.

    Parameters
    ----------
    snr : ndarray, shape (ny, nx)
        Significance with mean zero; zeros are pixels that were not searched.
    """
    step = max(1, int(np.sqrt(snr.size / 1e5)))  # what is only to leave sources out need not be exact
    first = _mad(snr[::step, ::step])
    if not np.isfinite(first):
        return first
    sample = np.empty(snr.size // _CELL**2 * 4 + 4, np.float32)
    count = _sample_empty(snr, np.float32(4 * first), sample)
    return _mad(sample[:count]) if count >= 1000 else first


_CELL = 8


def _mad(values: F32) -> float:
    sizes = np.abs(values[values != 0])
    return float(1.482602 * np.median(sizes)) if len(sizes) else float("nan")


@njit(cache=True, nogil=True)
def _sample_empty(snr, limit, sample):  # type: ignore[no-untyped-def]
    rows, columns = snr.shape[0] // _CELL, snr.shape[1] // _CELL
    busy = np.zeros((rows + 2, columns + 2), np.bool_)
    for y in range(rows * _CELL):
        for x in range(columns * _CELL):
            if abs(snr[y, x]) > limit:
                busy[y // _CELL + 1, x // _CELL + 1] = True
    count = 0
    for a in range(rows):
        for b in range(columns):
            if not busy[a : a + 3, b : b + 3].any():
                for dy in (1, 5):
                    for dx in (1, 5):
                        sample[count] = snr[a * _CELL + dy, b * _CELL + dx]
                        count += 1
    return count
