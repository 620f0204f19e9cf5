"""A WCS keeps every bit through its header, a pickle, and both ways of reading it."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from astropy.io import fits
from helpers.nouns import SAMPLES, same
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.model.cards import exact_card, exact_header
from apstream.model.wcs import SkyWcs

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def header(**more: float | str) -> fits.Header:
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.1, "CRVAL2": -20.2, "CRPIX1": 5.5, "CRPIX2": 7.7}
    scale = {"CDELT1": -1e-4 / 3, "CDELT2": 1e-4 / 3, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}
    return exact_header(fits.Header(cards | scale | more))


@given(FINITE)
def test_a_card_gives_back_its_float(value: float):
    card = fits.Header.fromstring(fits.Header([exact_card("KEY", value, "what it is")]).tostring())
    assert card["KEY"] == value
    assert math.copysign(1, card["KEY"]) == math.copysign(1, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_fits_cannot_hold_becomes_text_that_float_reads(value: float):
    assert str(float(exact_card("KEY", value).value)) == str(value)


@settings(max_examples=30)
@given(st.integers(0, 1 << 32))
def test_both_ways_of_reading_and_a_pickle_give_the_same_wcs(seed: int):
    wcs = SAMPLES["wcs"](np.random.default_rng(seed))
    fast, slow = SkyWcs.from_values(dict(wcs.to_header())), SkyWcs.from_header(wcs.to_header())
    assert fast is not None
    assert slow is not None
    assert same(wcs, fast)
    assert same(wcs, slow)
    assert same(wcs, pickle.loads(pickle.dumps(wcs)))
    assert fast.to_header().tostring() == wcs.to_header().tostring()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"MJD-OBS": 60000.123, "DATE-OBS": "2023-02-25T02:57:07"},
        {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 1 / 3},
        {"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "LONPOLE": 178 + 1 / 3},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    ],
)
def test_a_wcs_of_another_kind_keeps_every_bit_too(more: dict[str, float | str]):
    wcs = SkyWcs.from_header(header(**more))
    assert wcs is not None
    again = SkyWcs.from_values(dict(wcs.to_header()))
    assert again is not None
    assert same(wcs, again)
    assert again.to_header().tostring() == wcs.to_header().tostring()


def test_a_tpv_distortion_keeps_fourteen_digits():
    rng = np.random.default_rng(0)
    terms = {f"PV{axis}_{m}": float(v) for axis in (1, 2) for m, v in enumerate(rng.normal(size=11) * 1e-4)}
    terms |= {"PV1_1": 1.0, "PV2_1": 1.0}
    plain = SkyWcs.tan(10.1, -20.2, pixel_scale_arcsec=0.25, y=5.5, x=7.7).to_header()
    plain.update(terms | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"})
    wcs = SkyWcs.from_header(exact_header(plain))
    assert wcs is not None
    again = SkyWcs.from_values(dict(wcs.to_header()))
    assert again is not None
    y, x = np.mgrid[0:4000:500, 0:4000:500].astype(float)
    np.testing.assert_allclose(again.pixel_to_sky(y, x), wcs.pixel_to_sky(y, x), rtol=0, atol=1e-12)
    assert again.to_header().tostring() == wcs.to_header().tostring()
