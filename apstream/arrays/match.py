"""Matching two star lists that are already roughly aligned, and refining the map between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import n_terms
from apstream.arrays.transform import PolyMap, fit_poly_map
from apstream.arrays.types import F64, BoolArray, FloatArray, IntArray

__all__ = ["StarMatch", "clip", "mutual_nearest", "refine"]

#: Median absolute deviation of a Gaussian in standard deviations.
_MAD = 1.4826
#: Ratio of the median distance of a 2-D Gaussian to its standard deviation per axis.
_RAYLEIGH_MEDIAN = 1.1774


@dataclass(frozen=True, slots=True, eq=False)
class StarMatch:
    """Pairs of two lists, the map from the first to the second, and its scatter per axis in target pixels."""

    first: IntArray
    second: IntArray
    map: PolyMap
    rms: float


def mutual_nearest(
    first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray], radius: float
) -> tuple[IntArray, IntArray]:
    """Return index pairs of positions that are each other's nearest neighbour within `radius`."""
    from scipy.spatial import cKDTree

    if len(first[0]) == 0 or len(second[0]) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    a, b = np.stack(first, axis=1), np.stack(second, axis=1)
    distance, there = cKDTree(b).query(a, distance_upper_bound=radius)
    _, back = cKDTree(a).query(b)
    mine = np.arange(len(a))
    found = np.isfinite(distance)
    found[found] = back[there[found]] == mine[found]
    return mine[found], there[found]


def clip(values: FloatArray, nsigma: float, *, floor: float = 0.0) -> BoolArray:
    """Tell which values lie within `nsigma` robust standard deviations (at least `floor`) of the median."""
    middle = np.median(values)
    sigma = max(_MAD * float(np.median(np.abs(values - middle))), floor)
    return np.asarray(np.abs(values - middle) <= nsigma * sigma + 1e-12)


def refine(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    start: PolyMap,
    *,
    radius: float,
    degree: int,
    magnitude: tuple[FloatArray, FloatArray] | None = None,
    nsigma: float = 3.0,
) -> StarMatch:
    """Alternate matching and fitting with a shrinking radius and a growing degree.

    Parameters
    ----------
    first, second
        (y, x) of both lists.
    start
        Map from the first to the second, right within `radius`.
    degree
        Highest degree; lowered when there are fewer than three stars per term.
    magnitude
        Instrumental magnitudes of both lists; pairs whose difference is an outlier are dropped.

    Returns
    -------
    StarMatch
        Possibly of no pairs, then with infinite rms.
    """
    current = start
    for step in range(8):
        i, j = mutual_nearest(current(*first), second, radius)
        i, j = _drop_magnitude_outliers(i, j, magnitude)
        use = np.ones(len(i), bool)
        for _ in range(5):
            allowed = max((d for d in range(1, min(degree, 1 + step) + 1) if use.sum() >= 3 * n_terms(d)), default=1)
            if use.sum() < n_terms(allowed):
                return StarMatch(i[use], j[use], current, np.inf)
            current = fit_poly_map(_take(first, i[use]), _take(second, j[use]), allowed)
            distance, sigma = _residuals(current, _take(first, i), _take(second, j), use)
            kept = distance <= nsigma * max(sigma, 1e-6) * np.sqrt(2)
            if np.array_equal(kept, use):
                break
            use = kept
        i, j = i[use], j[use]
        if step >= degree and radius <= max(4 * sigma, 0.5) * 1.2:
            break
        radius = float(np.clip(5 * sigma, 0.5, radius))
    dy, dx = (p - q for p, q in zip(current(*_take(first, i)), _take(second, j), strict=True))
    return StarMatch(i, j, current, float(np.sqrt(np.mean(np.r_[dy, dx] ** 2))) if len(i) else np.inf)


def _take(positions: tuple[FloatArray, FloatArray], index: IntArray) -> tuple[FloatArray, FloatArray]:
    return positions[0][index], positions[1][index]


def _residuals(
    current: PolyMap,
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    use: BoolArray,
) -> tuple[F64, float]:
    y, x = current(*first)
    distance = np.hypot(y - second[0], x - second[1])
    return distance, float(np.median(distance[use])) / _RAYLEIGH_MEDIAN


def _drop_magnitude_outliers(
    i: IntArray, j: IntArray, magnitude: tuple[FloatArray, FloatArray] | None
) -> tuple[IntArray, IntArray]:
    if magnitude is None or len(i) < 8:
        return i, j
    difference = magnitude[0][i] - magnitude[1][j]
    finite = np.isfinite(difference)
    keep = finite.copy()
    if finite.sum() >= 8:
        keep[finite] = clip(difference[finite], 4.0, floor=0.1)
    return i[keep], j[keep]
