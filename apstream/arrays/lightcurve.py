"""Statistics of many light curves at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.types import F64, FloatArray

__all__ = ["CurveStatistics", "curve_statistics", "weighted_mean"]

_Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CurveStatistics:
    """Statistics per light curve, each of shape (n,); NaN where the points do not suffice."""

    mean: F64
    mean_err: F64
    sigma: F64
    count: _Index
    minimum: F64
    maximum: F64
    max_slope: F64
    err_mean: F64


def weighted_mean(curve: _Index, n: int, flux: FloatArray, err: FloatArray) -> tuple[F64, F64]:
    """Return the inverse-variance weighted mean and its error for each of `n` curves.

    Points whose flux is not finite or whose error is not positive are left out.
    """
    use = _usable(flux, err)
    weight = 1 / np.asarray(err, float)[use] ** 2
    total = np.bincount(curve[use], weight, n)
    value = np.bincount(curve[use], weight * np.asarray(flux, float)[use], n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, value / total, np.nan), np.where(total > 0, 1 / np.sqrt(total), np.nan)


def curve_statistics(curve: _Index, n: int, time: FloatArray, flux: FloatArray, err: FloatArray) -> CurveStatistics:
    """Summarise `n` light curves.

    Parameters
    ----------
    curve
        Which curve each point belongs to, in [0, n).
    time
        Days.
    flux, err
        Any one unit; points with a flux that is not finite or an error that is not positive are left out.

    Returns
    -------
    CurveStatistics
        `sigma` is the sample standard deviation (two points or more); `max_slope` the largest rise per
        day between neighbours in time; neighbours at the same instant are left out.
    """
    use = _usable(flux, err)
    curve, t = curve[use], np.asarray(time, np.float64)[use]
    f, e = np.asarray(flux, np.float64)[use], np.asarray(err, np.float64)[use]
    mean, mean_err = weighted_mean(curve, n, f, e)
    count = np.bincount(curve, minlength=n)
    return CurveStatistics(
        mean,
        mean_err,
        _sample_sigma(curve, n, f, count),
        count,
        _extreme(np.fmin, curve, n, f),
        _extreme(np.fmax, curve, n, f),
        _max_slope(curve, n, t, f),
        _plain_mean(curve, n, e, count),
    )


def _usable(flux: FloatArray, err: FloatArray) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(flux) & np.isfinite(err) & (np.asarray(err) > 0))


def _plain_mean(curve: _Index, n: int, values: F64, count: _Index) -> F64:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.bincount(curve, values, n) / np.where(count > 0, count, np.nan)


def _sample_sigma(curve: _Index, n: int, flux: F64, count: _Index) -> F64:
    residual = flux - _plain_mean(curve, n, flux, count)[curve]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.bincount(curve, residual**2, n) / np.where(count > 1, count - 1, np.nan))


def _extreme(pick: np.ufunc, curve: _Index, n: int, values: F64) -> F64:
    result = np.full(n, np.nan)
    pick.at(result, curve, values)
    return result


def _max_slope(curve: _Index, n: int, time: F64, flux: F64) -> F64:
    order = np.lexsort((time, curve))
    c, t, f = curve[order], time[order], flux[order]
    pair = (c[1:] == c[:-1]) & (t[1:] > t[:-1])
    slope = np.diff(f)[pair] / np.diff(t)[pair]
    return _extreme(np.fmax, c[1:][pair], n, slope)
