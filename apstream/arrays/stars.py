"""Tell stars from everything else by their size, and find the lonely ones."""

from __future__ import annotations

import numpy as np

from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.types import F64, BoolArray, FloatArray, IntArray

__all__ = ["contamination", "degree_for", "every_nth_over_field", "stellar_locus", "stellar_size"]

_SHAPE_WIDTH = 0.1  # of the pile of stars in each component of ellipticity
_LEAST_PILE = 0.3  # height of a pile, relative to the highest, that may be the stars
_ENOUGH = 5
_FIRST_SCATTER = 0.03  # of log size about the mode


def degree_for(n_stars: int, highest: int, *, per_term: int = 5) -> int:
    """Return the highest polynomial degree up to `highest` that `n_stars` carry with `per_term` stars a term."""
    return max((d for d in range(highest + 1) if n_stars >= per_term * n_terms(d)), default=0)


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
    from scipy.spatial import cKDTree

    positive = np.where(np.isfinite(flux) & (flux > 0), flux, 0.0)
    total = np.zeros(len(y))
    if len(y) > 1:
        i, j = cKDTree(np.column_stack([y, x])).query_pairs(radius, output_type="ndarray").T
        light = np.exp(-0.5 * ((y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2) / scale**2)
        np.add.at(total, i, positive[j] * light)
        np.add.at(total, j, positive[i] * light)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positive > 0, total / positive, np.inf)


def stellar_size(
    size: FloatArray,
    snr: FloatArray,
    shape: tuple[FloatArray, FloatArray] | None = None,
    *,
    brightest: int = 400,
    smallest: float = 0.5,
) -> float:
    """Return the size at which the sizes and shapes of the brightest sources pile up.

    Galaxies spread over many sizes and ellipticities, and so do cosmic rays; stars are all alike. Of several piles
    that are not much lower than the highest the one of smallest size is theirs, since nothing that came through the
    atmosphere is smaller than a star.

    Parameters
    ----------
    size, snr : ndarray, shape (n,)
        Size in pixels (NaN is left out), signal-to-noise ratio.
    shape
        Ellipticity components e1, e2; without them sizes alone tell.
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
    # Few sources need a wider window; the locus itself is 1-3 % wide plus the field's variation.
    bandwidth = 0.025 if good.size > 80 else 0.05
    logs = np.log(size[good])
    places = np.column_stack([logs / bandwidth, *(np.asarray(e)[good] / _SHAPE_WIDTH for e in shape or ())])
    weights = np.minimum(snr[good], 300.0) ** 0.5
    distance2 = np.sum((places[:, None] - places[None]) ** 2, axis=2)
    alike = np.exp(-0.5 * distance2)
    density = alike @ weights
    members = alike[np.argmin(np.where(density >= _LEAST_PILE * density.max(), logs, np.inf))] * weights
    for _ in range(10):  # climb to the top of that pile
        middle = members @ places / members.sum()
        members = np.exp(-0.5 * np.sum((places - middle) ** 2, axis=1)) * weights
    near = np.sum((places - middle) ** 2, axis=1) < 9
    return float(np.exp(np.median(logs[near]))) if near.any() else float(np.exp(middle[0] * bandwidth))


def stellar_locus(
    size: FloatArray,
    snr: FloatArray,
    *,
    ty: F64,
    tx: F64,
    width: float = 0.2,
    n_sigma: float = 3.0,
    shape: tuple[FloatArray, FloatArray] | None = None,
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
    shape
        Ellipticity components, which help to find the mode.

    Returns
    -------
    chosen : ndarray, shape (n,), bool
    expected : ndarray, shape (n,)
        Stellar size at each source; NaN if there is no locus.
    """
    mode = stellar_size(size, snr, shape)
    if not np.isfinite(mode):
        return np.zeros(len(size), bool), np.full(len(size), np.nan)
    logs = np.log(np.where(size > 0, size, np.nan))
    usable = np.isfinite(logs)
    noise, deviation, scatter = 1.0 / np.maximum(snr, 1.0), logs - np.log(mode), _FIRST_SCATTER
    for step in range(10):
        reach = np.minimum(4 * np.hypot(scatter, noise), width)
        near = usable & (np.abs(deviation) < reach)
        if not near.any():
            return near, np.full(len(size), mode)
        terms = poly_terms(ty, tx, degree_for(int(near.sum()), min(step, 2)))
        # What is far out counts little: galaxies just above the locus would draw it up.
        weight = (1 - (deviation[near] / reach[near]) ** 2) / np.hypot(noise[near], 0.01)
        fit = np.linalg.lstsq((terms[:, near] * weight).T, logs[near] * weight, rcond=None)[0]
        deviation = logs - fit @ terms
        scatter = _lower_scatter(deviation[usable & (np.abs(deviation) < reach)])
    chosen = usable & (np.abs(deviation) < np.minimum(n_sigma * np.hypot(scatter, noise), width))
    return chosen, np.exp(fit @ terms)


def _lower_scatter(deviation: FloatArray) -> float:
    """Return the scatter of those below zero, for above lie galaxies and blends too; few stars do not tell."""
    below = np.abs(deviation[deviation < 0])
    return max(1.4826 * float(np.median(below)), 0.004) if below.size >= _ENOUGH else _FIRST_SCATTER


def every_nth_over_field(y: F64, x: F64, *, n: int) -> IntArray:
    """Return the indices of every n-th place on a path to and fro over the field.

    The choice depends on positions alone and is spread evenly over the field.

    Parameters
    ----------
    y, x : ndarray, shape (m,)
    n
        One of `n` is taken, at least 2.
    """
    if len(y) == 0:
        return np.zeros(0, np.intp)
    strips = max(1, round(np.sqrt(len(y) / n)))
    ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
    strip = ranks * strips // len(y)
    along = np.where(strip % 2, -x, x)
    return np.asarray(np.lexsort((along, strip))[n // 2 :: n])
