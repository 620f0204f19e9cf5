"""Matching positions on the sphere: candidate pairs, residuals, and the assignment of least total cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.types import F64, FloatArray

__all__ = ["assign", "close_pairs", "mean_position", "tangent_offsets", "unit_vectors"]

_Index = NDArray[np.int64]


def unit_vectors(ra: FloatArray, dec: FloatArray) -> F64:
    """Return the unit vectors, shape (n, 3), of positions in degrees."""
    r, d = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    return np.stack([np.cos(d) * np.cos(r), np.cos(d) * np.sin(r), np.sin(d)], axis=-1)


def close_pairs(a: F64, b: F64, radius_deg: float) -> tuple[_Index, _Index]:
    """Return the index pairs (i, j) of unit vectors `a`, `b` not further apart than `radius_deg`.

    Pairs come in ascending order of (i, j).
    """
    from scipy.spatial import cKDTree

    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    chord = 2 * np.sin(np.deg2rad(radius_deg) / 2)
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), chord * (1 + 1e-9), output_type="ndarray")
    i, j = near["i"].astype(np.int64), near["j"].astype(np.int64)
    order = np.lexsort((j, i))
    return i[order], j[order]


def tangent_offsets(ra: FloatArray, dec: FloatArray, ra0: FloatArray, dec0: FloatArray) -> tuple[F64, F64]:
    """Return the east and north offsets, in arcsec, of (ra, dec) from (ra0, dec0), valid at the poles too."""
    r0, d0 = np.deg2rad(np.asarray(ra0, float)), np.deg2rad(np.asarray(dec0, float))
    step = unit_vectors(ra, dec) - unit_vectors(ra0, dec0)
    zero = np.zeros_like(r0)
    east = np.stack([-np.sin(r0), np.cos(r0), zero], axis=-1)
    north = np.stack([-np.sin(d0) * np.cos(r0), -np.sin(d0) * np.sin(r0), np.cos(d0)], axis=-1)
    scale = np.rad2deg(1.0) * 3600
    return np.sum(step * east, axis=-1) * scale, np.sum(step * north, axis=-1) * scale


def mean_position(group: _Index, n: int, ra: FloatArray, dec: FloatArray, weight: FloatArray) -> tuple[F64, F64]:
    """Return the weighted mean (ra, dec) of each of `n` groups of positions; NaN for one without weight."""
    vectors = unit_vectors(ra, dec) * np.asarray(weight, float)[:, None]
    x, y, z = (np.bincount(group, vectors[:, k], n) for k in range(3))
    norm = np.sqrt(x**2 + y**2 + z**2)
    with np.errstate(invalid="ignore"):
        mean_dec = np.rad2deg(np.arctan2(z, np.hypot(x, y)))
        mean_ra = np.rad2deg(np.arctan2(y, x)) % 360
    return np.where(norm > 0, mean_ra, np.nan), np.where(norm > 0, mean_dec, np.nan)


def assign(i: _Index, j: _Index, cost: FloatArray, *, miss: FloatArray, n_right: int) -> _Index:
    """Assign rows to columns, each at most once, so that the total cost is least.

    Parameters
    ----------
    i, j
        Candidate pairs, row and column.
    cost
        Cost of each pair; finite.
    miss : ndarray, shape (n_left,)
        Cost of leaving a row without a column.
    n_right
        Number of columns.

    Returns
    -------
    ndarray, shape (n_left,)
        Column of each row, -1 for none.

    Notes
    -----
    Every row gets a private extra column that costs `miss`, so that a full matching exists; solved with
    the sparse Jonker-Volgenant method of scipy. The plain equivalent is
    `scipy.optimize.linear_sum_assignment` on the dense matrix.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n = len(miss)
    if len(i) == 0 or n == 0:
        return np.full(n, -1, np.int64)
    rows = np.concatenate([i, np.arange(n)])
    columns = np.concatenate([j, n_right + np.arange(n)])
    costs = np.concatenate([np.asarray(cost, float), np.asarray(miss, float)])
    costs = costs - costs.min() + 1.0  # explicit zeros would vanish; every row pays the shift exactly once
    graph = csr_array((costs, (rows, columns)), shape=(n, n_right + n))
    row, column = min_weight_full_bipartite_matching(graph)
    match = np.full(n, -1, np.int64)
    match[row] = np.where(column < n_right, column, -1)
    return match
