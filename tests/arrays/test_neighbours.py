"""The largest value around every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from apstream.arrays.coadd import masked_median, masked_median_plain
from apstream.arrays.neighbours import just_beyond, largest_near, true_near


@pytest.mark.parametrize("reach", [0, 1, 4, 9])
def test_the_largest_nearby_is_that_of_a_plain_filter(reach: int) -> None:
    image = np.random.default_rng(reach).normal(size=(23, 41)).astype(np.float32)
    np.testing.assert_array_equal(largest_near(image, reach), maximum_filter(image, 2 * reach + 1))
    np.testing.assert_array_equal(true_near(image > 2, reach), maximum_filter(image > 2, 2 * reach + 1))
    np.testing.assert_array_equal(
        just_beyond(image < 2, reach), maximum_filter(image < 2, 2 * reach + 1) & (image >= 2)
    )


@pytest.mark.parametrize("n", [1, 2, 5, 8, 24, 25, 31])
def test_medians_are_those_of_masked_arrays_for_few_and_many_images(n: int) -> None:
    rng = np.random.default_rng(n)
    stack = rng.normal(size=(n, 6, 40)).astype(np.float32)
    good = rng.random(stack.shape) > 0.3
    good[:, 0], good[:, 1, :5] = True, False
    np.testing.assert_allclose(masked_median(stack, good), masked_median_plain(stack, good), rtol=1e-6)
