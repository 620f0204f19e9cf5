from __future__ import annotations

import numpy as np
import pytest

from apstream.arrays.dipole import dipole_share, fit_dipoles
from apstream.arrays.photometry import fit_points, spline_psfs


def gaussian(dy, dx, half=15, sigma=1.8):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


SPLINE = spline_psfs(gaussian(0, 0)[None], np.zeros(1), np.zeros(1))


def fit(separation, positive, negative, prior_error, noise=10.0):
    rng = np.random.default_rng(1)
    data = positive * gaussian(0.1, separation / 2) - negative * gaussian(0.1, -separation / 2)
    data = (data + rng.normal(scale=noise, size=data.shape))[None].astype(np.float32)
    variance, good = np.full(data.shape, noise**2, np.float32), np.ones(data.shape, bool)
    lobes = np.array([[0, 2, 0, -2]], float)
    prior = np.array([[positive, prior_error * positive, negative, prior_error * negative]])
    dipole = fit_dipoles(data, variance, good, SPLINE, lobes=lobes, prior=prior, half=10)
    single = fit_points(data, variance, good, SPLINE, half=10, max_shift=5.0)
    return dipole, dipole_share(dipole, single["chi2"])[0]


@pytest.mark.parametrize(("separation", "prior"), [(5.0, np.inf), (5.0, 0.2), (0.4, 0.1)])
def test_lobes_are_recovered(separation, prior):
    dipole, share = fit(separation, 20_000, 19_500, prior)
    row = dipole[0]
    assert row["converged"]
    assert abs(np.hypot(row["pos_y"] - row["neg_y"], row["pos_x"] - row["neg_x"]) / separation - 1) < 0.15
    assert abs(row["pos_flux"] - row["neg_flux"] - 500) < 6 * row["diff_err"]
    assert abs((row["pos_y"] + row["neg_y"]) / 2 - 0.1) < 5 * row["center_y_err"] + 0.02
    assert 0.8 < row["chi2"] / row["n_data"] < 1.2
    assert share < 0.775


def test_a_point_source_explains_itself():
    _, share = fit(0.0, 20_000, 10_000, 0.1)
    assert share > 0.95
