from __future__ import annotations

import numpy as np
import pytest

from apstream.simulate.render import WING, WING_SCALE, add_points, effective_area, galaxy_points, psf_stamp


def plain_moffat(shape: tuple[int, int], y: float, x: float, alpha: float, g1: float, g2: float) -> np.ndarray:
    """The slow equivalent of the kernel: the whole image in double precision."""
    dy, dx = np.mgrid[: shape[0], : shape[1]] - np.array([y, x])[:, None, None]
    norm = np.sqrt(1 - g1**2 - g2**2)
    u, v = ((1 - g1) * dx - g2 * dy) / norm, (-g2 * dx + (1 + g1) * dy) / norm
    r2, wing2 = u**2 + v**2, (WING_SCALE * alpha) ** 2
    core = (1 - WING) * 2 / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -3.0
    return core + WING / (np.pi * wing2) * (1 + r2 / wing2) ** -2.0


@pytest.mark.parametrize(("y", "x"), [(30.0, 40.0), (30.3, 39.6), (1.2, 70.9), (-3.0, 20.0)])
def test_the_kernel_equals_its_plain_form(y: float, x: float) -> None:
    image, one = np.zeros((64, 80), np.float32), np.ones(1)
    add_points(image, y * one, x * one, 5000 * one, (3.5 * one, 0.05 * one, -0.03 * one), threshold=1e-9)
    np.testing.assert_allclose(image, 5000 * plain_moffat(image.shape, y, x, 3.5, 0.05, -0.03), rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("alpha", [2.2, 2.7, 5.0])
def test_a_source_keeps_its_flux(alpha: float) -> None:
    stamp = psf_stamp(alpha, 0.06, 0.02, 0.4, -0.3, half=150)
    outside = WING / (1 + (150 / (WING_SCALE * alpha)) ** 2)
    assert stamp.sum() == pytest.approx(1 - outside, abs=2e-3)


def test_the_effective_area_grows_with_the_square_of_the_width() -> None:
    assert effective_area(6.0, 0, 0) / effective_area(3.0, 0, 0) == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("sersic", [1.0, 4.0])
def test_half_the_light_of_a_galaxy_lies_inside_its_radius(sersic: float) -> None:
    dy, dx, weight = galaxy_points(2.0, sersic, 0.1)
    assert weight.sum() == pytest.approx(1.0)
    assert weight[np.hypot(dy, dx) < 2.0].sum() == pytest.approx(0.55, abs=0.06)  # a little more: the rim is cut
    assert abs(np.sum(weight * dy)) < 0.05


def test_positions_that_do_not_project_are_left_out() -> None:
    image = np.zeros((16, 16), np.float32)
    bad = np.array([np.nan, 5.0])
    add_points(image, bad, bad, np.array([100.0, 0.0]), (np.ones(2), np.zeros(2), np.zeros(2)))
    assert not image.any()
