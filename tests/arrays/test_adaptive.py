from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apstream.arrays.adaptive import adaptive_moments, principal_axes


def ellipse(iyy, ixx, iyx, dy=0.0, dx=0.0):
    inverse = np.linalg.inv(np.array([[iyy, iyx], [iyx, ixx]]))
    y, x = np.mgrid[-20:21, -20:21]
    y, x = y - dy, x - dx
    return np.exp(-0.5 * (inverse[0, 0] * y * y + 2 * inverse[0, 1] * y * x + inverse[1, 1] * x * x))[None]


def moments(data, good=None, sign=1.0):
    good = np.ones(data.shape, bool) if good is None else good
    return adaptive_moments(data, good, y=[0.0], x=[0.0], sign=[sign], start=[3.0])[0]


@settings(max_examples=25, deadline=None)
@given(st.floats(2, 9), st.floats(2, 9), st.floats(-0.6, 0.6), st.floats(-0.5, 0.5))
def test_moments_of_a_gaussian_are_its_own(iyy, ixx, correlation, shift):
    iyx = correlation * np.sqrt(iyy * ixx)
    found = moments(ellipse(iyy, ixx, iyx, shift, -shift))
    assert found["converged"]
    np.testing.assert_allclose(
        [found["iyy"], found["ixx"], found["iyx"]], [iyy, ixx, iyx], rtol=0.01, atol=0.02
    )
    assert abs(found["y"] - shift) < 0.01


def test_missing_pixels_do_not_change_the_shape():
    data = ellipse(4.0, 5.0, 1.0)
    good = np.ones(data.shape, bool)
    good[0, 21:23, 18:30] = False
    assert abs(moments(data, good)["ixx"] - 5) < 0.1


def test_negative_sources_are_turned_over():
    assert abs(moments(-ellipse(4.0, 5.0, 0.0), sign=-1.0)["iyy"] - 4) < 0.05


def test_flat_sky_has_no_moments():
    found = moments(np.zeros((1, 41, 41)))
    assert not found["converged"]
    assert np.isnan(found["ixx"])


def test_principal_axes_of_a_tilted_ellipse():
    major, minor, angle = principal_axes(np.array([5.0]), np.array([5.0]), np.array([3.0]))
    assert (major[0], minor[0]) == (8.0, 2.0)
    assert np.isclose(angle[0], np.pi / 4)
