"""The difference of small synthetic fields: noise, fluxes, direction, masks, failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from subtract_field import Seeing, Sky, field, with_mask

from apstream.arrays.noise import blank_sky
from apstream.errors import NoGoodPixels, SubtractionFailed, TooFewStars, WrongSize
from apstream.model.mask import planes
from apstream.tasks.match_psf import DeltaBasis, MatchConfig, StampConfig
from apstream.tasks.subtract import SubtractConfig, subtract

CONFIG = SubtractConfig()


def sky_pixels(difference, margin=20):
    image = difference.image
    blank = blank_sky(difference.matched_template, image.variance, image.mask != 0)
    inner = np.zeros_like(blank)
    inner[margin:-margin, margin:-margin] = True
    return blank & inner


def transients(size, seed=9, step=64, flux=6000.0):
    rng = np.random.default_rng(seed)
    at = np.arange(40, size - 30, step)
    y, x = (v.ravel() + rng.uniform(-0.5, 0.5, at.size**2) for v in np.meshgrid(at, at, indexing="ij"))
    return Sky(y, x, np.full(y.size, flux))


def psf_flux(difference, y, x):
    """Fluxes and errors by fitting the difference's own PSF at known positions (Fourier-shifted)."""
    from scipy.ndimage import fourier_shift

    fluxes, errors = [], []
    for a, b in zip(y, x, strict=True):
        i, j = round(a), round(b)
        psf = difference.psf.at(a, b)
        psf = np.fft.ifft2(fourier_shift(np.fft.fft2(np.fft.ifftshift(psf)), (a - i, b - j))).real
        psf = np.fft.fftshift(psf)
        h = psf.shape[0] // 2
        part = np.s_[i - h : i + h + 1, j - h : j + h + 1]
        v = np.median(difference.image.variance[part])
        fluxes.append(np.sum(difference.image.image[part] * psf) / np.sum(psf**2))
        errors.append(np.sqrt(v / np.sum(psf**2)))
    return np.array(fluxes), np.array(errors)


@pytest.fixture(scope="module")
def quiet():
    """Equal seeing and depth: nothing but noise."""
    pair = field(template=Seeing(4.2), depth=1.0, seed=11)
    return pair, subtract(pair.science, pair.template, CONFIG)


@pytest.mark.parametrize(
    ("science", "template", "depth", "convolved"),
    [
        (Seeing(4.2), Seeing(4.2), 1.0, "template"),
        (Seeing(4.4), Seeing(3.4, -0.03, -0.02), 5.0, "template"),
        (Seeing(3.3), Seeing(4.2, -0.03, -0.02), 5.0, "science"),
    ],
)
def test_noise_is_white_and_known(science, template, depth, convolved):
    pair = field(science=science, template=template, depth=depth, seed=21)
    difference = subtract(pair.science, pair.template, CONFIG)
    assert difference.convolved == convolved
    blank = sky_pixels(difference)
    noise = difference.image.image
    expected = 1500 * (1 + 1 / depth)
    assert noise[blank].std() == pytest.approx(np.sqrt(expected), rel=0.03)
    assert abs(noise[blank].mean()) < 0.03 * np.sqrt(expected)
    assert np.median(difference.image.variance[blank]) == pytest.approx(expected, rel=0.08)
    for shifted, mask in (
        (noise[:, 1:] * noise[:, :-1], blank[:, 1:] & blank[:, :-1]),
        (noise[1:] * noise[:-1], blank[1:] & blank[:-1]),
    ):
        assert abs(shifted[mask].mean()) < 0.05 * expected
    assert 0.9 < difference.metrics["subtract.variance_scale"] < 1.12


@pytest.mark.parametrize("science", [Seeing(4.4), Seeing(3.0)])
def test_transient_fluxes_are_unbiased(science):
    size = 448
    pair = field(
        size,
        250,
        science=science,
        template=Seeing(3.7, -0.03),
        ratio=2.5,
        transients=transients(size),
        seed=5,
    )
    difference = subtract(pair.science, pair.template, CONFIG)
    flux, error = psf_flux(difference, pair.transients.y, pair.transients.x)
    pull = (flux - 6000) / error
    calm = np.abs(pull) < 8
    assert calm.mean() > 0.85
    assert np.median(flux) == pytest.approx(6000, rel=0.025)
    assert 0.7 < np.std(pull[calm]) < 1.5


