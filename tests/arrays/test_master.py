from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.master import clipped_mean, noise_excess


def plain_mean(values, weights, noise2, photon, n_sigma, iterations=5):
    """One pixel, as the docstring of `clipped_mean` says it."""
    finite = np.isfinite(values)
    values, weights, noise2, photon = (one[finite].astype(float) for one in (values, weights, noise2, photon))
    if len(values) == 0:
        return np.nan, 0
    centre = values.min() if len(values) == 2 else np.median(values)
    own = 1.482602218505602 * np.median(np.abs(values - centre)) if len(values) >= 5 else 0.0
    keep = np.ones(len(values), bool)
    for _ in range(iterations if len(values) != 2 else 1):
        variance = (noise2 + photon * max(centre, 0)) * (2 if len(values) == 2 else 1)
        good = np.abs(values - centre) <= n_sigma * np.maximum(np.sqrt(variance), own)
        if not good.any():
            break
        same, keep = np.array_equal(good, keep), good
        mean = np.average(values[keep], weights=weights[keep])
        if same:
            break
        centre = mean
    return mean, keep.sum()


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_kernel_is_what_its_words_say(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cube = rng.normal(20, 3, (count, 40)).astype(np.float32)
    cube[rng.random(cube.shape) < 0.1] += 500
    cube[rng.random(cube.shape) < 0.1] = np.nan
    weights, noise2, photon = rng.uniform(0.5, 2, count), rng.uniform(3, 9, count), rng.uniform(0, 0.2, count)
    mean, _, kept = clipped_mean(cube, weights, noise2, photon, n_sigma=4.0)
    for p in range(cube.shape[1]):
        expected, number = plain_mean(cube[:, p], weights, noise2, photon, 4.0)
        assert mean[p] == pytest.approx(expected, rel=1e-5, nan_ok=True)
        assert kept[p] == number


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_cosmic_rays_do_not_survive_and_the_error_is_that_of_the_mean(count: int) -> None:
    rng = np.random.default_rng(count)
    cube = rng.normal(0, 5, (count, 20_000)).astype(np.float32)
    hit = rng.integers(0, count, 2000)
    cube[hit, np.arange(2000)] += rng.uniform(100, 5000, 2000).astype(np.float32)
    ones = np.ones(count)
    mean, error, kept = clipped_mean(cube, ones, 25 * ones, 0 * ones, n_sigma=4.0)
    assert np.all(kept[:2000] < count)
    assert kept[:2000].mean() == pytest.approx(count - 1, abs=0.01)
    assert mean[:2000].std() == pytest.approx(5 / np.sqrt(count - 1), rel=0.08)
    assert mean[2000:].std() == pytest.approx(np.median(error[2000:]), rel=0.05)
    assert abs(mean[2000:].mean()) < 0.15


def test_pixels_that_are_restless_are_not_clipped_to_death() -> None:
    rng = np.random.default_rng(3)
    cube = rng.normal(100, 50, (15, 4000)).astype(np.float32)
    ones = np.ones(15)
    _, error, kept = clipped_mean(cube, ones, 4 * ones, 0 * ones, n_sigma=4.0)
    assert kept.mean() > 14.5
    assert np.median(error) == pytest.approx(50 / np.sqrt(15), rel=0.15)


def test_the_excess_is_measured_whatever_the_structure() -> None:
    rng = np.random.default_rng(4)
    scene = rng.uniform(100, 1000, 5000)
    sigma = np.sqrt(25 + 0.5 * scene)
    cube = (scene + 1.5 * sigma * rng.standard_normal((6, 5000))).astype(np.float32)
    assert noise_excess(cube, np.full(6, 25.0), np.full(6, 0.5)) == pytest.approx(1.5, rel=0.05)
    assert noise_excess(cube[:1], np.full(1, 25.0), np.full(1, 0.5)) == 1.0
