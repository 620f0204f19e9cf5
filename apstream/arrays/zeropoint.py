"""Photometric zero point from instrumental fluxes and catalogue magnitudes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["ZeroPoint", "fit_zero_point"]

#: Interquartile range of a Gaussian in standard deviations.
_IQR = 1.349
#: The scatter that clipping may assume never exceeds this (mag).
_MAX_SIGMA = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoint:
    """Magnitude of one unit of flux, its standard error, the stars' scatter, and which stars were used."""

    value: float
    error: float
    scatter: float
    used: BoolArray

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
    return ZeroPoint(value, max(float(weights.sum() ** -0.5), scatter / np.sqrt(len(values)) * 0.5), scatter, used)


def _histogram_mode(values: F64) -> float:
    width = 0.1
    edges = np.arange(values.min() - width, values.max() + 2 * width, width)
    counts, _ = np.histogram(values, edges)
    smooth = np.convolve(counts, [1, 2, 1], mode="same")
    best = int(np.argmax(smooth))
    return float((edges[best] + edges[best + 1]) / 2)
