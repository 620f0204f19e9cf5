"""Trails of satellites are found below the noise of a pixel, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from apstream.arrays.sources import Sky, source_mask
from apstream.model.mask import MaskPlane
from apstream.tasks.streaks import StreakConfig, mask_streaks

SIZE, SIGMA = 1024, 20.0
Y, X = np.mgrid[:SIZE, :SIZE].astype(np.float32)


def field(seed: int, *, trail: float = 0.0, n_stars: int = 200):
    """Stars with bright wings, a galaxy, and perhaps a trail of `trail` sigma per pixel: image, angle and offset."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, SIGMA, (SIZE, SIZE)).astype(np.float32)
    for y, x in rng.uniform(0, SIZE, (n_stars, 2)):
        flux = min(rng.pareto(1.0) * 3000 + 1000, 3e6)
        part = tuple(slice(max(int(c) - 40, 0), int(c) + 41) for c in (y, x))
        image[part] += 0.05 * flux * (1 + ((Y[part] - y) ** 2 + (X[part] - x) ** 2) / 6) ** -2.5
    image += 60 * np.exp(-(((Y - 300) / 60) ** 2 + ((X - 600) / 25) ** 2) / 2)
    y, x, angle = *rng.uniform(0.25 * SIZE, 0.75 * SIZE, 2), rng.uniform(0, np.pi)
    away = (Y - y) * np.cos(angle) - (X - x) * np.sin(angle)
    image += trail * SIGMA * np.exp(-0.5 * (away / 2) ** 2)
    return image, np.abs(away)


def masked(image, mask=None):
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    covered = source_mask(image, Sky(np.full((8, 8), SIGMA, np.float32), 128), fwhm=4.0, n_sigma=8.0, grow=6)
    out, streaks = mask_streaks(image, np.full_like(image, SIGMA**2), mask, covered, StreakConfig())
    return (out & MaskPlane.STREAK) != 0, streaks


@pytest.mark.parametrize("height", [0.7, 1.5, 10.0, 100.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_trail_is_masked_over_its_whole_length(height: float, seed: int):
    image, away = field(seed, trail=height)
    flagged, streaks = masked(image)
    assert len(streaks) == 1
    assert flagged[away < 3].mean() > 0.97
    assert not flagged[away > 16].any()


@pytest.mark.parametrize("seed", range(10, 16))
def test_a_field_without_a_trail_has_none(seed: int):
    assert not masked(field(seed)[0])[1]


def test_a_crowded_field_has_none():
    assert not masked(field(20, n_stars=3000)[0])[1]


def test_spikes_and_bleeding_columns_are_no_trails():
    image, mask = field(21)[0], np.zeros((SIZE, SIZE), np.int32)
    radius = np.hypot(Y - 500, X - 480)
    for angle in (0.785, 2.356):
        away = np.abs((Y - 500) * np.cos(angle) - (X - 480) * np.sin(angle))
        image += 30 * SIGMA * np.exp(-0.5 * (away / 2) ** 2 - radius / 60)
    image[200:900, 479:482] = 5e4
    mask[200:900, 479:482] = int(MaskPlane.SAT)
    assert not masked(image, mask)[1]
