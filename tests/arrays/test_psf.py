from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starfield import add_stamp, moffat, stamp

from apstream.arrays.psf import (
    add_stamps,
    fit_stamps,
    lanczos_taps,
    move_stars,
    psf_flux,
    psf_stamps,
    shift_kernel,
)

FWHM = 3.5


def star(y, x, size=41, flux=1000.0):
    image = np.zeros((size, size))
    add_stamp(image, y, x, 18, lambda a, b: moffat(a, b, FWHM), flux)
    return image.astype(np.float32)


def kernel(half=14):
    values = stamp(0, 0, half, lambda a, b: moffat(a, b, FWHM))[2]
    return values / values.sum()


@given(st.floats(-1, 1))
def test_taps_sum_to_one_and_a_shift_of_whole_pixels_moves_whole_pixels(shift):
    assert lanczos_taps(shift).sum() == pytest.approx(1)
    delta = np.zeros((13, 13))
    delta[6, 6] = 1
    assert shift_kernel(delta, 1.0, -1.0)[7, 5] == pytest.approx(1)


@given(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49))
def test_a_moved_kernel_is_the_star_at_its_place(dy, dx):
    moved = shift_kernel(kernel(), dy, dx)
    true = stamp(dy, dx, 14, lambda a, b: moffat(a, b, FWHM))[2]
    assert np.abs(moved - true).max() < 0.004 * true.max()
    assert moved.sum() == pytest.approx(1, abs=0.003)


def slow_flux(image, variance, moved, row, col):
    half = moved.shape[0] // 2
    part = (slice(row - half, row + half + 1), slice(col - half, col + half + 1))
    good = variance[part] > 0
    weight = np.where(good, moved, 0)
    inside = np.zeros_like(good)
    inside[1:-1, 1:-1] = True
    weight = weight * inside
    flux = np.sum(weight * image[part]) / np.sum(weight**2)
    return flux, np.sqrt(np.sum(weight**2 * np.where(good, variance[part], 0))) / np.sum(weight**2)


@given(st.floats(19, 21), st.floats(19, 21))
def test_the_flux_fit_equals_its_plain_equivalent(y, x):
    rng = np.random.default_rng(1)
    image = star(y, x) + rng.normal(0, 1, (41, 41)).astype(np.float32)
    variance = rng.uniform(0.5, 2, (41, 41)).astype(np.float32)
    variance[18, 22] = np.nan
    row, col = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    expected = slow_flux(image, variance, shift_kernel(kernel(), y - row, x - col), row, col)
    flux, error, chi2 = psf_flux(image, variance, kernel(), y=y, x=x)
    assert (flux, error) == pytest.approx(expected, rel=1e-4)
    assert flux == pytest.approx(1000, abs=5 * error)
    assert 0.5 < chi2 < 2


def test_fit_gives_back_what_was_added_and_tells_the_way_to_the_star():
    y, x, flux = np.array([20.3, 35.1]), np.array([19.6, 30.4]), np.array([1000.0, 400.0])
    basis, terms = kernel()[None], np.ones((2, 1))
    image = np.zeros((60, 60), np.float32)
    add_stamps(image, psf_stamps(basis, terms, y=y, x=x), y, x, flux)
    variance = np.ones_like(image)
    cube = psf_stamps(basis, terms, y=y, x=x)
    fit = fit_stamps(image, variance, cube, y=y, x=x, radius=5.0)
    assert fit["flux"] == pytest.approx(flux, rel=0.01)
    aside = psf_stamps(basis, terms, y=y - 0.1, x=x)
    off = fit_stamps(image, variance, aside, y=y - 0.1, x=x, radius=5.0)
    assert off["fdy"] / off["flux"] == pytest.approx(0.1, abs=0.02)
    add_stamps(image, cube, y, x, -flux)
    assert np.abs(image).max() < 1e-4


def test_stars_off_the_image_or_without_pixels_are_nan_not_errors():
    image, variance = np.zeros((20, 20), np.float32), np.full((20, 20), np.nan, np.float32)
    variance[:, 10:] = 1
    y, x = np.array([-30.0, 10.0, 10.0]), np.array([5.0, 2.0, 15.0])
    cube = psf_stamps(kernel(5)[None], np.ones((3, 1)), y=y, x=x)
    fit = fit_stamps(image, variance, cube, y=y, x=x, radius=4.0)
    assert list(np.isnan(fit["flux"])) == [True, True, False]
    add_stamps(image, cube, y, x, np.array([1.0, np.nan, 1.0]))
    assert np.all(np.isfinite(image))


def test_moving_stars_is_adding_them_where_they_were_and_subtracting_them_where_they_are():
    rng = np.random.default_rng(6)
    rows, cols = np.mgrid[-9:10, -9:10]
    round_, long = (np.exp(-0.5 * (rows**2 + (cols / w) ** 2) / 2.2) for w in (1.0, 1.5))
    basis, terms = (
        np.array([round_ + long, 0.2 * (long - round_)]),
        np.column_stack([np.ones(40), rng.uniform(-1, 1, 40)]),
    )
    old = rng.uniform(-3, 63, 40), rng.uniform(-3, 83, 40), rng.uniform(10, 1e4, 40)  # some beyond the border
    new = *(values + rng.uniform(-0.8, 0.8, 40) for values in old[:2]), rng.uniform(10, 1e4, 40)
    old[2][3] = np.nan
    image = rng.normal(0, 5, (60, 80)).astype(np.float32)
    moved, chosen = image.copy(), np.sort(rng.choice(40, 25, replace=False))
    cube = psf_stamps(basis, terms, y=old[0], x=old[1])
    kept = cube.copy()
    move_stars(moved, cube, basis, terms[chosen], chosen, *(tuple(v[chosen] for v in place) for place in (old, new)))
    there = psf_stamps(basis, terms[chosen], y=new[0][chosen], x=new[1][chosen])
    add_stamps(image, kept[chosen], old[0][chosen], old[1][chosen], old[2][chosen])
    add_stamps(image, there, new[0][chosen], new[1][chosen], -new[2][chosen])
    np.testing.assert_allclose(moved, image, atol=2e-3)
    np.testing.assert_array_equal(cube[chosen], there)
    others = np.setdiff1d(np.arange(40), chosen)
    np.testing.assert_array_equal(cube[others], kept[others])
