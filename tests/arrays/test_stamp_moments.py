"""Fast moments and regions are what their plain equivalents give."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from apstream.arrays.adaptive import adaptive_moments
from apstream.arrays.regions import find_regions
from apstream.arrays.stamp_moments import stamp_moments


def test_fast_moments_are_those_of_the_plain_ones():
    rng = np.random.default_rng(3)
    i, j = np.mgrid[-15:16, -15:16].astype(float)
    stamps, places = [], rng.uniform(-0.5, 0.5, (60, 2))
    for y, x in places:
        a, b, c = rng.uniform(2, 7), rng.uniform(2, 7), rng.uniform(-1, 1)
        inverse = np.linalg.inv([[a, c], [c, b]])
        dy, dx = i - y, j - x
        q = inverse[0, 0] * dy**2 + inverse[1, 1] * dx**2 + 2 * inverse[0, 1] * dy * dx
        stamps.append(1000 * np.exp(-0.5 * q) + rng.normal(0, 2, i.shape))
    data = np.array(stamps, np.float32)
    good = np.ones(data.shape, bool)
    y, x = places.T
    start = np.full(60, 4.0)
    fast = stamp_moments(data, good, y=y, x=x, start=start)
    plain = adaptive_moments(data, good, y=y, x=x, sign=np.ones(60), start=start)
    assert fast["converged"].all()
    for name in ("iyy", "ixx", "iyx", "y", "x"):
        np.testing.assert_allclose(fast[name], plain[name], atol=2e-2)


def test_an_empty_stamp_has_no_moments():
    data = np.zeros((1, 21, 21), np.float32)
    zero = np.zeros(1)
    assert np.isnan(stamp_moments(data, np.ones(data.shape, bool), y=zero, x=zero, start=zero + 3)["iyy"]).all()


def test_regions_are_those_of_scipy():
    rng = np.random.default_rng(4)
    for density in (0.1, 0.4, 0.7):
        image = (rng.random((73, 91)) < density).astype(np.float32)
        labels, count = ndimage.label(image, np.ones((3, 3)))
        regions = find_regions(image, 0.5)
        y, x = (g.ravel() for g in np.mgrid[:73, :91])
        found = regions.at(y, x)
        assert regions.count == count
        np.testing.assert_array_equal(found > 0, labels.ravel() > 0)
        assert len(set(zip(found.tolist(), labels.ravel().tolist(), strict=True))) == count + 1