def test_stars_leave_little_behind(quiet):
    pair, difference = quiet
    bright = (pair.sky.flux > 2e4) & (np.abs(pair.sky.y - 256) < 220) & (np.abs(pair.sky.x - 256) < 220)
    chi2 = []
    for y, x in zip(pair.sky.y[bright], pair.sky.x[bright], strict=True):
        part = np.s_[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
        chi2.append(np.mean(difference.image.image[part] ** 2 / difference.image.variance[part]))
    assert np.median(chi2) < 1.3


def test_science_is_the_sum_of_its_parts():
    pair = field(256, 120, seed=3, ratio=2.0)
    config = CONFIG.model_copy(update={"whiten": None})
    difference = subtract(pair.science, pair.template, config)
    from apstream.arrays.convolve import polynomial_image

    level = polynomial_image(difference.kernel.background, (256, 256))
    total = difference.image.image + difference.matched_template + level
    np.testing.assert_allclose(total[30:-30, 30:-30], pair.science.image.image[30:-30, 30:-30], atol=0.1)


def test_same_input_same_bytes():
    pair = field(256, 120, seed=3)
    one, two = (subtract(pair.science, pair.template, CONFIG) for _ in range(2))
    assert one.image.image.tobytes() == two.image.image.tobytes()
    assert one.metrics == two.metrics


def test_delta_basis_matches_too():
    pair = field(256, 150, seed=13, bright=1e5)
    match = MatchConfig(kernel=DeltaBasis(half_pixels=4), spatial_degree=0)
    difference = subtract(pair.science, pair.template, SubtractConfig(match=match))
    assert difference.metrics["subtract.residual_ratio"] < 0.05
    assert difference.metrics["subtract.kernel_sum"] == pytest.approx(1, abs=0.02)


def test_masks_travel():
    pair = field(256, 120, seed=3)
    science = replace(
        pair.science, image=with_mask(pair.science.image, np.s_[50:52, 60:62], planes("CR", "DETECTED"))
    )
    image = with_mask(pair.template.image, np.s_[100:102, 100:102], planes("SAT"))
    pixels = image.image.copy()
    pixels[180:200, 30:50] = np.nan
    image = with_mask(image.with_image(pixels), np.s_[150, 200], planes("BAD"))
    difference = subtract(science, replace(pair.template, image=image), CONFIG)
    flagged = difference.image.flagged
    assert flagged(planes("CR"))[50, 60]
    assert not flagged(planes("DETECTED")).any()
    assert not flagged(planes("SAT"))[100, 100]
    saturated = flagged(planes("SAT_TEMPLATE"))
    assert saturated[100, 100]
    assert saturated[98, 100]
    assert not saturated[80, 100]
    assert flagged(planes("BAD"))[150, 200]
    assert flagged(planes("NO_DATA"))[190, 40]
    assert difference.image.image[190, 40] == 0
    assert flagged(planes("EDGE"))[1, 128]
    assert not flagged(planes("EDGE"))[30, 128]
    assert np.isfinite(difference.image.image).all()


def test_boxes_must_agree():
    pair, other = field(128, 30), field(160, 30)
    with pytest.raises(WrongSize, match="warp"):
        subtract(pair.science, other.template, CONFIG)


def test_too_few_stars_says_how_many():
    pair = field(128, 30)
    science = replace(pair.science, stars=pair.science.stars[:0])
    with pytest.raises(TooFewStars, match=r"0 sources.*4 are needed.*min_snr"):
        subtract(science, pair.template, CONFIG)


def test_sources_that_are_not_stars_serve_when_stars_are_few():
    pair = field(256, 150, seed=3)
    stars = pair.science.stars.copy()
    stars["is_star"] = False
    difference = subtract(replace(pair.science, stars=stars), pair.template, CONFIG)
    assert difference.metrics["subtract.n_stamps"] >= 4


def test_nothing_good_is_an_error():
    pair = field(128, 30)
    image = pair.template.image.with_image(np.full((128, 128), np.nan))
    with pytest.raises(NoGoodPixels):
        subtract(pair.science, replace(pair.template, image=image), CONFIG)


def test_another_sky_fails():
    pair, other = field(256, 120, seed=3), field(256, 120, seed=77)
    with pytest.raises(SubtractionFailed):
        subtract(pair.science, other.template, CONFIG)


def test_settings_refuse_unknown_names():
    with pytest.raises(ValueError, match="extra"):
        StampConfig(cels=3)
