from __future__ import annotations

import numpy as np
import pytest

from apstream.arrays.footprints import find_footprints
from apstream.arrays.photometry import spline_psfs
from apstream.arrays.trail import fit_trails, footprint_axes

SIGMA, HALF = 1.8, 30


def gaussian(dy, dx, half=HALF):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / SIGMA**2) / (2 * np.pi * SIGMA**2)


def trailed(length, angle, flux=20_000.0, noise=10.0):
    steps = (np.arange(80) + 0.5) / 80 - 0.5
    data = sum(gaussian(1 + t * length * np.sin(angle), t * length * np.cos(angle)) for t in steps) * flux / 80
    data = data + np.random.default_rng(2).normal(scale=noise, size=data.shape)
    return data.astype(np.float32)


@pytest.mark.parametrize(("length", "angle"), [(8.0, 0.3), (30.0, -1.2)])
def test_length_angle_and_flux_are_recovered(length, angle):
    data = trailed(length, angle)[None]
    guess = np.array([[0.0, 0.5, 0.7 * length * np.sin(angle + 0.1), 0.7 * length * np.cos(angle + 0.1)]])
    psf = spline_psfs(gaussian(0, 0, 12)[None], np.zeros(1), np.zeros(1))
    fit = fit_trails(
        data, np.full(data.shape, 100, np.float32), np.ones(data.shape, bool), psf,
        start=guess, sigma=np.array([SIGMA]), reach=np.array([HALF]),
    )[0]  # fmt: skip
    assert fit["converged"]
    assert abs(fit["length"] - length) < 5 * fit["length_err"]
    assert abs(fit["angle"] - angle) < 5 * fit["angle_err"]
    assert abs(fit["flux"] - 20_000) < 5 * fit["flux_err"]
    assert abs(fit["y"] - 1) < 5 * fit["y_err"] + 0.02
    assert 0.9 < fit["chi2"] / fit["n_data"] < 1.1


def test_footprint_axes_show_the_trail():
    data = trailed(24.0, 0.0)
    footprints, labels = find_footprints(data / 10, 5.0, 2.0)
    y, x, iyy, ixx, _ = footprint_axes(data, labels, footprints)[0]
    assert abs(y - HALF - 1) < 0.5
    assert abs(x - HALF) < 0.5
    assert abs(np.sqrt(12 * (ixx - iyy)) / 24 - 1) < 0.2
