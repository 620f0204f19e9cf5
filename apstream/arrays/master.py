"""Outlier-resistant mean of many frames, pixel by pixel."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.stats import mad_sigma
from apstream.arrays.types import F32, F64

__all__ = ["clipped_mean", "clipped_median_stack", "noise_excess"]

_MAD = 1.482602218505602
#: Fewer values than these have no scatter of their own worth the name.
_ENOUGH = 5
#: A pixel that scatters by this much more than expected has a noise of its own.
_RESTLESS = 2.0
#: Values that are enough to measure a scatter.
_SAMPLE = 100_000


def noise_excess(cube: F32, noise2: F64, photon: F64) -> float:
    """Return by what factor frames scatter more than expected, from the differences of successive frames.

    Parameters
    ----------
    cube : ndarray, shape (n, m), float32
    noise2, photon : ndarray, shape (n,)
        As `clipped_mean`.

    Returns
    -------
    float
        1 where nothing can be said.
    """
    step = max(1, cube.size // _SAMPLE)
    values = cube[:, ::step].astype(np.float64)
    if len(values) < 2:
        return 1.0
    middle = np.maximum(np.minimum(values[1:], values[:-1]), 0)
    expected = noise2[1:, None] + noise2[:-1, None] + (photon[1:] + photon[:-1])[:, None] * middle
    ratio = np.diff(values, axis=0) / np.sqrt(np.maximum(expected, 1e-30))
    factor = mad_sigma(ratio.ravel())
    return factor if np.isfinite(factor) and factor > 0 else 1.0


def clipped_mean(
    cube: F32, weights: F64, noise2: F64, photon: F64, *, n_sigma: float, iterations: int = 5
) -> tuple[F32, F32, F32]:
    """Return the weighted mean of frames without outliers.

    A value is an outlier if it stands off from the rest by more than `n_sigma` times the larger of its expected
    noise and, from five values on, the scatter of the pixel. The rest are the median at first, then the mean of what
    was kept. Of two values that disagree the lower one is kept: what falls on a detector adds light.

    Parameters
    ----------
    cube : ndarray, shape (n, m), float32
        One row for each frame; NaN is left out.
    weights : ndarray, shape (n,), float64
        Positive.
    noise2, photon : ndarray, shape (n,), float64
        The expected variance of a value is noise2 + photon * max(mean, 0).

    Returns
    -------
    mean, error, count : ndarray, shape (m,), float32
        Error is the expected one of the mean; NaN, NaN and 0 where there is no value.
    """
    columns = cube.shape[1]
    mean, error, count = (np.zeros(columns, np.float32) for _ in range(3))
    numbers = np.stack([weights, noise2, photon]).astype(np.float64)
    _combine(cube, numbers, n_sigma, iterations, mean, error, count)
    return mean, error, count


def clipped_median_stack(cube: F32, *, n_sigma: float) -> tuple[F32, F32]:
    """Return the median of the frames at each pixel after one clip by the pixel's scatter, and how many values it has.

    Parameters
    ----------
    cube : ndarray, shape (n, m), float32
        One row for each frame; NaN is left out.

    Returns
    -------
    median, count : ndarray, shape (m,), float32
        NaN and 0 where there is no value.
    """
    median, count = np.zeros(cube.shape[1], np.float32), np.zeros(cube.shape[1], np.float32)
    _median(cube, n_sigma, median, count)
    return median, count


@njit(cache=True, nogil=True)
def _median(cube, n_sigma, median, count):  # type: ignore[no-untyped-def]
    n, columns = cube.shape
    ordered, off = np.empty(n), np.empty(n)
    for p in range(columns):
        m = 0
        for k in range(n):
            if np.isfinite(cube[k, p]):
                ordered[m] = cube[k, p]
                m += 1
        if m == 0:
            median[p] = np.nan
            continue
        _sort(ordered, m)
        centre = _middle(ordered, m)
        for k in range(m):
            off[k] = abs(ordered[k] - centre)
        _sort(off, m)
        width = n_sigma * _MAD * _middle(off, m)
        kept = 0
        for k in range(m):
            if abs(ordered[k] - centre) <= width or m < _ENOUGH:
                ordered[kept] = ordered[k]
                kept += 1
        median[p], count[p] = _middle(ordered, kept), kept


@njit(cache=True, nogil=True)
def _combine(cube, numbers, n_sigma, iterations, mean, error, count):  # type: ignore[no-untyped-def]
    n, columns = cube.shape
    values, keep, ordered = np.empty(n), np.empty(n, np.bool_), np.empty(n)
    for p in range(columns):
        m = 0
        for k in range(n):
            v = cube[k, p]
            values[k] = v
            keep[k] = np.isfinite(v)
            if keep[k]:
                ordered[m] = v
                m += 1
        if m == 0:
            mean[p], error[p], count[p] = np.nan, np.nan, 0
            continue
        _sort(ordered, m)
        centre = ordered[0] if m == 2 else _middle(ordered, m)
        own = 0.0
        if m >= _ENOUGH:
            for k in range(m):
                ordered[k] = abs(ordered[k] - centre)
            _sort(ordered, m)
            own = _MAD * _middle(ordered, m)
        mean[p], error[p], count[p] = _clip(values, keep, numbers, (centre, own), (n_sigma, iterations), m)


@njit(cache=True, nogil=True)
def _clip(values, keep, numbers, start, limits, m):  # type: ignore[no-untyped-def]
    """Return mean, error and count of the `m` values that stay; `start` is a first centre and the scatter."""
    n, (centre, own), (n_sigma, iterations) = len(values), start, limits
    factor = 2.0 if m == 2 else 1.0
    mean, error, count = centre, 0.0, 0
    for _ in range(iterations):
        total, weight, square, kept, changed = 0.0, 0.0, 0.0, 0, False
        for k in range(n):
            if not np.isfinite(values[k]):
                continue
            variance = numbers[1, k] + numbers[2, k] * max(centre, 0.0)
            width = max(np.sqrt(factor * variance), own)
            good = abs(values[k] - centre) <= n_sigma * width
            changed = changed or good != keep[k]
            keep[k] = good
            if good:
                total += numbers[0, k] * values[k]
                weight += numbers[0, k]
                square += numbers[0, k] ** 2 * (own**2 if own > _RESTLESS * np.sqrt(variance) else variance)
                kept += 1
        if kept == 0:
            break
        mean, error, count = total / weight, np.sqrt(square) / weight, kept
        if not changed or m == 2:
            break
        centre = mean
    return mean, error, count


@njit(cache=True, nogil=True)
def _middle(ordered, m):  # type: ignore[no-untyped-def]
    return (ordered[(m - 1) // 2] + ordered[m // 2]) / 2


@njit(cache=True, nogil=True)
def _sort(values, m):  # type: ignore[no-untyped-def]
    """Sort the first `m` values in place: by insertion where they are few."""
    if m > 40:
        values[:m].sort()
        return
    for k in range(1, m):
        v = values[k]
        j = k - 1
        while j >= 0 and values[j] > v:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = v
