import numpy as np
import pytest

from apstream.arrays.distortion import fit_distortion
from apstream.arrays.sip import SipFit, evaluate_sip
from apstream.model.geometry import Box
from apstream.tasks.wcsfit import wcs_from_sip

SCALE = 0.25
CENTRE = (511.5, 511.5)


def truth(radial: float = 0.0, skew: float = 0.0) -> SipFit:
    a, b = np.zeros((2, 4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = radial
    a[2, 0], b[1, 1] = skew, -skew
    return SipFit((150.0, 2.0), SCALE / 3600 * np.array([[-1.0, 0.01], [0.01, 1.0]]), a, b)


def pairs(seed: int, n: int, true: SipFit, noise_arcsec: float):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0, 1023, (2, n))
    ra, dec = evaluate_sip(true, y, x, crpix=CENTRE)
    dec = dec + rng.normal(0, noise_arcsec, n) / 3600
    ra = ra + rng.normal(0, noise_arcsec, n) / 3600 / np.cos(np.deg2rad(dec))
    return (y, x), (ra, dec)


def solve(pixels, sky, error, max_degree=3):
    errors = np.full(len(pixels[0]), error)
    return fit_distortion(pixels, sky, errors, crpix=CENTRE, max_degree=max_degree, nsigma=3.0)


def error_of(fit: SipFit, true: SipFit) -> float:
    """Rms distance from the truth per axis, arcsec, at positions that were not fitted."""
    y, x = np.random.default_rng(0).uniform(0, 1023, (2, 400))
    (ra, dec), (ra0, dec0) = (evaluate_sip(f, y, x, crpix=CENTRE) for f in (fit, true))
    return float(np.sqrt(np.mean(np.r_[(ra - ra0) * np.cos(np.deg2rad(dec0)), dec - dec0] ** 2))) * 3600


def test_positions_are_those_of_astropy():
    fit = truth(2e-9, 3e-6)
    wcs = wcs_from_sip(fit, CENTRE, Box.from_shape((1024, 1024)))
    y, x = np.random.default_rng(1).uniform(0, 1023, (2, 100))
    np.testing.assert_allclose(evaluate_sip(fit, y, x, crpix=CENTRE), wcs.pixel_to_sky(y, x), rtol=0, atol=1e-11)


def test_a_field_without_distortion_gets_none():
    noise, n = 0.01, 60
    models, errors = [], []
    for seed in range(20):
        found = solve(*pairs(seed, n, truth(), noise), 0.01)
        models.append((found.degree, found.radial))
        errors.append(error_of(found.fit, truth()))
    assert models.count((1, False)) >= 17
    assert np.mean(errors) < 1.5 * noise * np.sqrt(3 / n)  # three terms an axis, and no more


def test_the_error_of_the_solution_is_what_it_differs_by_from_the_truth():
    expected, real = [], []
    for seed in range(20):
        pixels, sky = pairs(seed, 80, truth(), 0.01)
        found = solve(pixels, sky, 0.01)
        ra, dec = evaluate_sip(found.fit, *pixels, crpix=CENTRE)
        ra0, dec0 = evaluate_sip(truth(), *pixels, crpix=CENTRE)
        wrong = np.r_[(ra - ra0) * np.cos(np.deg2rad(dec0)), dec - dec0] * 3600
        expected.append(found.error**2)
        real.append(np.mean(wrong**2))
    assert np.sqrt(np.mean(expected) / np.mean(real)) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("true", [truth(2e-9), truth(2e-9, 2e-6)], ids=["radial", "skew"])
def test_distortion_is_found_and_costs_no_more_terms_than_it_has(true):
    noise, n = 0.008, 250
    errors = [error_of(solve(*pairs(seed, n, true, noise), noise).fit, true) for seed in range(6)]
    assert np.mean(errors) < 1.3 * noise * np.sqrt(10 / n)


def test_scatter_that_the_errors_do_not_explain_is_found():
    pixels, sky = pairs(5, 400, truth(), 0.05)
    assert solve(pixels, sky, 0.03).excess == pytest.approx(0.04, rel=0.15)
    assert solve(pixels, sky, 0.05).excess < 0.02


def test_wrong_pairs_are_left_out():
    (y, x), (ra, dec) = pairs(6, 100, truth(2e-9), 0.01)
    wrong = np.arange(100) % 7 == 0
    found = solve((y, x), (ra + wrong * 0.4 / 3600, dec), 0.01)
    assert not found.used[wrong].any()
    assert found.used[~wrong].sum() > 80
    assert error_of(found.fit, truth(2e-9)) < 0.006
