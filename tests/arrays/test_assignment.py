import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from apstream.arrays.assignment import assign, close_pairs, mean_position, tangent_offsets, unit_vectors


def dense_assign(i, j, cost, miss, n_right):
    """The plain equivalent: a dense matrix with one private column per row."""
    n = len(miss)
    table = np.full((n, n_right + n), 1e9)
    table[i, j] = cost
    table[np.arange(n), n_right + np.arange(n)] = miss
    rows, columns = linear_sum_assignment(table)
    return table[rows, columns].sum(), np.where(columns < n_right, columns, -1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 1))
def test_assignment_equals_the_dense_one(seed, n, m, density):
    rng = np.random.default_rng(seed)
    i, j = np.nonzero(rng.random((n, m)) < density)
    cost, miss = rng.normal(0, 50, len(i)), rng.normal(20, 20, n)
    match = assign(i, j, cost, miss=miss, n_right=m)
    used = match[match >= 0]
    assert len(set(used)) == len(used)
    table = np.full((n, m), np.inf)
    table[i, j] = cost
    total = sum(miss[k] if c < 0 else table[k, c] for k, c in enumerate(match))
    assert total == pytest.approx(dense_assign(i, j, cost, miss, m)[0], rel=1e-9, abs=1e-9)


def test_nothing_to_assign():
    none = np.zeros(0, np.int64)
    assert assign(none, none, np.zeros(0), miss=np.zeros(3), n_right=2).tolist() == [-1, -1, -1]
    assert assign(none, none, np.zeros(0), miss=np.zeros(0), n_right=0).tolist() == []


@pytest.mark.parametrize("dec", [0.0, 45.0, -89.9999, 90.0])
def test_pairs_are_found_across_the_zero_meridian_and_at_the_pole(dec):
    a = unit_vectors(np.array([359.99999]), np.array([dec]))
    b = unit_vectors(np.array([0.00001, 0.01]), np.array([dec, dec - np.sign(dec + 0.5) * 0.01]))
    i, j = close_pairs(a, b, 1 / 3600)
    assert list(zip(i, j, strict=True)) == [(0, 0)]


def test_offsets_are_small_angles_on_the_sky():
    east, north = tangent_offsets(
        np.array([0.0001]), np.array([60.0]), np.array([359.9999]), np.array([60.0])
    )
    assert east[0] == pytest.approx(0.0002 * 3600 * 0.5, rel=1e-4)
    assert abs(north[0]) < 1e-4


def test_offset_at_the_pole_has_the_right_length():
    east, north = tangent_offsets(
        np.array([10.0]), np.array([90.0]), np.array([200.0]), np.array([90 - 1 / 3600])
    )
    assert np.hypot(east, north)[0] == pytest.approx(1, rel=1e-6)


def test_mean_position_wraps():
    ra, dec = mean_position(
        np.array([0, 0]), 2, np.array([359.9, 0.1]), np.array([0.0, 0.0]), np.array([1.0, 1.0])
    )
    assert ra[0] % 360 == pytest.approx(0, abs=1e-9) or ra[0] == pytest.approx(360)
    assert dec[0] == pytest.approx(0, abs=1e-12)
    assert np.isnan(ra[1])
