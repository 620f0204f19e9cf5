"""Background, peaks, moments, stellar locus, masks and robust statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, maximum_filter
from starfield import add_stamp, moffat

from apstream.arrays.background import evaluate_mesh, measure_mesh
from apstream.arrays.masks import dilate, split_usable
from apstream.arrays.moments import adaptive_moments
from apstream.arrays.peaks import find_peaks, gaussian_smooth, matched_noise
from apstream.arrays.sources import Sky, flags_near, source_mask
from apstream.arrays.stars import contamination, stellar_locus, stellar_size
from apstream.arrays.stats import clip_mask, clipped_median, mad_sigma, mode_of


def gaussian_star(y, x, *, sigma, flux=1000.0, size=61, e=0.0):
    image = np.zeros((size, size))
    sy, sx = sigma * np.sqrt(1 - e), sigma * np.sqrt(1 + e)
    add_stamp(
        image, y, x, 25, lambda a, b: np.exp(-0.5 * ((a / sy) ** 2 + (b / sx) ** 2)) / (2 * np.pi * sy * sx), flux
    )
    return image.astype(np.float32)


@pytest.mark.parametrize("cell", [32, 50])
def test_a_sloping_sky_is_followed_to_the_edges(cell):
    y, x = np.mgrid[:200, :300]
    truth = 500 + 0.15 * x - 0.1 * y + 0.0005 * x * y
    image = (truth + np.random.default_rng(1).normal(0, 5, truth.shape)).astype(np.float32)
    image[40:60, 40:60] = np.nan
    mesh, rms = measure_mesh(image, np.zeros(image.shape, bool), cell=cell)
    model = evaluate_mesh(mesh, cell=cell, shape=image.shape)
    inner = (slice(20, 180), slice(20, 280))
    assert np.abs((model - truth)[inner]).max() < 4
    assert np.abs(model - truth).max() < 15
    assert np.median(rms) == pytest.approx(5, rel=0.4)


def test_a_mesh_of_one_cell_is_a_constant():
    model = evaluate_mesh(np.array([[7.0]], np.float32), cell=128, shape=(30, 40))
    assert model.shape == (30, 40)
    assert np.all(model == 7)


def test_smoothing_equals_scipy():
    image = np.random.default_rng(2).normal(size=(50, 70)).astype(np.float32)
    assert np.allclose(gaussian_smooth(image, 1.6), gaussian_filter(image, 1.6, mode="constant", radius=6), atol=2e-5)


def test_noise_peaks_are_as_rare_as_the_threshold_says():
    image = np.random.default_rng(3).normal(0, 10, (400, 400)).astype(np.float32)
    noise = matched_noise(np.full((4, 4), 10, np.float32), 1.7)
    smooth = gaussian_smooth(image, 1.7)
    assert smooth[10:-10, 10:-10].std() == pytest.approx(noise[0, 0], rel=0.03)
    assert len(find_peaks(smooth, (5 * noise).astype("f4"), cell=100, radius=2)[0]) <= 1
    y, x = find_peaks(smooth, (2 * noise).astype("f4"), cell=100, radius=2)
    assert len(y) > 50
    assert np.all(np.diff(smooth[y, x]) <= 0)


def test_a_plateau_is_one_peak():
    image = np.zeros((20, 20), np.float32)
    image[5:8, 5:9] = 3
    y, _ = find_peaks(image, np.ones((1, 1), np.float32), cell=20, radius=4)
    assert len(y) == 1


@given(st.floats(29, 31), st.floats(29, 31), st.floats(1.4, 3.0), st.floats(-0.3, 0.3))
def test_adaptive_moments_are_those_of_a_gaussian(y, x, sigma, e):
    image = gaussian_star(y, x, sigma=sigma, e=e)
    m = adaptive_moments(image, np.zeros(image.shape, bool), y=np.array([30.0]), x=np.array([30.0]), sigma=1.7)[0]
    assert (m["y"], m["x"]) == pytest.approx((y, x), abs=0.01)
    assert m["yy"] == pytest.approx(sigma**2 * (1 - e) + 1 / 12, rel=0.02)  # the pixel adds 1/12
    assert m["xx"] == pytest.approx(sigma**2 * (1 + e) + 1 / 12, rel=0.02)
    assert m["flux"] == pytest.approx(1000, rel=0.02)


def test_moments_of_nothing_are_nan():
    flat = np.zeros((40, 40), np.float32)
    m = adaptive_moments(flat, np.zeros(flat.shape, bool), y=np.array([20.0, 0.0]), x=np.array([20.0, 0.0]), sigma=2)
    assert np.all(np.isnan(m["yy"]))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_stellar_locus_is_found_among_galaxies_and_rays(share):
    rng = np.random.default_rng(4)
    n, galaxies, rays = 200, int(200 * share / (1 - share)), 60
    size = np.concatenate([rng.normal(1.5, 0.02, n), 1.5 * rng.uniform(1.15, 4, galaxies), rng.uniform(0.2, 1, rays)])
    snr = np.concatenate([rng.pareto(0.8, n), 0.3 * rng.pareto(0.8, galaxies), rng.pareto(1, rays)]) * 30 + 20
    assert stellar_size(size, snr) == pytest.approx(1.5, rel=0.05)
    places = rng.uniform(-1, 1, (2, len(size)))
    chosen, expected = stellar_locus(size, snr, ty=places[0], tx=places[1])
    assert chosen[:n].mean() > 0.85
    assert chosen[n:].mean() < 0.15
    assert np.median(expected) == pytest.approx(1.5, rel=0.03)


def test_the_locus_follows_the_field():
    rng = np.random.default_rng(5)
    tx, ty = rng.uniform(-1, 1, (2, 300))
    size = 2 * (1 + 0.08 * tx + 0.05 * ty**2) * np.exp(rng.normal(0, 0.01, 300))
    chosen, expected = stellar_locus(size, np.full(300, 200.0), ty=ty, tx=tx)
    assert chosen.mean() > 0.9
    assert np.abs(expected / size - 1)[chosen].max() < 0.05


def test_no_sources_have_no_locus():
    chosen, expected = stellar_locus(np.full(3, np.nan), np.ones(3), ty=np.zeros(3), tx=np.zeros(3))
    assert not chosen.any()
    assert np.all(np.isnan(expected))


def test_contamination_counts_bright_neighbours():
    y, x, flux = np.array([0.0, 0, 100]), np.array([0.0, 3, 0]), np.array([100.0, 10, 50])
    light = contamination(y, x, flux, radius=20, scale=4)
    assert light[0] == pytest.approx(0.1 * np.exp(-9 / 32))
    assert light[1] == pytest.approx(10 * np.exp(-9 / 32))
    assert light[2] == 0


def test_the_source_mask_leaves_sky_in_a_crowded_field():
    rng = np.random.default_rng(6)
    image = rng.normal(0, 1, (200, 200))
    for y, x in rng.uniform(0, 200, (600, 2)):
        add_stamp(image, y, x, 12, lambda a, b: np.exp(-0.5 * (a**2 + b**2) / 9), 30)
    covered = source_mask(image.astype("f4"), Sky(np.ones((1, 1), np.float32), 200), fwhm=7, n_sigma=3, grow=7)
    assert 0.1 < covered.mean() <= 0.4


@given(st.integers(0, 5), st.integers(0, 1000))
def test_dilation_equals_scipy(radius, seed):
    flags = np.random.default_rng(seed).uniform(size=(23, 31)) < 0.02
    expected = maximum_filter(flags.astype(np.uint8), size=2 * radius + 1, mode="constant").astype(bool)
    assert np.array_equal(dilate(flags, radius), expected)


def test_usable_pixels_are_told_from_others():
    image = np.array([[1, np.nan, 3, 4]], np.float32)
    variance = np.array([[1, 1, np.inf, 2]], np.float32)
    mask = np.array([[0, 0, 0, 2]], np.int32)
    data, noise, bad, flags = split_usable(image, variance, mask, bits=2, no_data=256)
    assert list(data[0]) == [1, 0, 3, 4]
    assert list(bad[0]) == [False, True, True, True]
    assert list(flags[0]) == [0, 256, 0, 2]
    assert noise[0, 0] == 1
    assert np.all(np.isnan(noise[0, 1:]))


def test_flags_near_joins_the_bits_in_reach():
    mask = np.zeros((20, 20), np.int32)
    mask[10, 12], mask[3, 3] = 4, 1
    got = flags_near(mask, y=np.array([10.0, 10.0, -50.0]), x=np.array([10.0, 8.0, 0.0]), radius=2.0)
    assert list(got) == [4, 0, 0]


@given(st.integers(0, 500))
def test_clipping_ignores_outliers_and_nan(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(10, 1, 400), [1e6, -1e6, np.nan]])
    keep = clip_mask(values)
    assert not keep[400:].any()
    assert keep[:400].sum() > 320
    assert mad_sigma(values) == pytest.approx(1, rel=0.4)
    rows = clipped_median(np.vstack([values, np.full(403, np.nan)]))
    assert rows[0] == pytest.approx(10, abs=0.5)
    assert np.isnan(rows[1])


def test_the_mode_is_where_values_pile_up():
    rng = np.random.default_rng(8)
    values = np.concatenate([rng.normal(0, 0.05, 100), rng.uniform(-5, 5, 300)])
    assert mode_of(values, bandwidth=0.05) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("fwhm", [0.9, 1.2, 1.7])
def test_moments_of_undersampled_stars_are_found_wherever_they_lie_in_their_pixel(fwhm):
    rng = np.random.default_rng(8)
    image = np.zeros((200, 200))
    y, x = np.array([g.ravel() for g in np.mgrid[15:190:20, 15:190:20]]) + rng.uniform(-0.5, 0.5, (2, 81))
    for a, b in zip(y, x, strict=True):
        add_stamp(image, a, b, 9, lambda p, q: moffat(p, q, fwhm), 1000.0)
    m = adaptive_moments(image.astype("f4"), np.zeros(image.shape, bool), y=np.rint(y), x=np.rint(x), sigma=1.0)
    size = np.sqrt((m["yy"] + m["xx"]) / 2)
    assert np.isfinite(size).mean() > 0.97
    assert np.nanmedian(size) == pytest.approx(np.hypot(fwhm / 2.355, 0.29), rel=0.12)
    assert np.nanstd(size) < 0.2 * np.nanmedian(size)
    assert np.nanmedian(np.hypot(m["y"] - y, m["x"] - x)) < 0.12
