from __future__ import annotations

import numpy as np
import pytest
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


def plain_moments(data, good, y, x, sign, start):
    """What `adaptive_moments` does, one source at a time: exact and slow; None where it does not converge."""
    half = len(data) // 2
    rows, cols = np.mgrid[: len(data), : len(data)] - half
    shape, centre = np.diag([start, start]), np.array([y, x])
    for _ in range(100):
        d = np.stack([rows - centre[0], cols - centre[1]])
        weight = np.exp(-0.5 * np.einsum("aij,ab,bij->ij", d, np.linalg.inv(shape), d))
        amplitude = np.sum((sign * data * weight)[good]) / np.sum(weight[good] ** 2)
        light = weight * np.where(good, sign * data, amplitude * weight)
        shift = np.sum(light * d, axis=(1, 2)) / light.sum()
        seen = np.einsum("aij,bij,ij->ab", d, d, light) / light.sum() - np.outer(shift, shift)
        if not light.sum() > 0 or not np.linalg.det(seen) > 0:
            return None
        inverse = np.linalg.inv(seen) - np.linalg.inv(shape)
        new = np.linalg.inv(inverse) if np.linalg.det(inverse) > 0 and inverse[0, 0] > 0 else 1.5 * shape
        centre, change, shape = centre + 2 * shift, np.abs(new - shape).max(), new
        if shape.max() > (len(data) / 4) ** 2:
            return None
        if change < 1e-6:
            return np.array([shape[0, 0], shape[1, 1], shape[0, 1], *centre])
    return None


def noisy_sources(sign):
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[-15:16, -15:16].astype(float)
    places, data = rng.uniform(-0.5, 0.5, (60, 2)), np.empty((60, 31, 31), np.float32)
    for k, (y, x) in enumerate(places):
        a, b, c = rng.uniform(2, 7), rng.uniform(2, 7), rng.uniform(-1, 1)
        inverse = np.linalg.inv([[a, c], [c, b]])
        q = inverse[0, 0] * (rows - y) ** 2 + inverse[1, 1] * (cols - x) ** 2
        q += 2 * inverse[0, 1] * (rows - y) * (cols - x)
        data[k] = sign * 1000 * np.exp(-0.5 * q) + rng.normal(0, 20, q.shape)
    return data, rng.random(data.shape) > 0.02, places


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("tilted_start", [False, True])
def test_fast_moments_are_those_of_the_plain_ones(sign: float, tilted_start: bool):
    data, good, places = noisy_sources(sign)
    start = np.tile([5.0, 4.0, 1.0], (60, 1)) if tilted_start else np.full(60, 4.0)
    fast = adaptive_moments(data, good, y=places[:, 0], x=places[:, 1], sign=np.full(60, sign), start=start)
    assert fast["converged"].all()
    for one, stamp, ok, (y, x) in zip(fast, data, good, places, strict=True):
        want = plain_moments(stamp, ok, y, x, sign, 4.0)
        np.testing.assert_allclose([one[name] for name in ("iyy", "ixx", "iyx", "y", "x")], want, atol=5e-3)


def test_a_needle_across_the_pixels_keeps_its_moments():
    found = moments(ellipse(6.0, 6.0, 5.7))
    assert found["converged"]
    np.testing.assert_allclose([found["iyy"], found["ixx"], found["iyx"]], [6.0, 6.0, 5.7], rtol=0.02)


def test_principal_axes_of_a_tilted_ellipse():
    major, minor, angle = principal_axes(np.array([5.0]), np.array([5.0]), np.array([3.0]))
    assert (major[0], minor[0]) == (8.0, 2.0)
    assert np.isclose(angle[0], np.pi / 4)
