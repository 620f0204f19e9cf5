"""Fringes are measured between stars and on a sloping sky."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from apstream.arrays.fringe import fringe_amplitude

N, SKY = 640, 2000.0


def fringes(seed: int) -> np.ndarray:
    """Bands as interference makes them: the cosine of a slowly varying thickness; one per cent of the sky, rms."""
    thickness = gaussian_filter(np.random.default_rng(seed).normal(size=(N, N)), 18)
    bands = np.cos(6 * thickness / thickness.std())
    bands -= np.median(bands)
    return (0.01 * SKY * bands / bands.std()).astype(np.float32)


def frame(seed: int, pattern: np.ndarray, amplitude: float) -> np.ndarray:
    """A sky with slopes and curvature, a star on every 50 x 50 pixels with wings, photon and read noise."""
    rng = np.random.default_rng(100 + seed)
    y, x = np.mgrid[:N, :N] / N
    image = SKY * (1 + 0.1 * x + 0.05 * y - 0.05 * x**2) + amplitude * pattern
    yy, xx = np.mgrid[-25:26, -25:26]
    for cy, cx in rng.integers(25, N - 25, (160, 2)):
        square = yy**2 + xx**2
        star = 0.9 * np.exp(-square / 8) / (8 * np.pi) + 0.1 * 0.03 * (1 + square / 16) ** -2.5
        image[cy - 25 : cy + 26, cx - 25 : cx + 26] += 10 ** rng.uniform(3, 6) * star
    return (rng.poisson(image) + rng.normal(0, 5, image.shape)).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("amplitude", [0.5, 1.0, 3.0])
def test_under_five_per_cent_of_the_fringes_are_left(seed, amplitude):
    pattern = fringes(seed)
    found, error = fringe_amplitude(frame(seed, pattern, amplitude), pattern, np.zeros((N, N), bool))
    assert abs(found - amplitude) < 0.03 * amplitude
    assert abs(found - amplitude) < 5 * error


def test_without_fringes_none_are_found():
    pattern = fringes(1)
    found, error = fringe_amplitude(frame(1, pattern, 0.0), pattern, np.zeros((N, N), bool))
    assert abs(found) < 5 * error < 0.05


def test_without_sky_there_is_no_amplitude():
    pattern = fringes(1)
    assert np.isnan(fringe_amplitude(frame(1, pattern, 1.0), pattern, np.ones((N, N), bool))[0])
    flat = np.ones((N, N), np.float32)
    assert np.isnan(fringe_amplitude(flat, 0 * flat, np.zeros((N, N), bool))[0])


def test_of_a_large_image_a_part_is_enough():
    pattern = fringes(2)
    found, error = fringe_amplitude(
        frame(2, pattern, 1.0), pattern, np.zeros((N, N), bool), cell_px=64, enough_px=90_000
    )
    assert abs(found - 1) < 0.03
    assert abs(found - 1) < 5 * error
