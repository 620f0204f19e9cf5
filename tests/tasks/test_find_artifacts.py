"""Artifacts between epochs, against the truth of a made-up sky: what goes, and what must stay."""

import numpy as np
import pytest

from apstream.arrays.artifacts import (
    ExcessLimits,
    convolve_plain,
    max_epochs,
    saturated_in_most,
    separable,
    smoothed,
)
from apstream.arrays.running_mean import used_input
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.psf import Psf
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.warped_input import WarpedInput

BOX = Box(0, 0, 360, 360)
NOISE = 5.0
CLIPPED = planes("CLIPPED")


def moffat(fwhm, half=30):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.0) - 1)
    profile = (1 + (y**2 + x**2) / alpha**2) ** -3.0
    return profile / profile.sum()


def scene(psf, places, fluxes):
    out = np.zeros(BOX.shape)
    half = psf.shape[0] // 2
    for (y, x), flux in zip(places, fluxes, strict=True):
        out[y - half : y + half + 1, x - half : x + half + 1] += flux * psf
    return out


def epochs(n, seed=0):
    """Stars of S/N 20 to 3000, seeing 0.7 to 1.3 arcsec on pixels of 0.25; image and noiseless truth."""
    rng = np.random.default_rng(seed)
    places = [(int(y), int(x)) for y in range(40, 330, 35) for x in range(40, 330, 35)]
    fluxes = 10 ** rng.uniform(2.7, 6.0, len(places))
    widths = np.linspace(0.7, 1.3, n)[rng.permutation(n)] / 0.25
    out = []
    for fwhm in widths:
        psf = moffat(fwhm)
        truth = scene(psf, places, fluxes)
        variance = truth + NOISE**2
        pixels = truth + rng.normal(size=BOX.shape) * np.sqrt(variance)
        out.append((pixels, truth, variance, psf))
    return out, places, fluxes


def coadded(found, added=None, **settings):
    inputs = []
    for k, (pixels, _, variance, psf) in enumerate(found):
        extra = 0 if added is None else added.get(k, 0)
        image = MaskedImage.make(pixels + extra, np.zeros(BOX.shape, np.int32), variance, "nJy", BOX)
        inputs.append(WarpedInput.from_image(str(k), image, psf=Psf(psf[None], BOX)))
    return assemble_coadd(inputs, BOX, AssembleCoaddConfig.model_validate(settings))


def ideal(found, out, index=0):
    return np.average([f[index] for f in found], axis=0, weights=out.weights)


@pytest.mark.parametrize("n", [3, 4, 10])
def test_stars_are_not_touched_whatever_the_seeing(n):
    found, places, fluxes = epochs(n, seed=n)
    out = coadded(found)
    assert ((out.image.mask & CLIPPED) != 0).mean() < 1e-3
    touched = [(out.image.mask[y - 4 : y + 5, x - 4 : x + 5] & CLIPPED).any() for y, x in places]
    assert np.mean(touched) < 0.02
    mean, truth = out.image.image, ideal(found, out)
    for (y, x), flux in zip(places, fluxes, strict=True):
        spot = np.s_[y - 12 : y + 13, x - 12 : x + 13]
        if flux > 100 * NOISE * np.sqrt(200):
            assert abs(mean[spot].sum() / truth[spot].sum() - 1) < 0.002


def trail(width, brightness):
    y, x = np.mgrid[: BOX.shape[0], : BOX.shape[1]]
    distance = (0.4 * x - y + 120) / np.hypot(0.4, 1)
    return brightness * np.exp(-0.5 * (distance / width) ** 2) + 0.02 * brightness / (1 + (distance / (4 * width)) ** 2)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_asteroids_trails_and_rays_vanish(n):
    found, places, _ = epochs(n, seed=20 + n)
    asteroid = scene(found[0][3], [(57, 57), (127, 92), (232, 197)], [2000.0, 8000.0, 50000.0])
    moving = scene(found[1][3], [(93, 230), (93, 232), (93, 234), (93, 236), (94, 238)], [1500.0] * 5)
    ray = np.zeros(BOX.shape)
    ray[300, 180:188] = 300.0
    satellite = trail(2.0, 60.0)
    added = {0: asteroid, 1: moving + ray, 2: satellite}
    out = coadded(found, added)
    truth = ideal(found, out)
    sigma = np.sqrt(out.image.variance)
    light = sum((added[k] for k in added), np.zeros(BOX.shape))
    psf = moffat(4.0, 10)
    pull = convolve_plain(((out.image.image - truth) / sigma).astype(np.float32), psf / np.sqrt((psf**2).sum()))
    hurt = light > 0.3 * NOISE
    away = np.ones(BOX.shape, bool)
    for y, x in places:
        away[y - 12 : y + 13, x - 12 : x + 13] = False
    assert abs(((out.image.image - truth) / sigma)[hurt & away].mean()) < 0.15
    assert np.abs(pull[57, 57]) < 3.5
    assert np.abs(pull[232, 197]) < 3.5
    assert np.abs(pull[94, 234]) < 3.5
    core = np.abs((0.4 * np.arange(360)[None] - np.arange(360)[:, None] + 120) / np.hypot(0.4, 1)) < 1
    assert abs(((out.image.image - truth) / sigma)[core & away].mean()) < 0.3
    assert (out.image.mask[300, 181:187] & CLIPPED).all()


