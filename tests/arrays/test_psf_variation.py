"""What the PSF and its light do over the field: principal components, shape residuals, aperture corrections."""

from __future__ import annotations

import numpy as np
import pytest
from starfield import moffat, stamp

from apstream.arrays.aperture_correction import aperture_correction
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import add_stamps, psf_stamps
from apstream.arrays.psf_pca import vary_along_components
from apstream.arrays.psf_quality import shape_residuals
from apstream.arrays.psf_solve import normalise, rings, round_profile, solve
from apstream.arrays.stars import every_nth_over_field


def kernel(fwhm, e1=0.0, e2=0.0, half=9):
    return stamp(0, 0, half, lambda a, b: moffat(a, b, fwhm, e1=e1, e2=e2))[2]


def test_components_find_the_one_way_in_which_stars_vary():
    rng = np.random.default_rng(1)
    ty, tx = rng.uniform(-1, 1, (2, 80))
    truth = np.array([kernel(3.0 * (1 + 0.1 * x)) for x in tx])
    noise = 1e-3
    target = truth + rng.normal(0, noise, truth.shape)
    weight = np.full(truth.shape, noise**-2)
    mean, terms = target.mean(axis=0), poly_terms(ty, tx, 2).T
    spread = 0.15 * np.maximum(kernel(3.0), 0) + 1e-7
    basis = vary_along_components(mean, target, weight, terms, spread=spread, count=1)
    left = np.einsum("st,tij->sij", terms, basis) - truth
    assert np.sqrt(np.mean(left**2)) < 0.3 * noise
    assert np.linalg.matrix_rank(basis[1:].reshape(5, -1), tol=1e-9) == 1


def test_wings_widen_with_the_core_though_no_star_shows_them():
    rng = np.random.default_rng(6)
    ty, tx = rng.uniform(-1, 1, (2, 60))
    truth = np.array([kernel(3.0 * (1 + 0.1 * x), e1=0.05 * y) for y, x in zip(ty, tx, strict=True)])
    noise = 4e-4  # of the light: a star of S/N 500, whose wings are lost
    target, weight = truth + rng.normal(0, noise, truth.shape), np.full(truth.shape, noise**-2)
    basis = normalise(solve(target, weight, poly_terms(ty, tx, 2).T, round_profile(target, weight)))
    wings = rings(9) > 4
    narrow, wide = (np.tensordot(poly_terms(0.0, x, 2), basis, axes=1) for x in (-0.8, 0.8))
    least, most = (kernel(3.0 * (1 + 0.1 * x)) for x in (-0.8, 0.8))
    assert (wide - narrow)[wings].sum() == pytest.approx((most - least)[wings].sum(), rel=0.1)
    assert wide[9, 9] / narrow[9, 9] == pytest.approx(most[9, 9] / least[9, 9], rel=0.01)


def test_shape_residuals_are_what_the_stars_differ_by_wherever_they_lie():
    rng = np.random.default_rng(2)
    y, x = rng.uniform(20, 180, (2, 12))
    one, none = np.ones((12, 1)), np.zeros(12)
    model = psf_stamps(kernel(3.0)[None], one, y=y, x=x)
    stars = psf_stamps(kernel(3.06, e1=0.03)[None], one, y=y, x=x)
    flux = rng.uniform(100, 1000, 12)
    residual = np.zeros((200, 200), np.float32)
    add_stamps(residual, stars, y, x, flux)
    add_stamps(residual, model, y, x, -flux)
    found = shape_residuals(residual, model, y=y, x=x, flux=flux)
    assert found[:, 0] == pytest.approx(0.0185, abs=0.006)
    assert found[:, 1] == pytest.approx(0.03, abs=0.006)
    assert found[:, 2] == pytest.approx(none, abs=0.004)
    assert shape_residuals(residual * 0, model, y=y, x=x, flux=flux) == pytest.approx(0, abs=1e-3)
    assert shape_residuals(residual, model[:0], y=y[:0], x=x[:0], flux=flux[:0]).shape == (0, 3)


def test_an_aperture_correction_has_an_error_and_no_trend_where_there_is_none():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(40):
        ty, tx = rng.uniform(-1, 1, (2, 100))
        found.append(aperture_correction(rng.normal(0.99, 0.004, 100), np.full(100, 500.0), ty, tx))
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(0.99, abs=3e-4)
    assert values.std() == pytest.approx(np.mean([one.error for one in found]), rel=0.4)
    assert sum(one.trend_rms() > 0 for one in found) <= 1


def test_a_trend_of_the_aperture_correction_over_the_field_is_found():
    rng = np.random.default_rng(4)
    ty, tx = rng.uniform(-1, 1, (2, 100))
    found = aperture_correction(1 + 0.01 * tx + rng.normal(0, 0.003, 100), np.full(100, 500.0), ty, tx)
    assert found.trend_rms() == pytest.approx(0.01 * 0.9 / np.sqrt(3), rel=0.25)


def test_an_aperture_correction_is_that_of_all_stars_though_it_varies_and_some_are_wrong():
    rng = np.random.default_rng(7)
    tx = np.concatenate([rng.uniform(-1, -0.6, 40), rng.uniform(0.6, 1, 24)])
    ty, ratio = rng.uniform(-1, 1, 64), 0.8 - 0.03 * tx + rng.normal(0, 0.003, 64)
    expected = np.median(ratio)
    ratio[::16] += 0.3
    found = aperture_correction(ratio, np.full(64, 500.0), ty, tx)
    assert found.value == pytest.approx(expected, abs=0.003)
    assert found.trend_rms() == pytest.approx(0.03 * 0.9 / np.sqrt(3), rel=0.3)


def test_an_aperture_correction_without_stars_is_one_and_has_no_error():
    found = aperture_correction(np.array([np.nan]), np.array([5.0]), np.zeros(1), np.zeros(1))
    assert found.value == 1.0
    assert np.isnan(found.error)


def test_reserved_places_are_spread_and_do_not_depend_on_order():
    rng = np.random.default_rng(5)
    y, x = rng.uniform(0, 100, (2, 200))
    picked = every_nth_over_field(y, x, n=10)
    assert len(picked) == 20
    cells = set(zip((y[picked] // 50).astype(int), (x[picked] // 50).astype(int), strict=True))
    assert len(cells) == 4
    order = rng.permutation(200)
    assert set(order[every_nth_over_field(y[order], x[order], n=10)]) == set(picked)
