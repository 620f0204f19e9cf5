from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.signal import correlate

from apstream.arrays.detect import (
    empty_width,
    find_footprints,
    paint_signs,
    separable_filters,
    significance,
    tile_centers,
)


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


def test_footprints_merge_signs_and_know_both_lobes():
    snr = np.zeros((40, 50), np.float32)
    snr[10, 10:13] = 6, 9, 6
    snr[10, 15:18] = -6, -12, -6
    snr[30, 40] = 5.5
    footprints, labels = find_footprints(snr, 5.0, 2.0)
    assert len(footprints) == 2
    dipole, single = footprints
    assert (dipole["y"], dipole["x"], dipole["snr"]) == (10, 16, -12)
    assert (dipole["pos_x"], dipole["pos_snr"], dipole["neg_x"]) == (11, 9, 16)
    assert (dipole["n_pixels"], dipole["n_peaks"]) == (6, 2)
    assert (single["snr"], single["neg_snr"]) == (5.5, 0)
    assert (single["y0"], single["x0"], single["y1"], single["x1"]) == (28, 38, 33, 43)
    assert labels[10, 13] == dipole["label"]
    assert labels[0, 0] == 0


@pytest.mark.parametrize("grow", [1.0, 2.3])
def test_labels_equal_those_of_scipy(grow):
    rng = np.random.default_rng(2)
    snr = rng.normal(size=(120, 90)).astype(np.float32)
    footprints, labels = find_footprints(snr, 3.0, grow)
    _, count = label(labels > 0, np.ones((3, 3)))
    assert len(footprints) == count
    assert sorted(np.unique(labels[labels > 0])) == list(range(1, count + 1))
    assert footprints["n_pixels"].sum() == np.count_nonzero(np.abs(snr) >= 3)


def test_signs_are_painted_into_the_mask():
    snr = np.zeros((20, 20), np.float32)
    snr[5, 5], snr[5, 6] = 8, -7
    _, labels = find_footprints(snr, 5.0, 1.0)
    mask = paint_signs(np.full(snr.shape, 2 | 64, np.int32), snr, labels, positive=32, negative=64)
    assert mask[5, 5] == 2 | 32
    assert mask[5, 6] == 2 | 64
    assert mask[15, 15] == 2


def test_tile_centers_cover_the_image():
    y, x = tile_centers((100, 130), 64)
    assert y.tolist() == [31.5] * 3 + [95.5] * 3
    assert x.tolist() == [31.5, 95.5, 159.5] * 2
