from __future__ import annotations

import numpy as np

from apstream.arrays.stamps import add_models, gather_stamps, psf_stamps, stamp_corners
from apstream.model.geometry import Box
from apstream.model.psf import Psf


def test_middle_pixel_holds_the_position():
    cy, cx = stamp_corners(np.array([10.4, 10.6]), np.array([-0.4, 7.0]), 5)
    assert cy.tolist() == [8, 9]
    assert cx.tolist() == [-2, 5]


def test_stamps_equal_slices_and_are_padded_outside():
    image = np.arange(80, dtype=np.float32).reshape(8, 10)
    stamps = gather_stamps(image, np.array([2, -2, 20]), np.array([3, 8, 3]), side=5, fill=np.nan)
    assert np.array_equal(stamps[0], image[2:7, 3:8])
    assert np.array_equal(stamps[1][2:, :2], image[:3, 8:])
    assert np.isnan(stamps[1][:2]).all()
    assert np.isnan(stamps[1][:, 2:]).all()
    assert np.isnan(stamps[2]).all()


def test_psf_stamps_equal_the_psf_at_each_position():
    box = Box(0, 0, 100, 200)
    flat = Psf.gaussian(4.0, box).basis[0]
    psf = Psf(np.stack([flat, 0.1 * flat.T * np.linspace(-1, 1, 25), 0.05 * flat]), box)
    y, x = np.array([3.0, 50.0]), np.array([190.0, 20.0])
    stamps = psf_stamps(psf.basis, *box.normalize(y, x))
    for k in range(2):
        np.testing.assert_allclose(stamps[k], psf.at(y[k], x[k]), atol=1e-12)


def test_models_are_added_middle_upon_middle():
    rng = np.random.default_rng(8)
    rows, flux = np.array([4, 0, 2]), rng.uniform(1, 9, 5)
    for side, h in ((9, 5), (5, 9)):
        data, cube = (
            rng.normal(0, 1, (3, side, side)).astype(np.float32),
            rng.normal(0, 1, (5, h, h)).astype(np.float32),
        )
        want, pad = data.copy(), abs(side - h) // 2
        inner = slice(pad, pad + min(side, h))
        for k, row in enumerate(rows):
            if side > h:
                want[k, inner, inner] += flux[row] * cube[row]
            else:
                want[k] += flux[row] * cube[row, inner, inner]
        add_models(data, cube, rows, flux)
        np.testing.assert_allclose(data, want, rtol=1e-5, atol=1e-5)
