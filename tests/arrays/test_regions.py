"""Connected regions are what their plain equivalent gives."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from apstream.arrays.regions import find_regions


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
