"""The stars that shape the PSF are found in any field, and every other source is refused for a reason."""

from __future__ import annotations

import numpy as np
import pytest
from starfield import add_rays, make_field, moffat, shape_at, stamp

from apstream.errors import TooFewStars
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.characterize import CharacterizeConfig, characterize

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)


def found(image, variance, mask=None, **settings) -> CharacterizedExposure:
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    pixels = MaskedImage.make(image, mask, variance, "electron")
    return characterize(Exposure(image=pixels, info=INFO, wcs=None), CharacterizeConfig(**settings))


@pytest.mark.parametrize(
    ("scale", "seeing"), [(0.4, 0.4), (0.4, 0.7), (0.2, 0.4), (0.2, 0.7), (0.3, 1.2), (0.4, 2.5), (0.2, 2.5)]
)
def test_seeing_from_04_to_25_arcsec_is_found_without_a_guess(scale, seeing):
    fwhm = seeing / scale
    size = 300 if fwhm < 6 else 512
    field = make_field(size=size, fwhm=fwhm, n_stars=70, faintest=6000, brightest=3e5, n_galaxies=10, seed=21)
    got = found(field.image, field.variance, stars={"reserve": 0.0})
    half = got.psf.shape[0] // 2
    true = stamp(0, 0, half, lambda a, b: moffat(a, b, fwhm))[2]
    # pixels as wide as the star tell little of what is inside them: the model is of a star anywhere in its pixel
    within = 0.05 if fwhm > 1.5 else 0.3
    assert got.psf.fwhm() == pytest.approx(Psf(true[None], got.psf.box).fwhm(), rel=within)
    assert got.metrics["characterize.n_psf_stars"] > 10
    assert abs(got.metrics["characterize.psf_size_residual"]) < (0.02 if fwhm > 1.5 else 0.05)


def test_few_stars_among_many_galaxies_are_found():
    field = make_field(size=512, fwhm=3.0, n_stars=14, faintest=15000, n_galaxies=250, seed=31)
    got = found(field.image, field.variance)
    assert got.psf.fwhm() == pytest.approx(np.hypot(3.0, 0.75), rel=0.05)
    used = got.stars[got.stars["psf_used"]]
    near = np.hypot(used["y"][:, None] - field.y, used["x"][:, None] - field.x).min(axis=1) < 1.5
    assert near.mean() > 0.9


def test_a_crowded_field_without_empty_sky_is_no_obstacle():
    field = make_field(size=320, fwhm=4.0, n_stars=2500, faintest=400, seed=41)
    got = found(field.image, field.variance)
    assert got.psf.fwhm() == pytest.approx(np.hypot(4.0, 0.75), rel=0.05)
    assert got.metrics["characterize.refused_crowded"] > 0


def test_trailed_stars_are_stars_and_not_rays():
    field = make_field(size=400, fwhm=3.0, n_stars=40, faintest=2e4, vary=0, seed=51)
    trailed = np.mean([np.roll(field.image, k, axis=1) for k in range(-5, 6)], axis=0).astype(np.float32)
    noise = np.random.default_rng(3).normal(0, 1, trailed.shape) * np.sqrt(field.variance)
    got = found((trailed + noise).astype(np.float32), 2 * field.variance)
    assert got.metrics["characterize.n_psf_stars"] >= 15
    kernel = got.psf.central()
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]] - kernel.shape[0] // 2
    assert np.sum(kernel * x**2) > 2 * np.sum(kernel * y**2)
    assert got.metrics["characterize.n_cosmic_ray_pixels"] < 20


def test_every_source_has_a_role_or_a_reason():
    field = make_field(size=400, fwhm=3.0, n_stars=220, faintest=3000, n_galaxies=60, seed=61)
    image, mask = field.image.copy(), np.zeros(field.image.shape, np.int32)
    add_rays(image, n_rays=10)
    brightest = np.argsort(-field.flux)[:3]
    for k in brightest:
        mask[int(field.y[k]) - 1 : int(field.y[k]) + 2, int(field.x[k]) - 1 : int(field.x[k]) + 2] = MaskPlane.SAT
    metrics = found(image, field.variance, mask).metrics
    refused = {name[21:]: count for name, count in metrics.items() if name.startswith("characterize.refused_")}
    assert refused["saturated"] >= 3
    assert refused["faint"] > 0
    assert refused["reserved"] > 0
    assert sum(refused.values()) + metrics["characterize.n_psf_stars"] == metrics["characterize.n_detected"]


