"""Bias levels and read noise: right whatever runs into the overscan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from apstream.arrays.overscan import (
    constant_levels,
    line_levels,
    line_means,
    overscan_noise,
    polynomial_levels,
    smoothed_levels,
    spline_levels,
    trailed_lines,
)

NY, N, SIGMA = 1024, 32, 3.0
X = np.linspace(-1, 1, NY)
DRIFT = 1000 + 4 * np.sin(3 * X) + 12 * np.exp(-np.arange(NY) / 20)  # a slow drift, and settling in the first rows


def overscan(seed: int = 1, drift=DRIFT) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.rint(drift[:, None] + rng.normal(0, SIGMA, (NY, N))).astype(np.float32)


def test_every_row_has_its_level_to_the_noise_of_a_mean():
    levels = line_levels(overscan())
    assert np.std(levels - DRIFT) == pytest.approx(SIGMA / np.sqrt(N), rel=0.1)
    assert abs(np.mean(levels - DRIFT)) < 0.05


def test_hot_columns_do_not_count():
    pixels = overscan()
    pixels[:, 0] += 90
    pixels[:, 7] -= 30
    pixels[300:310, 12] = 60000
    assert np.abs(line_levels(pixels) - DRIFT).max() < 5 * SIGMA / np.sqrt(N)
    assert overscan_noise(pixels) == pytest.approx(SIGMA, rel=0.02)


def test_charge_that_trails_into_rows_does_not_count_and_true_jumps_do():
    pixels, drift = overscan(), DRIFT.copy()
    pixels[500:520] += 400 * np.exp(-np.arange(N) / 6).astype(np.float32)  # from saturated stars at their end
    pixels[600:] += 25  # a jump that the image shares
    pixels[800] += 15  # a row that the image shares
    drift[600:] += 25
    drift[800] += 15
    levels = line_levels(pixels)
    trailed = trailed_lines(pixels, levels)
    assert np.flatnonzero(trailed).tolist() == list(range(500, 520))
    assert np.abs(smoothed_levels(levels, trailed) - drift).max() < 5 * SIGMA / np.sqrt(N)


@pytest.mark.parametrize("kind", ["spline", "chebyshev", "legendre"])
def test_fits_follow_the_drift_closer_than_the_rows_do(kind):
    pixels = overscan(drift=1000 + 4 * np.sin(3 * X))
    pixels[500:520] += 400 * np.exp(-np.arange(N) / 6).astype(np.float32)
    levels = line_levels(pixels)
    trailed = trailed_lines(pixels, levels)
    if kind == "spline":
        fit = spline_levels(levels, trailed)
    else:
        fit = polynomial_levels(levels, trailed, family=kind, order=5)
    rest = fit - 1000 - 4 * np.sin(3 * X)
    assert np.abs(rest).max() < 1.0
    assert np.std(rest) < (0.4 if kind == "spline" else 0.2) * SIGMA / np.sqrt(N)


def test_a_spline_follows_settling_that_a_cubic_does_not():
    levels = line_levels(overscan())
    good = np.zeros(NY, bool)
    spline, cubic = spline_levels(levels, good), polynomial_levels(levels, good, family="chebyshev", order=3)
    assert np.abs(spline - DRIFT).max() < 2.5
    assert np.abs(cubic - DRIFT).max() > 5


def test_without_finite_pixels_there_is_no_level_and_no_noise():
    hollow = np.full((20, 8), np.nan, np.float32)
    levels, good = line_levels(hollow), np.zeros(20, bool)
    assert np.isnan(overscan_noise(hollow))
    for found in (
        constant_levels(levels),
        smoothed_levels(levels, good),
        spline_levels(levels, good),
        polynomial_levels(levels, good, family="legendre", order=2),
    ):
        assert np.isnan(found).all()


def test_a_row_without_pixels_takes_the_level_of_those_around_it():
    pixels = overscan()
    pixels[700] = np.nan
    found = smoothed_levels(line_levels(pixels), np.zeros(NY, bool))
    assert abs(found[700] - DRIFT[700]) < 1


@given(st.integers(0, 99), st.floats(0.7, 20), st.integers(4, 60))
def test_noise_is_right_for_whole_numbers_of_any_scatter(seed, sigma, columns):
    rng = np.random.default_rng(seed)
    pixels = np.rint(rng.uniform(0, 500) + rng.normal(0, sigma, (700, columns))).astype(np.float32)
    assert overscan_noise(pixels) == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.06, abs=0.04)


def test_little_noise_is_not_none():
    pixels = np.rint(np.random.default_rng(1).normal(200, 0.25, (700, 16))).astype(np.float32)
    assert 0.1 < overscan_noise(pixels) < 0.4


def test_a_dead_overscan_has_no_noise():
    assert overscan_noise(np.full((100, 10), 7.0, np.float32)) == 0


def test_means_of_long_and_short_lines_agree_with_numpy():
    rng = np.random.default_rng(0)
    for m in (5, 40, 500):
        lines = rng.normal(100, 2, (30, m)).astype(np.float32)
        np.testing.assert_allclose(line_means(lines, n_sigma=99), lines.mean(axis=1), rtol=1e-5)
        lines[3, ::2] = np.nan
        np.testing.assert_allclose(line_means(lines, n_sigma=99), np.nanmean(lines, axis=1), rtol=1e-5)


def test_the_bad_first_column_of_a_real_nickel_frame_does_no_harm(shared_data: Path):
    pixels = fits.getdata(shared_data / "overscan_frames" / "d1030.fits")[:, 1024:].astype(np.float32)
    clean = pixels[:, 3:]  # the first stands 108 ADU below the others, the next two settle
    assert np.median(pixels[:, 0]) < np.median(clean) - 100
    assert np.abs(line_levels(pixels) - line_levels(clean)).max() < 0.5
    assert overscan_noise(pixels) == pytest.approx(overscan_noise(clean), rel=0.01)
