"""The joint fit: positions are as good as the light allows, and errors are what they are said to be."""

import numpy as np
import pytest

from apstream.arrays.deblend import fit_jointly, neighbour_lists
from apstream.arrays.psf import add_stamps, psf_stamps
from apstream.arrays.psf_model import moffat_kernel

SKY, STEP, SIDE = 400.0, 40, 20


def scene(fwhm: float, flux: float):
    """A grid of stars, noise, and what is left with the truth subtracted."""
    rng = np.random.default_rng(5)
    y, x = (a.ravel() + rng.uniform(-0.5, 0.5, SIDE**2) for a in np.mgrid[:SIDE, :SIDE] * STEP + STEP / 2)
    cube = psf_stamps(moffat_kernel(fwhm, 14)[None], np.ones((len(y), 1)), y=y, x=x)
    light = np.zeros((SIDE * STEP, SIDE * STEP), np.float32)
    add_stamps(light, cube, y, x, np.full(len(y), flux))
    residual = (rng.poisson(light + SKY) - SKY - light).astype(np.float32)
    return residual, light + np.float32(SKY), cube, y, x


def bounds(fwhm: float, flux: float, y, x):
    """The Cramer-Rao bounds of the y of stars, pixels."""
    step, ones = 0.02, np.ones((len(y), 1))
    up, at, down = (psf_stamps(moffat_kernel(fwhm, 14)[None], ones, y=y + s, x=x) for s in (step, 0, -step))
    same = np.abs(y - np.rint(y)) < 0.5 - step  # no change of the central pixel
    slope = flux * (up.astype(float) - down) / (2 * step)
    return np.sum(slope**2 / (SKY + flux * np.maximum(at, 0)), axis=(1, 2))[same] ** -0.5


@pytest.mark.parametrize("fwhm", [2.4, 4.0])
@pytest.mark.parametrize("flux", [1e4, 3e5])
def test_positions_reach_the_bound_and_errors_are_true(fwhm: float, flux: float):
    residual, variance, cube, y, x = scene(fwhm, flux)
    fit = fit_jointly(
        (residual, variance), (cube, y, x), neighbour_lists(y, x, 10.0), free=np.ones(len(y), bool), radius=1.5 * fwhm
    )
    off = np.concatenate([fit["fdy"], fit["fdx"]]) / flux
    error = np.concatenate([fit["fdy_err"], fit["fdx_err"]]) / flux
    assert np.std(off) == pytest.approx(np.sqrt(np.mean(bounds(fwhm, flux, y, x) ** 2)), rel=0.13)
    assert np.std(off / error) == pytest.approx(1, abs=0.09)
    assert np.std(fit["flux"] / fit["flux_err"]) == pytest.approx(1, abs=0.12)
