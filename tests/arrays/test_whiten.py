"""Whitening makes the noise white, keeps the flux; noise is measured where there is only sky."""

from __future__ import annotations

import numpy as np
import pytest

from apstream.arrays import convolve as cv
from apstream.arrays import kernel as kn
from apstream.arrays import noise as ns
from apstream.arrays import whiten as wh


def difference_noise(size: int = 400, s1: float = 3.0, s2: float = 4.0):
    rng = np.random.default_rng(5)
    kernel = kn.gaussian_basis((0.9,), (0,), 8).functions[0] * 1.5
    convolved = cv.convolve_varying((s2 * rng.normal(size=(size, size))).astype(np.float32), kernel[None])
    return kernel, (s1 * rng.normal(size=(size, size))).astype(np.float32) - convolved


def covariance(image: np.ndarray) -> tuple[float, float, float]:
    inner = image[20:-20, 20:-20]
    v = inner.var()
    return v, (inner[:, 1:] * inner[:, :-1]).mean() / v, (inner[1:] * inner[:-1]).mean() / v


def test_noise_becomes_white():
    kernel, noise = difference_noise()
    assert covariance(noise)[1] > 0.1
    whitening = wh.whitening_kernels(kernel[None], np.array([9.0]), np.array([16.0]), half=12)
    assert whitening[0].sum() == pytest.approx(1)
    variance, cx, cy = covariance(cv.convolve_varying(noise, whitening))
    assert variance == pytest.approx(9 + 1.5**2 * 16, rel=0.03)
    assert abs(cx) < 0.02
    assert abs(cy) < 0.02


def test_kernel_terms_go_through_linear_kernels():
    y, x = wh.grid_positions((100, 200), 4)
    ty, _tx = cv.frame_coordinates(y, x, (100, 200))
    a, b = np.random.default_rng(0).normal(size=(2, 5, 5))
    terms = wh.fit_kernel_terms(a + ty[:, None, None] * b, y, x, (100, 200), 1)
    np.testing.assert_allclose(terms, [a, np.zeros((5, 5)), b], atol=1e-12)


def test_local_medians_skip_bad_pixels():
    image = np.full((80, 80), 2.0, np.float32)
    image[:40] = np.nan
    medians = wh.local_medians(image, np.isfinite(image), 2)
    np.testing.assert_allclose(medians, 2)
    assert np.isnan(wh.local_medians(image, np.zeros(image.shape, bool), 2)).all()


def test_crop_keeps_the_sum():
    kernels = np.random.default_rng(0).random((3, 11, 11))
    np.testing.assert_allclose(wh.crop_kernels(kernels, 3).sum(axis=(1, 2)), kernels.sum(axis=(1, 2)))


def test_noise_scale_measures_underestimated_variance():
    rng = np.random.default_rng(2)
    image = (2 * rng.normal(size=(500, 500))).astype(np.float32)
    blank = np.ones(image.shape, bool)
    y, x = np.mgrid[-7:8, -7:8]
    psf = np.exp(-0.5 * (x**2 + y**2) / 1.7**2)
    scale = ns.noise_scale(image, np.ones_like(image), blank, psf / psf.sum())
    assert scale.pixel == pytest.approx(4, rel=0.03)
    assert scale.flux == pytest.approx(4, rel=0.1)
    assert abs(scale.correlation) < 0.02
    assert np.isnan(ns.noise_scale(image, np.ones_like(image), ~blank, psf).flux)


def test_residual_background_is_a_polynomial_fit():
    rng = np.random.default_rng(2)
    coefficients = np.array([3.0, 1.0, -2.0, 0.5, 0.0, 1.0])
    image = cv.polynomial_image(coefficients, (512, 512)) + rng.normal(size=(512, 512)).astype(np.float32)
    image[100:140, 200:260] += 500
    found = ns.residual_background(image, np.ones(image.shape, bool), degree=2)
    np.testing.assert_allclose(found, coefficients, atol=0.2)


def test_mismatch_is_found_at_bright_stars():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-0.5 * (x**2 + y**2) / 1.7**2) / (2 * np.pi * 1.7**2)
    model = np.zeros((400, 400), np.float32)
    rows = np.arange(30, 380, 40)
    at = tuple(v.ravel() for v in np.meshgrid(rows, rows))
    for a, b in zip(*at, strict=True):
        model[a - 10 : a + 11, b - 10 : b + 11] += 2e5 * psf
    variance = (100 + model).astype(np.float32)
    clean = (rng.normal(size=model.shape) * np.sqrt(variance)).astype(np.float32)
    assert ns.mismatch_fraction((clean, variance, model), at, psf, limit=0.05) < 2e-3
    dipole = 0.03 * (np.roll(model, 1, axis=0) - np.roll(model, -1, axis=0))
    assert ns.mismatch_fraction((clean + dipole, variance, model), at, psf, limit=0.05) > 5e-3


def test_resampled_noise_becomes_white_too():
    rng = np.random.default_rng(8)
    blur = np.array([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]])[None]
    resampled = cv.convolve_varying(rng.normal(size=(500, 500)).astype(np.float32), blur) * np.float32(4)
    variance, blank = np.full(resampled.shape, 16.0, np.float32), np.ones(resampled.shape, bool)
    measured = ns.autocorrelation(resampled, variance, blank)
    assert measured[3, 3] == pytest.approx(np.sum(blur**2), rel=0.03)
    assert measured.sum() == pytest.approx(1, abs=0.15)
    kernel = kn.gaussian_basis((0.7,), (0,), 6).functions
    noise = (3 * rng.normal(size=resampled.shape)).astype(np.float32)
    noise -= cv.convolve_varying(resampled, kernel)
    white = np.zeros_like(measured)
    white[3, 3] = 1
    levels = np.array([9.0]), np.array([16.0])
    whitening = wh.whitening_kernels(kernel, *levels, half=12, noise=(white, measured))
    _, cx, cy = covariance(cv.convolve_varying(noise, whitening))
    assert abs(cx) < 0.03
    assert abs(cy) < 0.03
    assert ns.autocorrelation(resampled, variance, ~blank)[3, 3] == 1
