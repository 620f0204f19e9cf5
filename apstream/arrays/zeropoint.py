"""Photometric zero point from instrumental fluxes and catalogue magnitudes, and how it varies over a detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["ResidualMap", "ZeroPoint", "fit_residual_map", "fit_zero_point"]

#: Interquartile range of a Gaussian in standard deviations.
_IQR = 1.349
#: The scatter that clipping may assume never exceeds this (mag).
_MAX_SIGMA = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoint:
    """Magnitude of one unit of flux, its standard error, the stars' scatter, and which stars were used.

    `intrinsic` is the scatter that the stars' errors do not explain.
    """

    value: float
    error: float
    scatter: float
    used: BoolArray
    intrinsic: float = 0.0

    @property
    def count(self) -> int:
        """Number of stars used."""
        return int(self.used.sum())


def fit_zero_point(
    flux: FloatArray, magnitude: FloatArray, error: FloatArray, *, nsigma: float = 3.0, iterations: int = 20
) -> ZeroPoint | None:
    """Fit magnitude = zero point - 2.5 log10(flux) with rejection.

    Starts at the mode of a histogram, then clips with median and interquartile range until nothing changes,
    and ends with a weighted mean of the stars kept.

    Parameters
    ----------
    flux
        Instrumental; stars without a positive flux are not used.
    magnitude
        Of the catalogue; not finite means not used.
    error
        Standard error of every difference, mag; used for the final weights beside the scatter.

    Returns
    -------
    ZeroPoint or None
        None when fewer than two stars are left.
    """
    flux, magnitude = np.asarray(flux, float), np.asarray(magnitude, float)
    good = (flux > 0) & np.isfinite(flux) & np.isfinite(magnitude)
    difference = np.full(len(flux), np.nan)
    difference[good] = magnitude[good] + 2.5 * np.log10(flux[good])
    if good.sum() < 2:
        return None
    center, sigma = _histogram_mode(difference[good]), _MAX_SIGMA
    used = good & (np.abs(difference - center) <= 2 * _MAX_SIGMA)
    for _ in range(iterations):
        if used.sum() < 2:
            return None
        center = float(np.median(difference[used]))
        low, high = np.percentile(difference[used], [25, 75])
        sigma = float(np.clip((high - low) / _IQR, 1e-4, _MAX_SIGMA))
        kept = good & (np.abs(difference - center) <= nsigma * sigma)
        if np.array_equal(kept, used):
            break
        used = kept
    return _weighted(difference, np.asarray(error, float), used, sigma) if used.sum() >= 2 else None


def _weighted(difference: F64, error: F64, used: BoolArray, sigma: float) -> ZeroPoint:
    values, errors = difference[used], np.nan_to_num(error[used], nan=sigma)
    # what scatter the errors do not explain is shared by all stars
    intrinsic = max(sigma**2 - float(np.median(errors)) ** 2, (0.1 * sigma) ** 2, 1e-8)
    weights = 1 / (errors**2 + intrinsic)
    value = float(np.average(values, weights=weights))
    scatter = float(np.sqrt(np.mean((values - value) ** 2)))
    error_of_mean = max(float(weights.sum() ** -0.5), scatter / np.sqrt(len(values)) * 0.5)
    return ZeroPoint(value, error_of_mean, scatter, used, float(np.sqrt(intrinsic)))


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMap:
    """Magnitudes to add to the zero point over a detector.

    Parameters
    ----------
    terms
        Coefficients of `poly_terms` on the normalised detector.
    rms
        Of the map at the stars that made it, mag.
    """

    terms: tuple[float, ...]
    rms: float


def fit_residual_map(
    ty: FloatArray, tx: FloatArray, residual: FloatArray, error: FloatArray, *, max_degree: int, nsigma: float = 3.0
) -> ResidualMap | None:
    """Fit zero point residuals over the detector by the polynomial that they prove.

    Degrees up to `max_degree` with ten stars a term are compared by the Bayesian information criterion (Schwarz
    1978, Ann. Stat. 6, 461) on the stars that the highest of them does not reject.

    Parameters
    ----------
    ty, tx
        Positions normalised to [-1, 1].
    residual, error
        Magnitudes.

    Returns
    -------
    ResidualMap or None
        None where no map is better than a constant.
    """
    highest = max((d for d in range(max_degree + 1) if len(residual) >= 10 * n_terms(d)), default=0)
    if highest == 0:
        return None
    values, weights = np.asarray(residual, float), 1 / np.asarray(error, float)
    used, terms = np.ones(len(values), bool), poly_terms(ty, tx, highest)
    for _ in range(10):
        model = _solve(terms, values, weights * used) @ terms
        size = np.abs(values - model) * weights
        kept = size <= nsigma * max(1.0, 1.4826 * float(np.median(size[used])))
        if np.array_equal(kept, used):
            break
        used = kept
    found = []
    for degree in range(highest + 1):
        part = terms[: n_terms(degree)]
        solution = _solve(part, values, weights * used)
        square = float(np.sum(((values - solution @ part) * weights)[used] ** 2))
        count = int(used.sum())
        found.append((count * np.log(max(square, 1e-30)) + len(part) * np.log(count), degree, solution))
    _, degree, solution = min(found, key=lambda one: one[:2])
    if degree == 0:
        return None
    at_stars = (solution @ terms[: n_terms(degree)])[used]
    return ResidualMap(tuple(float(c) for c in solution), float(np.std(at_stars)))


def _solve(terms: F64, values: F64, weights: F64) -> F64:
    solution, *_ = np.linalg.lstsq((terms * weights).T, values * weights, rcond=None)
    return np.asarray(solution)


def _histogram_mode(values: F64) -> float:
    width = 0.1
    edges = np.arange(values.min() - width, values.max() + 2 * width, width)
    counts, _ = np.histogram(values, edges)
    smooth = np.convolve(counts, [1, 2, 1], mode="same")
    best = int(np.argmax(smooth))
    return float((edges[best] + edges[best + 1]) / 2)
