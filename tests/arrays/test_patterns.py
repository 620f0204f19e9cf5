import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.match import clip, mutual_nearest, refine
from apstream.arrays.patterns import PatternLimits, align, confirm
from apstream.arrays.transform import fit_poly_map, fit_similarity, from_affine


def field(seed, n=120, size=1000.0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, size, n), rng.uniform(0, size, n)


def turned(angle, scale, shift):
    a = np.deg2rad(angle)
    return from_affine(scale * np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]), np.array(shift, float))


@given(st.integers(0, 1000), st.floats(-180, 180), st.floats(0.98, 1.02), st.floats(-300, 300), st.floats(-300, 300))
@settings(max_examples=25)
def test_finds_any_similarity_although_lists_differ(seed, angle, scale, dy, dx):
    rng = np.random.default_rng(seed)
    y, x = field(seed)
    truth = turned(angle, scale, (dy, dx))
    ty, tx = truth(y, x)
    keep_first, keep_second = rng.uniform(size=(2, 120)) < 0.8
    first = (y[keep_first] + rng.normal(0, 0.2, keep_first.sum()), x[keep_first])
    other_y, other_x = field(seed + 5000, 30)
    second = (np.r_[other_y[:5], ty[keep_second], other_y[5:]], np.r_[other_x[:5], tx[keep_second], other_x[5:]])
    found = align(first, second, PatternLimits(tolerance=1.5))
    assert found is not None
    got = np.array(found.map(y, x))
    assert np.abs(got - np.array([ty, tx])).max() < 1.0


@given(st.integers(0, 10000))
@settings(max_examples=25)
def test_unrelated_fields_are_not_aligned(seed):
    assert align(field(seed), field(seed + 20000), PatternLimits()) is None


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_few_stars_among_many_are_confirmed_where_they_are(seed):
    rng = np.random.default_rng(seed)
    y, x = field(seed, 150, 300.0)
    few = rng.choice(150, 7, replace=False)
    second = y[few] + 0.9 + rng.normal(0, 0.05, 7), x[few] - 0.6 + rng.normal(0, 0.05, 7)
    found = confirm((y, x), second, PatternLimits())
    assert found is not None
    assert found.n_matched == 7
    got = np.array(found.map(y[few], x[few]))
    assert np.abs(got - np.array(second)).max() < 0.3


@given(st.integers(0, 10000), st.integers(6, 120))
@settings(max_examples=40, deadline=None)
def test_unrelated_fields_are_not_confirmed(seed, n):
    assert confirm(field(seed, 150, 300.0), field(seed + 20000, n, 300.0), PatternLimits()) is None
    assert confirm(field(seed), field(seed + 20000), PatternLimits()) is None


def test_limits_are_obeyed():
    y, x = field(3)
    second = turned(5, 1, (100, 0))(y, x)
    assert align((y, x), second, PatternLimits(max_rotation=6)) is not None
    assert align((y, x), second, PatternLimits(max_rotation=4)) is None
    assert align((y[:2], x[:2]), second, PatternLimits()) is None


def test_refine_recovers_a_curved_map_among_outliers():
    rng = np.random.default_rng(1)
    y, x = field(4, 400)
    ty, tx = y + 2e-6 * x * y + 1.5, x - 1e-6 * x**2 - 0.7
    ty, tx = ty + rng.normal(0, 0.05, 400), tx + rng.normal(0, 0.05, 400)
    spoiled = rng.choice(400, 40, replace=False)
    ty[spoiled] += rng.uniform(0.5, 3, 40)
    found = refine((y, x), (ty, tx), from_affine(np.eye(2), np.zeros(2)), radius=5.0, degree=2)
    assert found.map.degree == 2
    assert found.rms == pytest.approx(0.05, rel=0.15)
    py, px = found.map(y, x)
    assert np.abs(py - (y + 2e-6 * x * y + 1.5)).max() < 0.05
    assert np.abs(px - (x - 1e-6 * x**2 - 0.7)).max() < 0.05


def test_mutual_nearest_pairs_one_to_one():
    i, j = mutual_nearest((np.array([0.0, 0.4, 9.0]), np.zeros(3)), (np.array([0.1, 30.0]), np.zeros(2)), 1.0)
    assert (i.tolist(), j.tolist()) == ([0], [0])
    nothing = mutual_nearest((np.zeros(0), np.zeros(0)), (np.zeros(2), np.zeros(2)), 1.0)
    assert len(nothing[0]) == 0
    assert clip(np.array([1.0, 1.1, 0.9, 1.0, 50.0]), 5.0).tolist() == [True] * 4 + [False]


def test_maps_fit_and_invert():
    y, x = field(7, 50)
    truth = turned(30, 1.01, (5, -8))
    for fitted in (fit_similarity((y, x), truth(y, x)), fit_poly_map((y, x), truth(y, x), 1)):
        np.testing.assert_allclose(fitted(y, x), truth(y, x), atol=1e-8)
    np.testing.assert_allclose(truth.inverted((1000, 1000))(*truth(y, x)), (y, x), atol=1e-8)
    curved = fit_poly_map((y, x), (y + 1e-5 * x**2, x + 1e-5 * y * x), 2)
    np.testing.assert_allclose(curved.inverted((1000, 1000))(*curved(y, x)), (y, x), atol=0.02)
    with pytest.raises(ValueError, match="2 positions"):
        fit_poly_map((y[:2], x[:2]), (y[:2], x[:2]), 1)
