from __future__ import annotations

import numpy as np
import pytest
from starfield import add_rays, make_field, moffat, stamp

from apstream.arrays.cosmic import find_cosmic_rays, repair, sharpness_limits, spare_stars


def kernel(fwhm):
    return stamp(0, 0, 8, lambda a, b: moffat(a, b, fwhm))[2]


def test_limits_rise_as_the_psf_narrows():
    wide, narrow = (sharpness_limits(kernel(f)[None]) for f in (2.6, 1.8))
    assert np.all(narrow >= wide)
    assert np.all(narrow > 1.3)


@pytest.mark.parametrize("fwhm", [1.6, 2.5, 5.0])
def test_stars_alone_are_no_cosmic_rays(fwhm):
    f = make_field(size=256, n_stars=60, fwhm=fwhm, vary=0, brightest=1e6, faintest=5000, seed=2)
    image = (f.image - f.sky).astype(np.float32)
    hit = find_cosmic_rays(
        image, f.variance, np.zeros(image.shape, bool), sharpness_limits(kernel(fwhm)[None], margin=1.1)
    )
    rows, _ = spare_stars(image, hit, minor=fwhm / 2.355, axis_ratio=1.0)
    assert len(rows) <= 2


def test_tracks_are_followed_to_their_ends_and_bad_pixels_left_alone():
    f = make_field(size=256, n_stars=20, fwhm=3.0, vary=0, seed=4)
    image = (f.image - f.sky).astype(np.float32)
    rays = add_rays(image, n_rays=25, low=300)
    bad = np.zeros(image.shape, bool)
    bad[100:110] = True
    hit = find_cosmic_rays(image, f.variance, bad, sharpness_limits(kernel(3.0)[None], margin=1.1))
    assert not hit[bad].any()
    strong = (rays > 10 * np.sqrt(f.variance)) & ~bad
    assert (rays * (hit & strong)).sum() > 0.95 * (rays * strong).sum()


def test_repair_takes_the_surroundings_and_zero_where_there_are_none():
    x = np.mgrid[:40, :40][1]
    image = (100 + 2 * x).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    bad[:, 30:] = True
    rows, cols = np.array([10, 11, 20]), np.array([10, 10, 39])
    values = repair(image, rows, cols, bad, sigma=1.0)
    assert values[:2] == pytest.approx([120, 120], abs=0.5)
    assert values[2] == 0


def test_a_round_group_is_spared_and_a_track_is_not():
    image = np.zeros((40, 40), np.float32)
    image[8:13, 8:13] = 100
    image[30, 5:25] = 100
    rows, _ = spare_stars(image, image > 0, minor=1.5, axis_ratio=1.0)
    assert set(rows) == {30}
