"""Kernels of ISR: as their plain equivalents, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from apstream.arrays.brighter_fatter import moved_charge, moved_charge_plain
from apstream.arrays.isr import (
    Masters,
    Planes,
    apply_calibs,
    apply_calibs_plain,
    flag_high,
    follow_bleeds,
    grow_flags,
)
from apstream.arrays.linearity import linearize, linearize_plain
from apstream.arrays.masks import dilate

SHAPE = (40, 50)
NONE = np.zeros((0, 0), np.float32)
BOX = np.array([0, 10, 40, 45])


def planes(seed: int = 0) -> Planes:
    rng = np.random.default_rng(seed)
    image = rng.normal(300, 200, SHAPE).astype(np.float32)
    image[4, 20] = np.nan
    image[5, 21] = np.inf
    return Planes(image, np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.float32))


@pytest.mark.parametrize("which", [(), ("bias",), ("dark", "flat"), ("bias", "dark", "flat")])
def test_calibrations_are_applied_as_in_numpy(which):
    rng = np.random.default_rng(1)
    flat = rng.uniform(0.5, 1.5, SHAPE).astype(np.float32)
    flat[7, 12:16] = 0, -1, np.nan, 0.01
    given_ = {"bias": rng.normal(0, 5, SHAPE).astype("f4"), "dark": rng.random(SHAPE).astype("f4"), "flat": flat}
    masters = Masters(**{name: given_[name] if name in which else NONE for name in given_})
    numbers, bits = np.array([1.7, 5.0, 30.0, 0.05], np.float32), np.array([256, 1])
    fast, plain = planes(), planes()
    apply_calibs(fast, masters, BOX, numbers, bits)
    apply_calibs_plain(plain, masters, BOX, numbers, bits)
    np.testing.assert_array_equal(fast.mask, plain.mask)
    for a, b in zip(fast, plain, strict=True):
        finite = np.isfinite(b)
        np.testing.assert_allclose(a[finite], b[finite], rtol=1e-5, atol=1e-3)
        assert not np.isfinite(a[~finite]).any()
    assert fast.mask[4, 20] & 256
    assert fast.mask[:, :10].sum() == fast.mask[:, 45:].sum() == 0
    if "flat" in which:
        assert fast.mask[7, 12:16].tolist() == [257, 257, 257, 1]


TABLE = np.array([[0.0, 100, 1000, 1e5], [1, 2, -5, 300]])


@pytest.mark.parametrize("coefficients", [np.zeros(0), np.array([2e-6, -1e-11]), TABLE])
def test_linearity_is_as_in_numpy(coefficients):
    image = np.random.default_rng(3).normal(20000, 30000, SHAPE).astype(np.float32)
    image[0, 0] = np.nan
    plain = linearize_plain(image, coefficients)
    linearize(image, coefficients)
    np.testing.assert_allclose(image, plain, rtol=1e-6, atol=1e-2)


def test_a_table_is_constant_beyond_its_ends_and_linear_inside():
    image = np.array([[-50.0, 50, 2e5]], np.float32)
    linearize(image, TABLE)
    np.testing.assert_allclose(image, [[-49, 51.5, 200300]])


def test_charge_moves_as_in_numpy_and_none_is_lost():
    rng = np.random.default_rng(4)
    image, potential = rng.uniform(0, 1000, SHAPE).astype("f4"), rng.normal(0, 1e-3, SHAPE).astype("f4")
    moved = moved_charge(image, potential)
    np.testing.assert_allclose(moved, moved_charge_plain(image, potential), rtol=1e-4, atol=1e-4)
    assert abs(moved.sum(dtype=float)) < 1e-3


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=15)), st.integers(0, 3))
def test_few_pixels_grow_as_many_do(flags, radius):
    mask = np.where(flags, 4, 8).astype(np.int32)
    grow_flags(mask, 4, np.count_nonzero(flags, axis=1), radius)
    np.testing.assert_array_equal((mask & 4) != 0, dilate(flags, radius))


def test_high_pixels_are_flagged_beside_hollow_ones():
    found = planes()
    found.image[10, 12:14] = np.nan, 70000
    found.image[11, 30], found.image[12, 5] = 50000, 70000  # the last lies outside the box
    rows = np.zeros(SHAPE[0], np.int64)
    found.image[5, 21] = 0
    flag_high(found, BOX, np.array([60000, 40000], np.float32), np.array([4, 128]), rows)
    assert {tuple(at): int(found.mask[tuple(at)]) for at in np.argwhere(found.mask).tolist()} == {
        (10, 13): 132,
        (11, 30): 128,
    }
    assert np.flatnonzero(rows).tolist() == [10]


def test_trails_are_followed_up_and_down_until_they_fade_but_not_through_wings():
    image = np.full(SHAPE, 100, np.float32)
    image[5:30, 20] = 3000
    image[15, 20] = 60000
    image[5:30, 30:35] = 3000  # a bright star's core is as bright beside
    image[15, 32] = 60000
    mask = np.zeros(SHAPE, np.int32)
    mask[15, [20, 32]] = 4
    rows = np.count_nonzero(mask, axis=1)
    follow_bleeds(Planes(image, mask, image), BOX, 1000.0, 4, rows)
    assert np.flatnonzero(mask[:, 20]).tolist() == list(range(5, 30))
    assert np.flatnonzero(mask[:, 32]).tolist() == [15]
    np.testing.assert_array_equal(rows, np.count_nonzero(mask, axis=1))
