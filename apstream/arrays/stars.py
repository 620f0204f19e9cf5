"""Tell stars from everything else by their size, and find the lonely ones."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.stats import mad_sigma, mode_of
from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["contamination", "degree_for", "stellar_locus", "stellar_size"]


def degree_for(n_stars: int, highest: int) -> int:
    """Return the highest polynomial degree up to `highest` that `n_stars` carry with five stars a term."""
    return max((d for d in range(highest + 1) if n_stars >= 5 * n_terms(d)), default=0)


def contamination(y: F64, x: F64, flux: FloatArray, *, radius: float, scale: float) -> F64:
    """Return for each source the light of others that falls on it, relative to its own.

    Parameters
    ----------
    y, x, flux : ndarray, shape (n,)
        Fluxes that are not positive count as nothing.
    radius
        Sources farther away do not count, pixels.
    scale
        Gaussian width with which a neighbour's light counts, pixels.

    Returns
    -------
    ndarray, shape (n,)
        Sum over neighbours of flux ratio times exp(-d^2 / (2 scale^2)); inf for sources without flux.
    """
    positive = np.where(np.isfinite(flux) & (flux > 0), flux, 0.0)
    total = np.zeros(len(y))
    if len(y) > 1:
        i, j = cKDTree(np.column_stack([y, x])).query_pairs(radius, output_type="ndarray").T
        light = np.exp(-0.5 * ((y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2) / scale**2)
        np.add.at(total, i, positive[j] * light)
        np.add.at(total, j, positive[i] * light)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positive > 0, total / positive, np.inf)


def stellar_size(size: FloatArray, snr: FloatArray, *, brightest: int = 400, smallest: float = 0.5) -> float:
    """Return the size at which the sizes of the brightest sources pile up.

    Galaxies spread over many sizes, cosmic rays lie below `smallest` or scatter, stars pile up: the mode
    of the logarithm of size is theirs.

    Parameters
    ----------
    size, snr : ndarray, shape (n,)
        Size in pixels (NaN is left out), signal-to-noise ratio.
    brightest
        Sources used, the brightest ones.
    smallest
        Least size of a star, pixels.

    Returns
    -------
    float
        NaN if nothing is left.
    """
    good = np.flatnonzero(np.isfinite(size) & (size > smallest) & (snr > 0))
    good = good[np.argsort(-snr[good], kind="stable")][:brightest]
    if good.size == 0:
        return float("nan")
    logs = np.log(size[good])
    # Few sources need a wider window; the locus itself is 1-3 % wide plus the field's variation.
    bandwidth = 0.025 if good.size > 80 else 0.05
    weights = np.minimum(snr[good], 300.0) ** 0.5
    mode = mode_of(logs, bandwidth=bandwidth, weights=weights)
    near = np.abs(logs - mode) < 3 * bandwidth
    return float(np.exp(np.median(logs[near])))


def stellar_locus(
    size: FloatArray,
    snr: FloatArray,
    *,
    ty: F64,
    tx: F64,
    width: float = 0.2,
    n_sigma: float = 3.0,
    smallest: float = 0.5,
) -> tuple[BoolArray, F64]:
    """Select the sources whose size follows the stellar locus over the field.

    Parameters
    ----------
    size, snr : ndarray, shape (n,)
        NaN sizes are never selected; pass NaN for sources that are not to be trusted.
    ty, tx : ndarray, shape (n,)
        Positions normalised to [-1, 1].
    width
        First half-width in log size about the mode.
    n_sigma
        Clip about the polynomial over the field.

    Returns
    -------
    chosen : ndarray, shape (n,), bool
    expected : ndarray, shape (n,)
        Stellar size at each source; NaN if there is no locus.
    """
    mode = stellar_size(size, snr, smallest=smallest)
    if not np.isfinite(mode):
        return np.zeros(len(size), bool), np.full(len(size), np.nan)
    logs = np.log(np.where(size > 0, size, np.nan))
    chosen = np.abs(logs - np.log(mode)) < width
    expected = np.full(len(size), np.log(mode))
    noise = 1.0 / np.maximum(snr, 1.0)
    for _ in range(5):
        degree = degree_for(int(chosen.sum()), 2)
        terms = poly_terms(ty, tx, degree)
        weight = 1.0 / np.hypot(noise, 0.01)
        fit = np.linalg.lstsq((terms * weight)[:, chosen].T, (logs * weight)[chosen], rcond=None)[0]
        expected = fit @ terms
        scatter = max(mad_sigma((logs - expected)[chosen]), 0.004)
        limit = np.minimum(n_sigma * np.hypot(scatter, noise), width)
        new = np.abs(logs - expected) < limit
        if np.array_equal(new, chosen) or not new.any():
            break
        chosen = new
    return chosen, np.exp(expected)
