"""Artifacts between epochs, against the truth of a made-up sky: what goes, and what must stay."""

import numpy as np
import pytest

from apstream.arrays.artifacts import ExcessLimits, convolve_plain, max_epochs, separable, smoothed
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
