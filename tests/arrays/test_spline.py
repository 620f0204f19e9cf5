"""Splines without scipy, against scipy."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from apstream.arrays.spline import interpolated, interpolation


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (45, 44), (2,), (45,)])
def test_splines_are_those_of_scipy_inside_on_the_border_and_beyond(shape):
    rng = np.random.default_rng(len(shape) + shape[0])
    image = rng.normal(size=shape)
    places = np.stack([rng.uniform(-2, n + 1, (30, 40)) for n in shape])
    places[:, :5] = np.rint(places[:, :5])
    places[:, 5] = [[0], [0]][: len(shape)]
    places[:, 6] = np.array(shape)[:, None] - 1
    found = interpolated(image, places)
    np.testing.assert_allclose(found, map_coordinates(image, places, order=3, mode="constant"), atol=1e-13)
    assert (found == 0).any()
    assert (found != 0).any()


def test_a_matrix_interpolates_along_an_axis():
    rng = np.random.default_rng(2)
    values, places = rng.normal(size=21), np.append(rng.uniform(-1, 21, 50), [0, 20])
    np.testing.assert_allclose(
        interpolation(places, 21) @ values, map_coordinates(values, [places], order=3, mode="constant"), atol=1e-13
    )
