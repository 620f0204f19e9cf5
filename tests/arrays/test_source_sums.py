"""Sums over stamps, ranks and masks are what their plain equivalents give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from apstream.arrays.background import evaluate_mesh, subtract_mesh
from apstream.arrays.masks import clear_of, dilate, mark
from apstream.arrays.peaks import find_peaks
from apstream.arrays.source_sums import circle_sums, kron_sums, ring_medians
from apstream.arrays.stats import nth_value


def stamps(seed: int, side: int = 27):
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side] - side // 2
    y, x = rng.uniform(-0.5, 0.5, (2, 12))
    shape = np.column_stack([rng.uniform(2, 6, 12), rng.uniform(2, 6, 12), rng.uniform(-1, 1, 12)])
    dy, dx = rows - y[:, None, None], cols - x[:, None, None]
    light = 1e4 * np.exp(-0.5 * (dy**2 / shape[:, :1, None] + dx**2 / shape[:, 1:2, None]))
    data = (light + rng.normal(0, 30, (12, side, side))).astype(np.float32)
    variance = rng.uniform(500, 1500, data.shape).astype(np.float32)
    return data, variance, rng.random(data.shape) > 0.03, y, x, shape, rows, cols


def test_circles_are_sums_of_pixels_by_how_far_they_reach_inside():
    data, variance, good, y, x, _, rows, cols = stamps(1)
    radii = np.array([2.0, 5.5, 12.0])
    flux, error = circle_sums(data, variance, good, y=y, x=x, radii=radii)
    for n in range(len(data)):
        gap = np.hypot(rows - y[n], cols - x[n])
        for k, radius in enumerate(radii):
            part = np.clip(radius + 0.5 - gap, 0, 1) * good[n]
            assert flux[n, k] == pytest.approx(np.sum(part * data[n]), rel=1e-5)
            assert error[n, k] == pytest.approx(np.sqrt(np.sum(part**2 * variance[n])), rel=1e-5)


def test_kron_sums_are_those_along_the_ellipse():
    data, variance, good, y, x, shape, rows, cols = stamps(2)
    shape[3] = np.nan
    found = kron_sums(data, variance, good, y=y, x=x, shape=shape)
    assert np.isnan(found[3]).all()
    for n in np.delete(np.arange(len(data)), 3):
        (yy, xx, yx), dy, dx = shape[n], rows - y[n], cols - x[n]
        det = yy * xx - yx**2
        gap, size = np.sqrt((xx * dy**2 + yy * dx**2 - 2 * yx * dy * dx) / det), det**0.25
        near = good[n] & (gap < 6)
        radius = np.clip(np.sum((gap * data[n])[near]) / np.sum(data[n][near]), 1, 3)
        part = np.clip((2.5 * radius - gap) * size + 0.5, 0, 1) * good[n]
        error, area = np.sqrt(np.sum(part**2 * variance[n])), np.pi * (2.5 * radius * size) ** 2
        want = np.sum(part * data[n]), error, radius * size, min(part.sum() / area, 1)
        np.testing.assert_allclose(found[n], want, rtol=1e-4)


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)), st.data())
def test_the_nth_value_is_that_of_the_sorted_ones(values, data):
    n = data.draw(st.integers(0, len(values) - 1))
    assert nth_value(values, n) == np.sort(values)[n]


def test_rings_are_ranked_from_good_pixels_beyond_the_inner_radius():
    data, _, good, *_, rows, cols = stamps(3)
    level, error = ring_medians(data, good, inner=7.0)
    every_second = (np.add.outer(np.arange(27) // 2 % 2, np.arange(27)) % 2 == 0) & (np.arange(27)[:, None] % 2 == 0)
    for n in range(len(data)):
        ring = np.sort(data[n][good[n] & every_second & (rows**2 + cols**2 > 49)])
        assert level[n] == ring[len(ring) // 2]
        width = (ring[int(0.84 * len(ring))] - ring[int(0.16 * len(ring))]) / 2
        assert error[n] == pytest.approx(1.2533 * width / np.sqrt(len(ring)), rel=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.9])
@pytest.mark.parametrize("radius", [0, 1, 4])
def test_masks_grow_as_scipy_grows_them(density: float, radius: int):
    flags = np.random.default_rng(4).random((90, 170)) < density
    plain = ndimage.maximum_filter(flags, 2 * radius + 1, mode="constant", cval=False)
    np.testing.assert_array_equal(dilate(flags, radius), plain)


def test_bits_are_told_and_set_pixel_by_pixel():
    rng = np.random.default_rng(5)
    mask, where = rng.integers(0, 64, (30, 41)).astype(np.int32), rng.random((30, 41)) < 0.3
    np.testing.assert_array_equal(clear_of(mask, 5), (mask & 5) == 0)
    np.testing.assert_array_equal(mark(mask, where, 8), np.where(where, mask | 8, mask & ~8))


def test_peaks_are_the_largest_within_their_radius():
    smooth = ndimage.gaussian_filter(np.random.default_rng(6).normal(0, 1, (150, 203)), 2).astype(np.float32)
    threshold = np.array([[0.05, 0.1, 0.3], [0.2, 0.15, 0.02]], np.float32)
    y, x = find_peaks(smooth, threshold, cell=75, radius=3)
    rows, cols = np.mgrid[:150, :203]
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= 3
    largest = smooth == ndimage.maximum_filter(smooth, footprint=disc, mode="nearest")
    largest &= smooth > threshold[rows // 75, cols // 75]
    largest[[0, -1]] = largest[:, [0, -1]] = False
    order = np.lexsort((x, y))
    np.testing.assert_array_equal(np.column_stack([y, x])[order], np.argwhere(largest))
    assert np.all(np.diff(smooth[y, x]) <= 0)


def test_a_mesh_is_subtracted_as_it_is_evaluated():
    rng = np.random.default_rng(7)
    mesh, image = rng.normal(100, 5, (3, 5)).astype(np.float32), rng.normal(100, 9, (150, 203)).astype(np.float32)
    want = image - evaluate_mesh(mesh, cell=50, shape=image.shape)
    subtract_mesh(image, mesh, cell=50)
    np.testing.assert_allclose(image, want, atol=1e-3)
