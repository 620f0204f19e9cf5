"""Tiled convolution equals the plain one; holes, footprints and masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays import convolve as cv
from apstream.arrays.polynomial import n_terms


def varying_kernel(degree: int, half: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    gauss = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    gauss /= gauss.sum()
    changes = [
        gauss * (a * x + b * y + c * (x**2 - 2)) for a, b, c in rng.normal(0, 0.05, (n_terms(degree) - 1, 3))
    ]
    return np.array([gauss, *changes])


@pytest.mark.parametrize(
    ("shape", "degree", "half"), [((300, 420), 2, 10), ((61, 257), 3, 5), ((40, 40), 0, 15)]
)
def test_tiles_equal_the_plain_sum(shape, degree, half):
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    terms = varying_kernel(degree, half)
    fast, plain = cv.convolve_varying(image, terms), cv.convolve_varying_direct(image, terms)
    np.testing.assert_allclose(fast, plain, atol=3e-4)
    assert fast.dtype == np.float32


def test_kernel_is_smooth_across_tiles():
    image = np.zeros((900, 900), np.float32)
    image[::24, ::24] = 1.0
    terms = varying_kernel(2, 10)
    error = cv.convolve_varying(image, terms) - cv.convolve_varying_direct(image, terms)
    assert np.abs(error).max() < 1e-4


@given(st.integers(25, 90), st.integers(25, 90), st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_delta_kernel_is_identity(ny, nx, half):
    image = np.random.default_rng(ny).normal(size=(ny, nx)).astype(np.float32)
    delta = np.zeros((1, 2 * half + 1, 2 * half + 1))
    delta[0, half, half] = 1
    np.testing.assert_allclose(cv.convolve_varying(image, delta), image, atol=1e-5)


def test_asymmetric_kernel_moves_light_forward():
    image = np.zeros((64, 64), np.float32)
    image[20, 30] = 1
    kernel = np.zeros((1, 7, 7))
    kernel[0, 3 + 2, 3 - 1] = 1
    assert np.unravel_index(cv.convolve_varying(image, kernel).argmax(), image.shape) == (22, 29)


def test_variance_of_flat_noise():
    terms = varying_kernel(2, 6)
    variance = cv.convolve_varying_variance(np.full((120, 130), 9.0, np.float32), terms)
    local = cv.kernel_at(terms, np.array([60.0, 7.0]), np.array([65.0, 120.0]), (120, 130))
    expected = 9 * np.square(local).sum(axis=(1, 2))
    np.testing.assert_allclose([variance[60, 65], variance[7, 120]], expected, rtol=0.01)


def test_polynomial_image_equals_terms():
    coefficients = np.arange(1.0, 11.0)
    image = cv.polynomial_image(coefficients, (31, 44))
    y, x = cv.frame_coordinates(np.array([3]), np.array([40]), (31, 44))
    from apstream.arrays.polynomial import poly_terms

    assert image[3, 40] == pytest.approx(float(coefficients @ poly_terms(y, x, 3)[:, 0]), rel=1e-5)


def test_fill_masked_uses_neighbours_and_default():
    image = np.full((40, 40), 5.0, np.float32)
    image[10, 10] = np.nan
    bad = np.zeros(image.shape, bool)
    bad[20:40, 20:40] = True
    image[20:40, 20:40] = 1e9
    filled = cv.fill_masked(image, bad, radius=3, default=-1)
    assert filled[10, 10] == 5
    assert filled[21, 30] == 5
    assert filled[35, 35] == -1
    assert np.isnan(image[10, 10])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 4), st.floats(0.0, 0.3))
def test_filled_pixels_are_means_of_the_smallest_window_that_holds_a_good_one(seed: int, radius: int, share: float):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(23, 31)).astype(np.float32)
    bad = rng.random(image.shape) >= share**2
    bad[:, rng.integers(31)] |= rng.random(23) < 0.5
    filled = cv.fill_masked(image, bad, radius=radius, default=-9)
    np.testing.assert_allclose(filled, _filled_plainly(image, bad, radius), rtol=1e-4, atol=1e-5)


def _filled_plainly(image, bad, radius):
    out = image.copy()
    for y, x in np.argwhere(bad):
        out[y, x] = -9
        for r in range(1, radius + 1):
            window = np.s_[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]
            if not bad[window].all():
                out[y, x] = image[window][~bad[window]].mean(dtype=float)
                break
    return out


def test_dilation_spreads_only_the_named_bits():
    mask = np.zeros((20, 20), np.int32)
    mask[10, 10] = 5
    shape = cv.footprint(np.array([[0, 0, 0], [0.5, 1, 0], [0, 0, 0.001]]))
    assert shape.shape == (1, 3)
    out = cv.dilate_bits(mask, 1, shape)
    assert out[10, 9] == 1
    assert out[10, 10] == 5
    assert out[10, 11] == 0
