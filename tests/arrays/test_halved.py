"""Half the resolution, and outliers of single pixels, against their plain equivalents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.artifacts import convolve_plain
from apstream.arrays.coadd import ClipLimits, clip_outliers, clip_outliers_plain, masked_median
from apstream.arrays.halved import halved, halved_kernel, halved_noise, halved_plain
from apstream.arrays.psf_match import broadened, half_maximum_width


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_halving_equals_plain(ny, nx, seed):
    rng = np.random.default_rng(seed)
    image, other = rng.normal(size=(2, ny, nx)).astype(np.float32)
    good = rng.uniform(size=(ny, nx)) < 0.8
    holes = np.where(good, image, np.float32(np.nan))
    np.testing.assert_allclose(halved(holes, good, other), halved_plain(np.where(good, image, other)), atol=1e-6)


def test_a_constant_stays_and_white_noise_shrinks_as_told():
    assert halved(np.full((30, 41), 7, np.float32), np.ones((30, 41), bool), np.zeros((30, 41), np.float32)) == (
        pytest.approx(7)
    )
    noise = np.random.default_rng(4).normal(size=(1200, 1200)).astype(np.float32)
    y, x = np.mgrid[-4:5, -4:5]
    kernel = np.exp(-0.5 * (y**2 + x**2) / 1.3**2)
    kernel /= kernel.sum()
    half = halved(noise, np.ones(noise.shape, bool), noise)
    assert convolve_plain(half, kernel).var() == pytest.approx(halved_noise(kernel), rel=0.02)


def spread(profile):
    x = np.arange(len(profile))
    return np.sqrt(np.average((x - np.average(x, weights=profile)) ** 2, weights=profile))


@pytest.mark.parametrize("shift", [(0, 0), (0.5, 0.5), (-0.3, 0.9)])
def test_a_star_becomes_the_halved_kernel_wherever_it_lies(shift):
    y, x = np.mgrid[:64, :64].astype(float)
    star = lambda a, b, s: np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / s**2) / (2 * np.pi * s**2)  # noqa: E731
    sigma, place = 1.4, (32.5 + shift[0], 32.5 + shift[1])
    image = star(*place, sigma).astype(np.float32)
    half = halved(image, np.ones(image.shape, bool), image)
    centred = halved_kernel(star(32, 32, sigma)[1:, 1:])
    assert half.sum() * 4 == pytest.approx(image.sum(), rel=1e-3)
    assert (half.sum(axis=1) @ np.arange(32)) / half.sum() == pytest.approx((place[0] - 0.5) / 2, abs=0.01)
    assert spread(half.sum(axis=0)) == pytest.approx(spread(centred.sum(axis=0)), rel=0.01)


@given(st.integers(3, 8), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_outliers_equal_plain(n, seed):
    rng = np.random.default_rng(seed)
    stack = rng.normal(size=(n, 40, 45)).astype(np.float32)
    variance = rng.uniform(0.5, 2, stack.shape).astype(np.float32)
    stack[:, 18:23, 18:23] += rng.uniform(20, 200)  # a star, of which epochs show more and less
    stack *= rng.uniform(0.9, 1.1, (n, 1, 1)).astype(np.float32)
    for _ in range(12):
        k, y, x = rng.integers(0, (n, 40, 45))
        stack[k, y : y + 2, x : x + 3] += rng.uniform(-20, 40)
    stack[: n // 2 + 1, 30, 30] += 50  # shown by most
    good = rng.uniform(size=stack.shape) < 0.9
    good[:, 5, 5] = False
    stack[~good] = np.nan
    tolerated = np.minimum(np.arange(n + 1) // 3, 2), rng.uniform(0.02, 0.4, n)
    limits = ClipLimits()
    out = np.zeros(stack.shape, bool)
    clip_outliers(stack, variance, good, limits, tolerated, masked_median(stack, good), out)
    plain = clip_outliers_plain(np.where(good, stack, 0), variance, good, limits, tolerated)
    assert out.any()
    assert (out != plain).mean() < 1e-4  # a value on the limit may round either way


@pytest.mark.parametrize("fwhm", [2.8, 3.3, 5.2, 8.0])
def test_widths_of_kernels_are_found_and_made(fwhm):
    y, x = np.mgrid[-30:31, -30:31]
    kernel = np.exp(-4 * np.log(2) * (y**2 + x**2) / fwhm**2)
    assert half_maximum_width(kernel) == pytest.approx(fwhm, rel=0.01)
    assert half_maximum_width(broadened(kernel, 1.3 * fwhm)) == pytest.approx(1.3 * fwhm, abs=1e-3)
