"""Brighter-fatter: stars that pushed their own charge away come back to the size of faint ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from apstream.arrays.brighter_fatter import undo_brighter_fatter
from apstream.arrays.types import F64

N = 41
Y, X = np.mgrid[:N, :N] - (N - 1) / 2.0
_R = np.hypot(*(np.mgrid[-8:9, -8:9]))
KERNEL = -1.5e-6 / (1 + (_R / 0.8) ** 2)


def light(flux: float, sigma: float, y: F64 = Y, x: F64 = X) -> F64:
    return flux * np.exp(-(y**2 + x**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def collected(flux: float, sigma: float, steps: int = 60) -> F64:
    """Expose step by step: the charge that is there shifts the borders for the light that comes next.

    The light that crosses a border is that on the border itself, which the correction does not know.
    """
    on_y = light(flux, sigma, Y[:-1] + 0.5, X[:-1]) / steps
    on_x = light(flux, sigma, Y[:, :-1], X[:, :-1] + 0.5) / steps
    new, charge = light(flux, sigma) / steps, np.zeros((N, N))
    for _ in range(steps):
        field = fftconvolve(charge + new / 2, KERNEL, mode="same")
        up, right = on_y * np.diff(field, axis=0), on_x * np.diff(field, axis=1)
        charge += new
        charge[:-1] -= up
        charge[1:] += up
        charge[:, :-1] -= right
        charge[:, 1:] += right
    return charge


def width(image: F64) -> float:
    """Sigma by adaptive Gaussian moments."""
    square = 4.0
    for _ in range(100):
        w = image * np.exp(-(Y**2 + X**2) / (2 * square))
        moment = (w * (Y**2 + X**2)).sum() / w.sum() / 2
        square = 1 / (1 / moment - 1 / square)
    return float(np.sqrt(square))


@pytest.mark.parametrize(("flux", "sigma"), [(1e5, 1.3), (1e6, 1.3), (6e5, 1.7), (1e6, 2.2)])
def test_what_is_left_of_the_effect_is_below_a_tenth(flux, sigma):
    charge = collected(flux, sigma)
    true = width(light(flux, sigma))
    effect = width(charge) / true - 1
    fixed, iterations = undo_brighter_fatter(charge.astype(np.float32), KERNEL)
    assert effect > 2e-3
    assert abs(width(fixed.astype(float)) / true - 1) < 0.1 * effect
    assert iterations < 10
    assert fixed.sum(dtype=float) == pytest.approx(charge.sum(), rel=1e-6)


def test_pixels_without_a_value_stay_so_and_push_nothing():
    image = light(3e5, 1.7).astype(np.float32)
    holed = image.copy()
    holed[3, 3] = np.nan
    fixed, _ = undo_brighter_fatter(holed, KERNEL)
    assert np.argwhere(~np.isfinite(fixed)).tolist() == [[3, 3]]
    whole, _ = undo_brighter_fatter(image, KERNEL)
    np.testing.assert_allclose(fixed[8:], whole[8:], rtol=1e-5, atol=0.1)
