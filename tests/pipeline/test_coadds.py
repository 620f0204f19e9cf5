import numpy as np
import pytest

from apstream.errors import NoTemplateOverlap
from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.pipeline.coadds import (
    CoaddConfig,
    CoaddInput,
    coadd_patch,
    common_psf,
    covering_skymap,
    sharp_enough,
    sharpest,
)

BOX = Box(0, 0, 300, 300)
SCALE = 0.25


def info(visit):
    return ExposureInfo(
        id=VisitDetector("sim", visit, 0),
        band="r",
        physical_filter="r",
        mid_mjd_tai=60000.0,
        exposure_s=30.0,
        ra=10.0,
        dec=20.0,
    )


def calexp(visit, fwhm):
    rng = np.random.default_rng(visit)
    sky = np.random.default_rng(99)
    places, fluxes = sky.uniform(20, 280, (60, 2)), 10 ** sky.uniform(3.5, 5.0, 60)
    y, x = np.mgrid[:300, :300]
    s = fwhm / 2.3548
    image = rng.normal(0, 3.0, BOX.shape)
    for (a, b), flux in zip(places, fluxes, strict=True):
        image += flux * np.exp(-0.5 * ((y - a) ** 2 + (x - b) ** 2) / s**2) / (2 * np.pi * s**2)
    return CalExp(
        image=MaskedImage.make(image, np.zeros(BOX.shape, np.int32), np.full(BOX.shape, 9.0), "nJy", BOX),
        info=info(visit),
        psf=Psf.gaussian(fwhm, BOX, half=15),
        wcs=SkyWcs.tan(10.0, 20.0, pixel_scale_arcsec=SCALE, y=149.5, x=149.5),
        photo_calib=PhotoCalib(njy_per_unit=1.0, n_stars=0),
        stars=np.zeros(0, STAR_DTYPE),
    )


def inputs(widths):
    return [CoaddInput.of(calexp(k, fwhm)) for k, fwhm in enumerate(widths)]


def patch(items, config):
    tract = covering_skymap(items, patch_size=512, border=0).tract(0)
    return coadd_patch(items, tract, 0, common_psf(items, tract.pixel_scale_arcsec, config), config).calexp


def test_the_sharpest_are_chosen():
    assert [item.info.id.visit for item in sharpest(inputs((3.5, 3.0, 4.0)), 2)] == [1, 0]


def test_templates_are_matched_by_default_and_have_the_known_psf():
    made = patch(inputs((3.0, 3.5, 4.0)), CoaddConfig())
    assert made.info.origin.endswith("warps=psf_matched")
    assert made.metrics["coadd.psf_matched"] == 1
    assert made.psf.fwhm() == pytest.approx(1.05 * 4.0, rel=0.01)
    assert made.metrics["coadd.psf_fwhm_ratio"] == pytest.approx(1, abs=0.02)
    assert made.psf.degree == 0 or np.abs(made.psf.basis[1:]).max() < 1e-9


def test_direct_warps_are_switchable():
    made = patch(inputs((3.0, 3.5, 4.0)), CoaddConfig(warp_type="direct"))
    assert made.info.origin.endswith("warps=direct")
    assert made.metrics["coadd.psf_matched"] == 0
    assert 3.0 < made.psf.fwhm() < 4.0


def test_the_common_psf_is_what_is_asked_for():
    config = CoaddConfig.model_validate({"match": {"target_fwhm_arcsec": 1.5}})
    assert patch(inputs((3.0, 3.5)), config).psf.fwhm() == pytest.approx(6.0, rel=0.01)


def test_exposures_too_wide_for_the_common_psf_are_left_out():
    items = inputs((3.0, 3.2, 3.4, 6.0))
    assert [item.info.id.visit for item in sharp_enough(items, CoaddConfig())] == [0, 1, 2]
    assert len(sharp_enough(items, CoaddConfig(warp_type="direct"))) == 4
    narrow = CoaddConfig.model_validate({"match": {"target_fwhm_arcsec": 0.78}})
    assert [item.info.id.visit for item in sharp_enough(items, narrow)] == [0]
    with pytest.raises(NoTemplateOverlap, match="4 exposures are wider"):
        sharp_enough(items, CoaddConfig.model_validate({"match": {"target_fwhm_arcsec": 0.5}}))


def test_parts_read_no_more_than_they_need():
    asked = []
    exposures = [calexp(k, 3.0) for k in range(2)]

    def reader(image):
        def read(box):
            asked.append(box)
            return image.cutout(box)

        return read

    config = CoaddConfig.model_validate({"warp_type": "direct", "assemble": {"subregion_pixels": 100}})
    whole = patch([CoaddInput.of(c) for c in exposures], config)
    parts = patch([CoaddInput.of(c, reader(c.image)) for c in exposures], config)
    assert max(max(box.shape) for box in asked) < 180
    np.testing.assert_allclose(parts.image.image, whole.image.image, atol=0.02)
    np.testing.assert_array_equal(parts.image.mask, whole.image.mask)
