import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.apdb.pixels import lock_pixels, pixel_ids, pixel_ranges
from apstream.model.products import SkyCircle

positions = st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))


def points_inside(ra, dec, radius, n=60):
    """Points of a circle, made from its pole by rotation, so that it may lie anywhere."""
    rng = np.random.default_rng(1)
    angle, turn = np.deg2rad(radius * 0.9999 * np.sqrt(rng.random(n))), rng.uniform(0, 2 * np.pi, n)
    local = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)])
    d, r = np.deg2rad(90 - dec), np.deg2rad(ra)
    tilt = np.array([[np.cos(d), 0, np.sin(d)], [0, 1, 0], [-np.sin(d), 0, np.cos(d)]])
    spin = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    x, y, z = spin @ tilt @ local
    return np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arcsin(np.clip(z, -1, 1)))


@given(positions, st.floats(0.001, 5))
def test_the_ranges_cover_the_region(position, radius):
    region = SkyCircle(*position, radius)
    ranges = pixel_ranges(region)
    pixels = pixel_ids(*points_inside(*position, radius))
    assert len(ranges) <= 24
    assert all(any(low <= pixel <= high for low, high in ranges) for pixel in pixels)


def test_the_ranges_do_not_cover_much_more():
    covered = sum(high - low + 1 for low, high in pixel_ranges(SkyCircle(10.0, 20.0, 0.2)))
    area = covered * 4 * np.pi / (12 * 4.0**16) * np.rad2deg(1) ** 2
    assert area < 3 * np.pi * 0.2**2


@given(positions, st.floats(0.05, 0.3), st.floats(0, 2 * np.pi))
def test_neighbours_that_could_share_an_object_share_a_lock(position, radius, direction):
    ra, dec = position
    dec = float(np.clip(dec, -85, 85))
    step = 2 * radius  # the circles touch
    other = SkyCircle(
        (ra + step * np.cos(direction) / np.cos(np.deg2rad(dec))) % 360, dec + step * np.sin(direction), radius * 1.02
    )
    assert set(lock_pixels(SkyCircle(ra, dec, radius * 1.02))) & set(lock_pixels(other))


@pytest.mark.parametrize("radius", [0.1, 1.0])
def test_locks_are_few_and_in_order(radius):
    pixels = lock_pixels(SkyCircle(359.99, 0.0, radius))
    assert pixels == sorted(set(pixels))
    assert len(pixels) < 60
