"""TAN and TAN-SIP by their numbers are what astropy makes of the same header."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from helpers.nouns import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.model.cards import exact_header
from apstream.model.tangent import TangentWcs
from apstream.model.wcs import SkyWcs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_positions_are_those_of_astropy(seed: int):
    wcs = SAMPLES["wcs"](np.random.default_rng(seed))
    assert isinstance(wcs.given, TangentWcs)
    slow = wcs.wcs
    y, x = np.mgrid[-300:2000:97, -300:2000:111].astype(float)
    ra, dec = wcs.pixel_to_sky(y, x)
    ra0, dec0 = slow.all_pix2world(x, y, 0)
    np.testing.assert_allclose((ra - ra0 + 180) % 360 - 180, 0, atol=1e-11)
    np.testing.assert_allclose(dec, dec0, atol=1e-12, rtol=0)
    np.testing.assert_array_equal(np.ravel(wcs.pixel_to_sky(y[3, 5], x[3, 5])), (ra[3, 5], dec[3, 5]))
    x0, y0 = slow.all_world2pix(ra, dec, 0, tolerance=1e-7, maxiter=30)
    np.testing.assert_allclose(wcs.sky_to_pixel(ra, dec), (y0, x0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("ra", "dec", "y"), [(0.0, 0.0, -1.0), (10.0, -90.0, 5.5), (359.9, 89.999, 0.0), (0.0, 45.0, 3.0)]
)
def test_cards_are_those_of_astropy_to_the_letter(ra: float, dec: float, y: float):
    wcs = SkyWcs.tan(ra, dec, pixel_scale_arcsec=0.3, y=y, x=-1.0, rotation=10)
    made = wcs.wcs.to_header(relax=True)
    for key, value, comment in wcs.given.cards():
        if not key.startswith("CD"):
            assert (made[key], made.comments[key] if comment else "") == (pytest.approx(value), comment)
    assert TangentWcs.of(dict(wcs.to_header())) is not None
    sure = {key: wcs.to_header().cards[key].image for key in made if isinstance(made[key], str)}
    assert sure == {key: made.cards[key].image for key in sure}


def test_what_lies_beyond_the_horizon_has_no_pixel():
    wcs = SkyWcs.tan(10.0, 20.0, pixel_scale_arcsec=0.3, y=5, x=5)
    assert np.isnan(wcs.sky_to_pixel(190.0, -20.0)).all()


def test_a_distortion_without_an_inverse_gives_no_pixel_far_out():
    plain = SkyWcs.tan(10.0, 20.0, pixel_scale_arcsec=0.3, y=500, x=500).to_header()
    plain.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
    plain.update({"A_ORDER": 3, "A_3_0": 1e-8, "B_ORDER": 3, "B_0_3": 1e-8})
    wcs = SkyWcs.from_values(dict(exact_header(plain)))
    assert wcs is not None
    near, far = wcs.pixel_to_sky(np.array([100.0, 900.0]), np.array([0.0, 700.0])), (50.0, 20.0)
    np.testing.assert_allclose(wcs.sky_to_pixel(*near), [[100.0, 900.0], [0.0, 700.0]], atol=1e-6)
    assert np.isnan(wcs.sky_to_pixel(*far)).all()


def test_numbers_of_another_kind_are_left_to_astropy():
    known = dict(SkyWcs.tan(10.0, 20.0, pixel_scale_arcsec=0.3, y=5, x=5).to_header())
    assert TangentWcs.of(known) is not None
    for more in ({"LONPOLE": 170.0}, {"RADESYS": "FK5"}, {"MJD-OBS": 6e4}, {"A_2_0": 1e-6}, {"CRVAL1": "10"}):
        assert TangentWcs.of(known | more) is None
    made = SkyWcs.from_values(known | {"LONPOLE": 170.0})
    assert made is not None
    assert isinstance(made.given, WCS)
