from __future__ import annotations

import numpy as np

from apstream.arrays.mesh import median_mesh, subtract_mesh


def test_a_sloping_background_is_removed_and_sources_are_not():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(512, 512)).astype(np.float32)
    y, x = np.mgrid[:512, :512]
    slope = (0.5 + 0.6 * y / 512 - 0.3 * x / 512).astype(np.float32)
    image = noise + slope
    image[100:110, 100:110] += 100
    ones = np.ones_like(image)
    flat = subtract_mesh(image, median_mesh(image, ones, ones > 0, cell=64))
    inner = slice(64, -64)
    assert np.abs((flat - noise)[inner, inner][60:] - 0).mean() < 0.05
    assert abs((flat - noise)[100:110, 100:110].mean() - 100) < 0.3


def test_cells_without_pixels_are_left_alone():
    image = np.full((100, 100), 7, np.float32)
    mesh = median_mesh(image, image * 100, np.zeros(image.shape, bool), cell=50)
    assert np.array_equal(subtract_mesh(image, mesh), image)
