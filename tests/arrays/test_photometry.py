from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.photometry import (
    aperture_fluxes,
    fit_points,
    point_fluxes,
    render_psf,
    spline_psfs,
    without_gain,
)


def gaussian(dy: float, dx: float, half: int, sigma: float = 1.8) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


SPLINE = spline_psfs(gaussian(0, 0, 12)[None], np.zeros(1), np.zeros(1))[0]


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_rendered_psf_equals_the_function_it_came_from(dy, dx):
    out = np.empty((3, 15, 15))
    render_psf(SPLINE, dy, dx, out, True)
    np.testing.assert_allclose(out[0], gaussian(dy, dx, 7), atol=2e-5)
    step = 1e-3
    for k, (ay, ax) in enumerate(((step, 0), (0, step)), start=1):
        slope = (gaussian(dy + ay, dx + ax, 7) - gaussian(dy - ay, dx - ax, 7)) / (2 * step)
        np.testing.assert_allclose(out[k], slope, atol=1e-4)


def stamps(flux, dy, dx, noise=0.0, half=15, seed=0):
    rng = np.random.default_rng(seed)
    data = flux * gaussian(dy, dx, half)[None] + rng.normal(scale=max(noise, 1e-9), size=(1, 31, 31))
    return (
        data.astype(np.float32),
        np.full(data.shape, max(noise, 1.0) ** 2, np.float32),
        np.ones(data.shape, bool),
    )


def test_noiseless_fit_recovers_the_source():
    data, variance, good = stamps(1e4, 0.37, -0.61)
    fit = fit_points(data, variance, good, SPLINE[None], half=9, max_shift=3.0)[0]
    assert fit["converged"]
    assert abs(fit["y"] - 0.37) < 1e-3
    assert abs(fit["x"] + 0.61) < 1e-3
    assert abs(fit["flux"] / 1e4 - 1) < 1e-3
    assert fit["n_data"] == 19 * 19


def test_masked_pixels_do_not_bias():
    data, variance, good = stamps(1e4, 0.2, 0.1)
    good[0, 14:16, 12:20] = False
    data[0, 14:16, 12:20] = -1e6
    fit = fit_points(data, variance, good, SPLINE[None], half=9, max_shift=3.0)[0]
    assert abs(fit["flux"] / 1e4 - 1) < 1e-3
    assert fit["coverage"] < 0.9


def test_a_fit_without_a_source_falls_back_to_the_middle():
    data, variance, good = stamps(0.0, 0.0, 0.0, noise=1.0, seed=1)
    data[0, 15, 15] -= 0  # pure noise: the fit may wander off, or not
    good[:] = False
    fit = fit_points(data, variance, good, SPLINE[None], half=9, max_shift=1.0)[0]
    assert not fit["converged"]
    assert (fit["y"], fit["x"]) == (0, 0)
    assert np.isnan(fit["flux"])


def test_flux_error_is_that_of_an_optimal_fit():
    data, variance, good = stamps(500.0, 0.0, 0.0, noise=3.0)
    flux = point_fluxes(data, variance, good, SPLINE[None], y=np.zeros(1), x=np.zeros(1), half=12)[0]
    assert np.isclose(flux["flux_err"], 3.0 / np.sqrt(np.sum(gaussian(0, 0, 12) ** 2)), rtol=1e-3)


@pytest.mark.parametrize(("snr", "sign"), [(6, 1), (10, -1)])
def test_the_flux_at_a_fitted_position_is_unbiased(snr, sign):
    err, n = 1 / np.sqrt(np.sum(gaussian(0, 0, 9) ** 2)), 4000
    rng = np.random.default_rng(8)
    clean = sign * snr * err * gaussian(0.2, -0.1, 9)
    data = (clean + rng.normal(size=(n, 19, 19))).astype(np.float32)
    ones = np.ones_like(data)
    fit = fit_points(data, ones, ones > 0, np.repeat(SPLINE[None], n, axis=0), half=9, max_shift=4.0)
    pull = (without_gain(fit["flux"], fit["flux_err"]) / sign - snr * err) / fit["flux_err"]
    assert fit["converged"].mean() > 0.97
    assert abs(pull.mean()) < 3 / np.sqrt(n)  # as fitted: 1 / snr


def test_aperture_has_the_area_of_a_circle():
    ones = np.ones((1, 41, 41), np.float32)
    flux, error, coverage = aperture_fluxes(ones, ones, ones > 0, y=[0.3], x=[-0.2], radius=12.0)
    assert abs(flux[0] / (np.pi * 144) - 1) < 0.01
    assert abs(error[0] / np.sqrt(np.pi * 144) - 1) < 0.02
    assert coverage[0] > 0.99
