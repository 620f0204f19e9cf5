"""Bases conserve the sum; the fit recovers a known varying kernel and rejects what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from apstream.arrays import convolve as cv
from apstream.arrays import kernel as kn
from apstream.arrays import kernel_fit as kf
from apstream.arrays.star_stamps import clean_positions, cut_stamps, spread_evenly


@pytest.mark.parametrize("basis", [kn.gaussian_basis((0.7, 1.4, 2.8), (4, 3, 2), 9), kn.delta_basis(3)])
def test_bases_conserve_the_sum(basis):
    sums = basis.functions.sum(axis=(1, 2))
    assert sums[0] == pytest.approx(1)
    np.testing.assert_allclose(sums[1:], 0, atol=1e-12)


def test_widths_follow_the_psfs():
    assert kn.matching_sigmas(4.0, 4.0)[0] == pytest.approx(0.48)
    narrow, wide = kn.matching_sigmas(8.0, 4.0)[0], kn.matching_sigmas(8.0, 4.0)[-1]
    assert narrow < np.sqrt(48) / 2.3548 < wide


def test_roughness_is_zero_sum_free_for_smooth_kernels():
    basis = kn.gaussian_basis((1.0, 3.0), (0, 0), 9).functions
    rough = kn.roughness(np.stack([basis[0], basis[0] + basis[1]]))
    assert rough[0, 0] > rough[1, 1] * 0.5


def scene(seed: int = 3, size: int = 420, n: int = 90):
    rng = np.random.default_rng(seed)
    y, x = (rng.uniform(30, size - 30, n) for _ in range(2))
    flux = rng.uniform(2e3, 5e4, n)
    gy, gx = np.mgrid[-12:13, -12:13]
    sharp = np.zeros((size, size), np.float32)
    for a, b, f in zip(y, x, flux, strict=True):
        i, j = round(a), round(b)
        sharp[i - 12 : i + 13, j - 12 : j + 13] += (
            f / 14.1 * np.exp(-0.5 * ((gy + i - a) ** 2 + (gx + j - b) ** 2) / 1.5**2)
        )
    basis = kn.gaussian_basis((0.8, 1.6), (2, 1), 8)
    truth = np.zeros((len(basis.functions), 3))
    truth[0, 0], truth[3, 0], truth[4, 1], truth[6, 2] = 1.3, 0.2, 0.1, -0.2
    broad = cv.convolve_varying(sharp, kn.collapse(basis.functions, truth))
    noise = rng.normal(0, 3, (2, size, size)).astype(np.float32)
    variance = np.full((size, size), 9.0, np.float32)
    return (
        basis,
        truth,
        (broad + 7 + noise[0], sharp + noise[1] * 0.3),
        (variance, variance * 0.09),
        np.rint(y).astype(int),
        np.rint(x).astype(int),
    )


def fit_scene(spoil: int = 0, **options):
    basis, truth, images, variances, y, x = scene()
    for i in range(spoil):
        images[0][y[i] - 1 : y[i] + 2, x[i] - 1 : x[i] + 2] += 4000
    keep = clean_positions(np.zeros(images[0].shape, bool), y, x, reach=20, core=2)
    stamps = cut_stamps(images, variances, np.zeros(images[0].shape, bool), y[keep], x[keep], size=(12, 8))
    normals = kf.stamp_normals(stamps, basis)
    ty, tx = cv.frame_coordinates(stamps.y, stamps.x, images[0].shape)
    return basis, truth, kf.fit_kernel(normals, ty, tx, **options), keep


def test_fit_recovers_a_varying_kernel():
    basis, truth, fit, _ = fit_scene(degree=1)
    shape = (420, 420)
    at = np.array([50.0, 210.0, 390.0]), np.array([380.0, 210.0, 100.0])
    found = cv.kernel_at(kn.collapse(basis.functions, fit.coefficients), *at, shape)
    true = cv.kernel_at(kn.collapse(basis.functions, truth), *at, shape)
    assert np.abs(found - true).max() < 0.01 * true.max()
    assert fit.coefficients[0, 0] == pytest.approx(1.3, rel=2e-3)
    assert fit.background[0] == pytest.approx(7, abs=0.3)
    assert np.median(fit.chi2) == pytest.approx(1, abs=0.05)


def test_fit_rejects_stars_that_changed():
    _, _, fit, keep = fit_scene(spoil=8, degree=1)
    assert not fit.used[: keep[:8].sum()].any()
    assert fit.used.mean() > 0.8
    assert fit.coefficients[0, 0] == pytest.approx(1.3, rel=3e-3)


@pytest.mark.parametrize(("share", "largest"), [(0.1, 1.12), (0.9, 6.0), (6.0, 6.0), (600.0, 6.0)])
def test_noise_said_to_exceed_the_data_does_not_blow_the_solution_up(share, largest):
    matrix, right = np.diag([1e4, 1.0]), np.array([1e4, 1.0])
    found = kf._solve_symmetric(matrix, right, np.diag([0.0, share]))
    assert found[0] == pytest.approx(1)
    assert 1 < found[1] < largest + 1e-6


def test_cross_validation_finds_that_the_kernel_varies():
    assert fit_scene(degree=None)[2].degree >= 1


def test_spread_evenly_takes_the_brightest_of_each_cell():
    y, x = np.array([1, 2, 3, 90]), np.array([1, 2, 3, 90])
    chosen = spread_evenly((y, x), np.array([5.0, 9.0, 7.0, 1.0]), (100, 100), cells=2, per_cell=2)
    assert chosen.tolist() == [1, 3, 2]


def test_clean_positions_avoid_borders_and_bad_pixels():
    bad = np.zeros((100, 100), bool)
    bad[50, 51] = True
    y, x = np.array([50, 50, 5, 70]), np.array([50, 60, 50, 70])
    assert clean_positions(bad, y, x, reach=12, core=3).tolist() == [False, True, False, True]


def test_separable_functions_equal_the_plain_convolution():
    basis = kn.gaussian_basis((0.8, 1.6), (3, 2), 6)
    moving = np.random.default_rng(0).normal(size=(4, 27, 27)).astype(np.float32)
    plain = kf.basis_images(moving, basis.functions, 15)
    fast = np.einsum("kl,nlij->nkij", basis.factors.mix, kf.product_images(moving, basis.factors, 15))
    np.testing.assert_allclose(fast, plain, atol=1e-5)

