from __future__ import annotations

import numpy as np
from scipy.signal import correlate

from apstream.arrays.detect import (
    empty_width,
    separable_filters,
    significance,
    tile_centers,
)
from apstream.arrays.footprints import find_footprints


def psf(fwhm: float, half: int = 10) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    kernel = (1 + (y**2 + x**2 + 0.3 * x * y) / alpha**2) ** -3.5
    return kernel / kernel.sum()


def plain_significance(image, variance, usable, kernel):
    """The slow equivalent: direct correlation with the whole PSF."""
    image, variance = (np.where(usable, a, 0).astype(float) for a in (image, variance))
    return correlate(image, kernel, mode="same") / np.sqrt(correlate(variance, kernel**2, mode="same"))


def test_significance_equals_the_plain_matched_filter():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(150, 130)).astype(np.float32)
    variance = rng.uniform(0.8, 1.2, image.shape).astype(np.float32)
    usable = np.ones(image.shape, bool)
    usable[40:50, 60:63] = False
    image[42, 61] = np.nan
    filters = separable_filters(np.repeat(psf(4.0)[None], 9, 0), half=10, tile=64, power=1 - 1e-9)
    snr = significance(image, variance, usable, filters)
    plain = plain_significance(image, variance, usable, psf(4.0))
    np.testing.assert_allclose(snr[usable], plain[usable], atol=2e-4)
    assert np.all(snr[~usable] == 0)


def test_few_terms_lose_almost_no_depth():
    image = np.zeros((64, 64), np.float32)
    image[22:43, 22:43] = 100 * psf(4.0)
    ones = np.ones(image.shape, np.float32)
    filters = separable_filters(psf(4.0)[None], half=6, tile=64)
    best = 100 * np.sqrt(np.sum(psf(4.0) ** 2))
    assert 0.996 * best < significance(image, ones, ones > 0, filters).max() <= best * 1.002
    assert filters.rows.shape[1] <= 3


def test_false_positives_in_noise_match_theory():
    # Density of peaks of a Gaussian field beyond nu: nu exp(-nu^2 / 2) / (2^2.5 pi^1.5 sigma^2) per sign.
    rng = np.random.default_rng(7)
    side, sigma, nu = 1024, 1.7, 4.0
    y, x = np.mgrid[-8:9, -8:9]
    kernel = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    filters = separable_filters(np.repeat((kernel / kernel.sum())[None], 16, 0), half=8, tile=256)
    noise = rng.normal(size=(side, side)).astype(np.float32)
    snr = significance(noise, np.ones_like(noise), noise == noise, filters)
    footprints, _ = find_footprints(snr, nu, 2.0)
    expected = 2 * side**2 * nu * np.exp(-(nu**2) / 2) / (2**2.5 * np.pi**1.5 * sigma**2)
    assert 0.5 < len(footprints) / expected < 2
    assert abs(empty_width(snr) - 1) < 0.02


def test_empty_width_ignores_sources():
    rng = np.random.default_rng(8)
    snr = rng.normal(size=(512, 512)).astype(np.float32)
    snr[::40] += 50
    assert abs(empty_width(snr) - 1) < 0.03
    assert np.isnan(empty_width(np.zeros((20, 20), np.float32)))


def test_tile_centers_cover_the_image():
    y, x = tile_centers((100, 130), 64)
    assert y.tolist() == [31.5] * 3 + [95.5] * 3
    assert x.tolist() == [31.5, 95.5, 159.5] * 2
