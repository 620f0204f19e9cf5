"""Whence the PSF comes: measured in rounds that end, supplied, or a Gaussian asked for; never by itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError
from starfield import Field, make_field

from apstream.errors import BadSettings, MissingPsf, TooFewStars
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.tasks.characterize import CharacterizeConfig, characterize

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)
SUPPLIED = CharacterizeConfig(psf_source="supplied")
SIZE = 320


def exposure(field: Field, psf: Psf | None = None, wcs: SkyWcs | None = None, box: Box | None = None) -> Exposure:
    image = MaskedImage.make(field.image, np.zeros(field.image.shape, np.int32), field.variance, "electron", box)
    return Exposure(image=image, info=INFO, wcs=wcs, psf=psf)


@pytest.fixture(scope="module")
def field() -> Field:
    return make_field(size=SIZE, fwhm=3.5, n_stars=110, faintest=3000, seed=12)


@pytest.fixture(scope="module")
def measured(field: Field) -> CharacterizedExposure:
    return characterize(exposure(field))


def test_a_supplied_psf_is_used_as_it_is(field, measured):
    found = characterize(exposure(field, measured.psf), SUPPLIED)
    assert found.psf.basis.tobytes() == measured.psf.basis.tobytes()
    assert found.metrics["characterize.psf_measured"] == 0
    assert found.metrics["characterize.n_psf_stars"] == 0
    assert found.metrics["characterize.n_stars"] > 20
    assert abs(found.metrics["characterize.psf_size_residual"]) < 0.01
    assert len(found.stars) == pytest.approx(len(measured.stars), abs=5)
    assert found.aperture_correction == pytest.approx(measured.aperture_correction, abs=0.01)


def test_a_supplied_psf_that_is_wrong_shows_in_the_quality_numbers(field):
    wrong = Psf.gaussian(6.0, Box.from_shape(field.image.shape))
    assert characterize(exposure(field, wrong), SUPPLIED).metrics["characterize.psf_size_residual"] < -0.2


def test_a_supplied_psf_serves_a_field_too_poor_to_measure_one(measured):
    poor = make_field(size=SIZE, fwhm=3.5, n_stars=2, faintest=2000, brightest=3000, seed=3)
    with pytest.raises(TooFewStars):
        characterize(exposure(poor))
    found = characterize(exposure(poor, measured.psf), SUPPLIED)
    assert len(found.stars) >= 2


def test_a_missing_psf_is_refused_with_a_remedy(field):
    with pytest.raises(MissingPsf, match="no PSF came") as refused:
        characterize(exposure(field), SUPPLIED)
    assert "--psf" in refused.value.remedy


def test_a_supplied_psf_follows_the_box_of_the_image(field, measured):
    """A PSF given for a whole detector is right on a part of it."""
    part = Box(40, 60, 300, 310)
    moved = measured.psf.on(part)
    for y, x in ((40, 60), (170, 185), (299, 309)):
        assert moved.at(y, x) == pytest.approx(measured.psf.at(y, x), abs=1e-10)
    whole = exposure(field, measured.psf)
    found = characterize(dataclasses.replace(whole, image=whole.image.cutout(part)), SUPPLIED)
    assert found.psf.box == part
    assert abs(found.metrics["characterize.psf_size_residual"]) < 0.01


def test_a_gaussian_is_used_only_with_a_width_given_on_purpose(field):
    with pytest.raises(ValidationError, match="gaussian_fwhm_arcsec"):
        CharacterizeConfig(psf_source="gaussian")
    with pytest.raises(ValidationError, match="not used"):
        CharacterizeConfig(gaussian_fwhm_arcsec=1.0)
    with pytest.raises(ValidationError, match="one of"):
        CharacterizeConfig(psf_source="gaussian", gaussian_fwhm_arcsec=1.0, gaussian_fwhm_pixel=4.0)


def test_the_width_of_a_gaussian_is_in_arcsec_where_the_scale_is_known(field):
    wcs = SkyWcs.tan(150.0, 2.0, pixel_scale_arcsec=0.25, y=160, x=160)
    arcsec = CharacterizeConfig(psf_source="gaussian", gaussian_fwhm_arcsec=1.0)
    found = characterize(exposure(field, wcs=wcs), arcsec)
    assert found.psf.fwhm() == pytest.approx(4.0, abs=0.15)
    with pytest.raises(BadSettings, match="no WCS") as refused:
        characterize(exposure(field), arcsec)
    assert "gaussian_fwhm_pixel" in refused.value.remedy
    pixel = CharacterizeConfig(psf_source="gaussian", gaussian_fwhm_pixel=4.0)
    assert characterize(exposure(field), pixel).psf.basis == pytest.approx(found.psf.basis, rel=1e-9)


def test_rounds_stop_when_nothing_changes(measured):
    assert measured.metrics["characterize.converged"] == 1
    assert measured.metrics["characterize.rounds"] <= 2
    assert measured.metrics["characterize.fwhm_change"] < CharacterizeConfig().fwhm_tolerance


def test_rounds_stop_at_the_limit_and_say_that_they_did_not_converge(field, measured):
    strict = CharacterizeConfig(iterations=2, fwhm_tolerance=1e-12, sky_tolerance=1e-12)
    found = characterize(exposure(field), strict)
    assert found.metrics["characterize.rounds"] == 2
    assert found.metrics["characterize.converged"] == 0
    assert found.psf.fwhm() == pytest.approx(measured.psf.fwhm(), rel=0.01)


def test_a_first_guess_that_is_far_off_costs_a_round_and_not_the_result(field, measured):
    crowded = make_field(size=SIZE, fwhm=3.5, n_stars=1500, faintest=300, seed=5)
    found = characterize(exposure(crowded), CharacterizeConfig(sky_tolerance=0.03, iterations=4))
    assert found.metrics["characterize.rounds"] > 1
    assert found.metrics["characterize.converged"] == 1
    assert found.psf.fwhm() == pytest.approx(np.hypot(3.5, 0.8), rel=0.05)
