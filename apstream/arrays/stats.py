"""Robust statistics of samples."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.masks import count_above
from apstream.arrays.types import F32, F64, BoolArray, FloatArray

__all__ = ["clip_mask", "clipped_median", "mad_sigma", "mode_of", "nth_value", "subsample"]

#: Sigma of a Gaussian over its median absolute deviation.
_MAD = 1.482602218505602


def mad_sigma(values: FloatArray) -> float:
    """Return the robust standard deviation of `values`; NaN values are ignored, NaN if none is left."""
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan")
    return float(_MAD * np.median(np.abs(values - np.median(values))))


def clip_mask(values: FloatArray, *, n_sigma: float = 3.0, iterations: int = 5, floor: float = 0.0) -> BoolArray:
    """Return True for values that survive iterated clipping about the median.

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN never survives.
    n_sigma
        Half-width kept, in robust standard deviations.
    floor
        Smallest standard deviation assumed.
    """
    keep = np.isfinite(values)
    for _ in range(iterations):
        if not keep.any():
            break
        sigma = max(mad_sigma(values[keep]), floor)
        new = np.isfinite(values) & (np.abs(values - np.median(values[keep])) <= n_sigma * sigma)
        if np.array_equal(new, keep):
            break
        keep = new
    return keep


def clipped_median(rows: FloatArray, *, n_sigma: float = 3.0) -> F32:
    """Return the median of each row after one clip of outliers about the row's median.

    Parameters
    ----------
    rows : ndarray, shape (n, m)
        NaN values are ignored; a row without finite values gives NaN.

    Returns
    -------
    ndarray, shape (n,), float32
    """
    rows = np.ascontiguousarray(rows, np.float32)
    middle = _row_medians(rows, np.full(len(rows), np.nan), np.inf)
    # The scatter of a short row is itself noisy: clip with the scatter that is typical of all rows.
    deviation = np.abs(rows - middle[:, None])
    deviation = deviation[np.isfinite(deviation)]
    sigma = max(_MAD * float(np.median(deviation)), 1e-6) if deviation.size else 1.0
    return np.asarray(_row_medians(rows, middle, n_sigma * sigma), np.float32)


@njit(cache=True, nogil=True)
def _row_medians(rows, middle, width):  # type: ignore[no-untyped-def]
    """Return the median of each row's finite values within `width` of `middle`, or of all where `middle` is NaN."""
    out = np.full(len(rows), np.nan)
    values = np.empty(rows.shape[1])
    for r in range(len(rows)):
        n = 0
        for c in range(rows.shape[1]):
            v = rows[r, c]
            if np.isfinite(v) and not abs(v - middle[r]) > width:
                values[n] = v
                n += 1
        if n:
            part = np.sort(values[:n])
            out[r] = (part[(n - 1) // 2] + part[n // 2]) / 2
    return out


def mode_of(values: FloatArray, *, bandwidth: float, weights: FloatArray | None = None) -> float:
    """Return the place of highest density of `values`, smoothed by a Gaussian of width `bandwidth`."""
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    grid = np.arange(values.min() - bandwidth, values.max() + 1.5 * bandwidth, bandwidth / 4)
    density: F64 = np.zeros(len(grid))
    for chunk in np.array_split(np.arange(len(values)), max(1, len(values) // 512)):
        distance = (grid[:, None] - values[None, chunk]) / bandwidth
        density += np.exp(-0.5 * distance**2) @ weights[chunk]
    return float(grid[int(np.argmax(density))])


def subsample(image: FloatArray, *, limit: int = 400_000) -> FloatArray:
    """Return finite pixels of `image`, on a regular stride that leaves at most about `limit` of them."""
    step = max(1, int(np.ceil(np.sqrt(image.size / limit))))
    values = image[::step, ::step].ravel()
    return values[np.isfinite(values)]


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def nth_value(values, n):  # type: ignore[no-untyped-def]
    """Return the n-th of some values in order, from 0: those below are counted, which vectorises as sorting does not.

    Plain equivalent: np.sort(values)[n]. Finite.
    """
    low, high = values[0], values[0]
    for i in range(len(values)):
        low, high = min(low, values[i]), max(high, values[i])
    if len(values) - count_above(values, low) > n:
        return low
    while True:
        middle = low + (high - low) / values.dtype.type(2)
        if not low < middle < high:  # next to each other: all that is left is `high`
            return high
        below = len(values) - count_above(values, middle)
        if below == n + 1:
            return _largest(values, middle)
        if below > n:
            high = middle
        else:
            low = middle


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _largest(values, limit):  # type: ignore[no-untyped-def]
    """Return the largest value that is not above a limit."""
    found = values.dtype.type(-np.inf)
    for i in range(len(values)):
        found = max(found, values[i] if values[i] <= limit else found)
    return found
