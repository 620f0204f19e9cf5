import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.sip import deproject, fit_sip, project
from apstream.arrays.zeropoint import fit_zero_point


@given(st.integers(0, 1000), st.floats(20, 33), st.floats(0, 0.3))
@settings(max_examples=30)
def test_zero_point_survives_outliers(seed, truth, spoiled):
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(2, 5, 200)
    error = np.full(200, 0.02)
    mag = truth - 2.5 * np.log10(flux) + rng.normal(0, 0.02, 200)
    bad = rng.uniform(size=200) < spoiled
    mag[bad] += rng.uniform(-3, 1, bad.sum())
    found = fit_zero_point(flux, mag, error)
    assert found is not None
    assert found.value == pytest.approx(truth, abs=0.012)
    assert found.scatter < 0.04
    assert 0.0005 < found.error < 0.01
    assert found.count > 100


def test_too_little_gives_none():
    assert fit_zero_point(np.array([1.0]), np.array([20.0]), np.array([0.1])) is None
    assert fit_zero_point(np.array([-1.0, 0, np.nan]), np.full(3, 20.0), np.full(3, 0.1)) is None


@given(st.floats(0, 360, exclude_max=True), st.floats(-89.9, 89.9))
@settings(max_examples=30)
def test_projection_and_back(ra0, dec0):
    xi, eta = np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.5, 5))
    ra, dec = deproject(xi, eta, ra0, dec0)
    np.testing.assert_allclose(project(ra, dec, ra0, dec0), (xi, eta), atol=1e-9)
    assert np.isnan(project(np.array([ra0 + 180]), np.array([-dec0]), ra0, dec0)).all()


@pytest.mark.parametrize(("ra0", "dec0"), [(10.0, 20.0), (0.001, -60.0), (200.0, 89.9)])
def test_sip_fit_is_exact_on_perfect_stars(ra0, dec0):
    rng = np.random.default_rng(0)
    y, x = rng.uniform(0, 2000, (2, 300))
    u, v = x - 1000, y - 900
    big_u = u + 3e-6 * u**2 - 1e-6 * u * v + 1e-9 * u**3
    big_v = v + 2e-6 * v**2 + 1e-9 * v * u**2
    sky = deproject(-7e-5 * big_u + 1e-6 * big_v, 1e-6 * big_u + 7e-5 * big_v, ra0, dec0)
    fit = fit_sip((y, x), sky, crpix=(900, 1000), degree=3)
    assert fit.crval == pytest.approx((ra0, dec0), abs=1e-9)
    np.testing.assert_allclose(fit.cd, [[-7e-5, 1e-6], [1e-6, 7e-5]], atol=1e-12)
    assert fit.a[2, 0] == pytest.approx(3e-6, rel=1e-5)
    assert fit.a[1, 1] == pytest.approx(-1e-6, rel=1e-5)
    assert fit.b[2, 1] == pytest.approx(1e-9, rel=1e-5)
    with pytest.raises(ValueError, match="5 stars"):
        fit_sip((y[:5], x[:5]), (sky[0][:5], sky[1][:5]), crpix=(0, 0), degree=2)
