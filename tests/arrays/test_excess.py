"""Excess over the static sky, and edges, against plain equivalents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from apstream.arrays.excess import classify, grow, grown_plain, magnitude, thinned, variance_of_model
from apstream.arrays.neighbours import mark_beside


@given(st.integers(3, 7), st.integers(0, 2**31), st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_what_grows_from_rare_pixels_equals_plain(n, seed, step):
    rng = np.random.default_rng(seed)
    shape = (37, 150)
    matched = rng.normal(size=(n, *shape)).astype(np.float32)
    for _ in range(10):
        k, y, x = rng.integers(0, (n, *shape))
        matched[k, y : y + 3, x : x + 5] += rng.uniform(-12, 12)
    matched[:, 20:23, 60:64] += 9  # all show it
    model, ones = np.zeros(shape, np.float32), np.full(shape, 0.5, np.float32)
    number, rare, reach = np.full(shape, n, np.int16), n // 3, (3, 1)
    states = np.empty(matched.shape, np.uint8)
    thresholds = np.array([5, 2.5, 1.5, 0.05], np.float32)
    for image, state in zip(matched, states, strict=True):
        classify((image, model), (ones, ones), (np.ones(shape, bool), number, ones), thresholds, state)
    assert (states & 1).any()
    good = rng.uniform(size=(shape[0] * step - step + 1, shape[1] * step)) < 0.9
    for k in range(n):
        plain = np.kron(grown_plain(states & 15, k, rare, reach), np.ones((step, step), bool))
        out = np.zeros(good.shape, bool)
        grow(states, k, (number, np.full(n + 1, rare, np.int16)), reach, (step, good, out))
        np.testing.assert_array_equal(out, plain[: good.shape[0], : good.shape[1]] & good)


def test_two_images_are_in_excess_of_nothing():
    image, ones = np.full((4, 70), 100, np.float32), np.ones((4, 70), np.float32)
    state = np.full(image.shape, 7, np.uint8)
    known = (np.ones(image.shape, bool), np.full(image.shape, 2, np.int16), ones)
    classify((image, 0 * ones), (ones, ones), known, np.array([5, 2.5, 1.5, 0.05], np.float32), state)
    assert not state.any()


def test_the_noise_of_a_median_follows_from_those_that_count():
    spread = np.random.default_rng(3).uniform(1, 2, (4, 5, 6)).astype(np.float32)
    number = np.arange(30, dtype=np.int16).reshape(5, 6) % 5
    expected = np.pi / 2 * spread.sum(axis=0) / np.maximum(number, 1) ** 2
    np.testing.assert_allclose(variance_of_model(spread, number), expected, rtol=1e-6)


@pytest.mark.parametrize("step", [1, 2])
def test_thinned_pixels_and_magnitudes_are_those_of_numpy(step):
    image = np.random.default_rng(step).normal(size=(7, 9)).astype(np.float32)
    there = np.random.default_rng(5).uniform(size=image[::step, ::step].shape) < 0.7
    np.testing.assert_array_equal(thinned(image, there, step), np.where(there, image[::step, ::step], 0))
    image[2, 3] = np.nan
    np.testing.assert_array_equal(magnitude(image), np.nan_to_num(np.abs(image)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0])
def test_pixels_beside_empty_ones_are_marked_and_keep_their_other_bits(share):
    rng = np.random.default_rng(6)
    weight = np.where(rng.uniform(size=(41, 140)) < share, 0, 1.5).astype(np.float32)
    mask = rng.integers(0, 4, weight.shape).astype(np.int32)
    empty = weight == 0
    expected = mask | np.where(maximum_filter(empty, 3) & ~empty, 8, 0)
    mark_beside(weight, mask, 8)
    np.testing.assert_array_equal(mask, expected)