def test_faint_outliers_beside_a_star_vanish():
    found, places, fluxes = epochs(6, seed=3)
    k = int(np.argmin(np.abs(np.log(fluxes / 2e5))))
    y, x = places[k]
    beside = scene(found[0][3], [(y + 6, x + 7)], [6000.0])
    out = coadded(found, {0: beside})
    used = np.stack([used_input(out.input_map, k) for k in range(6)])
    assert not used[0, y + 6, x + 7]
    weights = used * np.array(out.weights)[:, None, None]
    truth = (weights * np.stack([f[1] for f in found])).sum(axis=0) / weights.sum(axis=0)
    spot = np.s_[y + 4 : y + 9, x + 5 : x + 10]
    assert abs((out.image.image - truth)[spot].sum()) < 3 * np.sqrt(out.image.variance[spot].sum())


def test_what_most_epochs_show_is_kept():
    found, _, _ = epochs(10, seed=9)
    variable = {k: scene(found[k][3], [(57, 57)], [9000.0]) for k in range(5)}
    out = coadded(found, variable)
    assert not (out.image.mask[55:60, 55:60] & CLIPPED).any()
    assert (out.count[55:60, 55:60] == 10).all()


def test_number_of_epochs_allowed():
    assert max_epochs(np.array([0, 2, 3, 4, 5, 10, 30, 100]), ExcessLimits()).tolist() == [0, 0, 1, 1, 2, 2, 2, 5]


def test_parts_give_the_same_bits():
    found, _, _ = epochs(4, seed=5)
    added = {0: scene(found[0][3], [(127, 130)], [20000.0]), 2: trail(2.0, 40.0)}
    whole = coadded(found, added)
    parts = coadded(found, added, subregion_pixels=100)
    np.testing.assert_array_equal(parts.image.mask, whole.image.mask)
    np.testing.assert_array_equal(parts.image.image, whole.image.image)


def test_a_separable_sum_is_the_kernel():
    kernel = moffat(3.5, 8) - 0.3 * moffat(6.0, 8)
    image = np.random.default_rng(0).normal(size=(50, 61)).astype(np.float32)
    near = separable(kernel, tolerance=1e-7, rank=17)
    np.testing.assert_allclose(smoothed(image, near), convolve_plain(image, kernel), atol=1e-5)
    few = separable(kernel)
    assert np.abs(few.kernel - kernel).max() < 0.01 * kernel.max()
    assert few.kernel.sum() == pytest.approx(kernel.sum())


def saturated_star(found, exposures, level=3e4):
    """Add a star that saturates, whose wings no PSF knows; return images and masks."""
    y, x = np.mgrid[: BOX.shape[0], : BOX.shape[1]]
    distance = np.hypot(y - 197, x - 180)
    out = []
    for k, (pixels, _, variance, psf) in enumerate(found):
        star = scene(psf, [(197, 180)], [8e6]) + 2e4 * (1 + k % 2) / (1 + (distance / 4) ** 2) ** 3
        mask = np.where((star > level) & (k in exposures), planes("SAT"), 0).astype(np.int32)
        light = np.where(mask != 0, level, star if k in exposures else 0)
        out.append((pixels + light, mask, variance + light, psf))
    return out


def coadded_with_masks(found):
    inputs = [
        WarpedInput.from_image(str(k), MaskedImage.make(pixels, mask, variance, "nJy", BOX), psf=Psf(psf[None], BOX))
        for k, (pixels, mask, variance, psf) in enumerate(found)
    ]
    return assemble_coadd(inputs, BOX, AssembleCoaddConfig())


def test_wings_of_saturated_stars_keep_all_exposures():
    found, _, _ = epochs(5, seed=11)
    asteroid = scene(found[2][3], [(60, 75)], [20000.0])
    bright = saturated_star(found, range(5))
    bright[2] = (bright[2][0] + asteroid, *bright[2][1:])
    out = coadded_with_masks(bright)
    clipped = (out.image.mask & CLIPPED) != 0
    y, x = np.mgrid[: BOX.shape[0], : BOX.shape[1]]
    distance = np.hypot(y - 197, x - 180)
    assert clipped[(distance > 9) & (distance < 17)].mean() < 0.02
    assert clipped[59:62, 74:77].all()


def test_what_saturates_in_one_exposure_goes_with_its_wings():
    found, _, _ = epochs(5, seed=12)
    out = coadded_with_masks(saturated_star(found, [1]))
    y, x = np.mgrid[: BOX.shape[0], : BOX.shape[1]]
    wings = np.abs(np.hypot(y - 197, x - 180) - 12) < 2
    assert (out.image.mask[wings] & CLIPPED != 0).mean() > 0.98


def test_saturated_in_most_is_what_whole_arrays_say():
    rng = np.random.default_rng(6)
    masks = [np.where(rng.random((40, 150)) < 0.6, 6, 1).astype(np.int32) for _ in range(4)]
    masks = [np.where(np.arange(150) < 70, mask, 0).astype(np.int32) for mask in masks]
    good = np.stack([(mask & 4 == 0) & (rng.random(mask.shape) < 0.8) for mask in masks])
    plain = sum((mask & 4 != 0).astype(int) for mask in masks) > good.sum(axis=0)
    assert plain.any()
    assert np.array_equal(saturated_in_most(masks, good, 4), plain)
    assert saturated_in_most(masks, np.ones_like(good), 8) is None
