"""Sums that are used again hold nothing of what was added before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from apstream.arrays.running_mean import RunningSums, SumBits, add_image

BITS = SumBits(no_data=1, bad=2, edge=4, saturated=8)


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.5])
def test_cleared_sums_are_as_new(share: float):
    rng, shape = np.random.default_rng(5), (40, 300)
    sums = RunningSums.zeros(40, shape)
    for number in range(3, 40, 4):
        mask = np.where(rng.random(shape) < share, rng.integers(0, 16, shape), 0).astype(np.int32)
        image = rng.normal(size=shape).astype(np.float32)
        add_image(sums, (image, np.ones_like(image), mask), 2.0, number, BITS, clipped=rng.random(shape) < share)
    assert sums.clean.any()
    assert sums.inputs.any()
    assert bool(share) == sums.odd.any()
    for found, new in zip(_planes(sums.cleared(shape)), _planes(RunningSums.zeros(40, shape)), strict=True):
        assert_array_equal(found, new)


def _planes(sums: RunningSums):
    return sums.clean, sums.rest, sums.flags, sums.number, sums.inputs, sums.others, sums.odd