def test_a_refusal_says_what_became_of_the_sources():
    field = make_field(size=256, fwhm=4.0, n_stars=30, faintest=500, brightest=2000, seed=71)
    with pytest.raises(TooFewStars, match="faint"):
        found(field.image, field.variance, stars={"min_snr": 500.0}, psf={"min_stars": 10})


def test_reserved_stars_are_left_out_spread_over_the_field_and_the_same_every_time():
    field = make_field(size=400, fwhm=3.0, n_stars=150, faintest=5000, seed=81)
    every = found(field.image, field.variance, stars={"reserve": 0.0})
    some, again = (found(field.image, field.variance, stars={"reserve": 0.25}) for _ in range(2))
    count = some.metrics["characterize.refused_reserved"]
    assert count == pytest.approx(0.25 * every.metrics["characterize.n_psf_stars"], rel=0.2)
    assert some.stars.tobytes() == again.stars.tobytes()
    assert np.any(some.psf.basis != every.psf.basis)
    assert some.metrics["characterize.n_reserved"] > 0.7 * count
    left = some.stars[some.stars["is_star"] & ~some.stars["psf_used"] & (some.stars["flux"] > 2e4)]
    assert np.ptp(left["y"]) > 200
    assert np.ptp(left["x"]) > 200


def test_the_reserved_stars_notice_a_psf_that_does_not_follow_the_field():
    field = make_field(size=512, fwhm=4.0, n_stars=250, vary=4.0, faintest=8000, brightest=3e5, seed=91)
    stiff = found(field.image, field.variance, psf={"degree": 0}, stars={"reserve": 0.25, "locus_width": 0.5})
    free = found(field.image, field.variance, stars={"reserve": 0.25, "locus_width": 0.5})
    assert stiff.metrics["characterize.psf_size_scatter"] > 2 * free.metrics["characterize.psf_size_scatter"]
    assert free.metrics["characterize.psf_size_scatter"] < 0.015
    assert abs(free.metrics["characterize.psf_size_residual"]) < 0.005
    assert abs(free.metrics["characterize.psf_e1_residual"]) < 0.01


def test_bright_stars_far_from_the_mean_shape_are_kept_and_spoilt_ones_are_not():
    field = make_field(size=512, fwhm=3.0, n_stars=200, vary=2.0, faintest=5000, brightest=5e5, seed=95)
    spoilt = np.flatnonzero(np.hypot(field.y - 256, field.x - 256) < 150)[3]  # beside it a source that is not found
    image = field.image.copy()
    y, x = int(field.y[spoilt]), int(field.x[spoilt])
    image[y + 3 : y + 5, x + 2 : x + 5] += 0.015 * field.flux[spoilt]
    result = found(image, field.variance, stars={"reserve": 0.0})
    stars = result.stars
    bright = stars["is_star"] & ~stars["blended"] & (stars["flux"] > 1e5)
    near = np.hypot(stars["y"] - field.y[spoilt], stars["x"] - field.x[spoilt]) < 2
    assert bright.sum() > 10
    assert np.count_nonzero(~stars["psf_used"][bright & ~near]) <= 2
    assert not np.any(stars["psf_used"][near])


def test_the_psf_of_twenty_stars_follows_the_field():
    field = make_field(size=512, fwhm=3.5, n_stars=24, vary=2.0, faintest=3e4, brightest=3e5, seed=97)
    stiff, free = (found(field.image, field.variance, psf={"degree": degree}) for degree in (1, 2))
    assert 18 <= free.metrics["characterize.n_psf_stars"] <= 24
    assert free.metrics["characterize.psf_degree"] == 2
    assert free.metrics["characterize.psf_size_scatter"] < 0.3 * stiff.metrics["characterize.psf_size_scatter"]
    places = [(40.0, 256.0), (256.0, 40.0), (256.0, 256.0), (256.0, 470.0), (470.0, 256.0)]
    ratios = [free.psf.fwhm(y, x) / shape_at(y, x, 512, 3.5, 2.0)[0] for y, x in places]
    assert np.ptp(ratios) < 0.04  # they change by 0.2
