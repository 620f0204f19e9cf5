from dataclasses import replace

import numpy as np
import pytest

from apstream.errors import BadSettings, NoTemplateOverlap
from apstream.model.bright_objects import BrightObjects, SkyDisc
from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf, psf_of_parts
from apstream.model.summary import CalExpSummary
from apstream.model.wcs import SkyWcs
from apstream.pipeline.coadd_inputs import CoaddInput, covering_skymap, under_patches
from apstream.pipeline.coadds import (
    CoaddConfig,
    coadd_info,
    coadd_patch,
    coadd_warps,
    common_psf,
    input_warp,
    sharp_enough,
)
from apstream.repo.formats.fits import read_calexp, write_image
from apstream.tasks.select_inputs import SelectInputsConfig, select_inputs
from apstream.tasks.template import TemplateConfig, TemplateInput, make_template

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


def test_the_sharpest_are_chosen_and_keep_their_order():
    items = inputs((3.5, 4.0, 3.0))
    chosen = select_inputs([item.quality() for item in items], SelectInputsConfig(best=2))
    assert chosen.kept == (0, 2)
    assert "its PSF of 1.00 arcsec is number 3 of 3" in chosen.left_out[items[1].info.id]


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
    assert made.psf_parts == ()
    assert made.metrics["coadd.psf_misfit"] < 0.01


def test_the_coadd_keeps_what_there_is_of_pixels_that_are_not_clean():
    """Pixels that are bad in all exposures, a gap in all, what no exposure reaches, and a bright star."""
    level, bad, gap = 40.0, Box(100, 100, 104, 140), Box(200, 60, 202, 240)
    exposures = []
    for one in (calexp(k, fwhm) for k, fwhm in enumerate((3.0, 3.5, 4.0))):
        pixels, mask = one.image.image + np.float32(level), one.image.mask.copy()
        mask[bad.slices(BOX)], pixels[bad.slices(BOX)] = planes("BAD"), level + 55
        mask[gap.slices(BOX)], pixels[gap.slices(BOX)] = planes("NO_DATA"), np.nan
        exposures.append(CoaddInput.of(replace(one, image=one.image.with_image(pixels).with_mask(mask))))
    tract = covering_skymap(exposures, patch_size=512, border=0).tract(0)
    ra, dec = (float(v) for v in exposures[0].wcs.pixel_to_sky(250.0, 150.0))
    bright = BrightObjects((SkyDisc(ra=ra, dec=dec, radius_arcsec=2.0),))
    made = coadd_patch(exposures, tract, 0, None, CoaddConfig(warp_type="direct"), bright).calexp.image

    def at(y, x):
        on_tract = tract.wcs.sky_to_pixel(*exposures[0].wcs.pixel_to_sky(np.array(y, float), np.array(x, float)))
        rows, columns = (np.round(v).astype(int) for v in on_tract)
        return np.s_[rows - made.box.y0, columns - made.box.x0]

    x = np.arange(105.0, 135.0)
    assert np.median(made.image[at(0 * x + 101.5, x)]) == pytest.approx(55, abs=3)
    assert (made.mask[at(0 * x + 101.5, x)] & planes("BAD") != 0).all()
    x = np.arange(65.0, 235.0)
    for row in (200.0, 201.0):
        inside = at(0 * x + row, x)
        assert (made.mask[inside] & planes("INTRP") != 0).all()
        assert (made.image[inside] != 0).all()
        assert abs(np.median(made.image[inside])) < 3
    assert np.isnan(made.image[at(330.0, 150.0)])
    assert made.mask[at(330.0, 150.0)] == planes("NO_DATA")
    assert made.mask[at(250.0, 150.0)] & planes("BRIGHT_OBJECT")
    beyond = np.isnan(made.image)
    assert (made.mask[beyond] & planes("INTRP") == 0).all()


LEFT, RIGHT = Box(0, 0, 300, 170), Box(0, 130, 300, 300)


def two_sides(left, right):
    """Two exposures on each side."""
    found = [(calexp(k, left if k % 2 == 0 else right), LEFT if k % 2 == 0 else RIGHT) for k in range(4)]
    return [CoaddInput.of(replace(one, image=one.image.cutout(side))) for one, side in found]


@pytest.mark.parametrize("wide", [4.0, 6.0])
def test_the_psf_is_right_on_each_side_of_where_exposures_end(tmp_path, wide):
    """Two exposures are on the left, two wider ones on the right, and all on a strip: read again, and as a template."""
    sides = {3.0: LEFT, wide: RIGHT}
    items = two_sides(3.0, wide)
    path = tmp_path / "coadd.fits"
    write_image(path, patch(items, CoaddConfig(warp_type="direct")))
    made = read_calexp(path)
    assert made.metrics["coadd.psf_misfit"] > 0.05
    wcs = items[0].wcs
    mean = Psf(0.5 * sum(Psf.gaussian(fwhm, BOX, half=15).basis for fwhm in sides), BOX).fwhm()
    for x, want in ((60.0, 3.0), (150.0, mean), (240.0, wide)):
        y, x = (float(v) for v in made.wcs.sky_to_pixel(*wcs.pixel_to_sky(150.0, x)))
        kernel = psf_of_parts(made.psf_parts, y, x)
        assert Psf(kernel[None], BOX).fwhm() == pytest.approx(want, rel=0.01)
    for fwhm, part in ((3.0, Box(0, 0, 300, 120)), (wide, Box(0, 180, 300, 300))):
        science = calexp(9, 3.5)
        science = replace(science, image=science.image.cutout(part))
        template = make_template([TemplateInput.from_image(made, "coadd")], science, TemplateConfig())
        for y, x in ((10, part.x0 + 10), (290, part.x1 - 10), part.center):
            assert template.psf.fwhm(y, x) == pytest.approx(fwhm, rel=0.01)


@pytest.mark.parametrize(("shrink", "x", "inputs"), [(0, 140.0, 4), (15, 140.0, 2), (15, 150.0, 4), (0, 125.0, 2)])
def test_outlines_may_be_shrunk_for_the_psf(shrink, x, inputs):
    items = two_sides(3.0, 3.4)
    tract = covering_skymap(items, patch_size=512, border=0).tract(0)
    made = coadd_patch(items, tract, 0, None, CoaddConfig(warp_type="direct", psf_shrink_pixels=shrink)).coadd
    y, x = (float(v) for v in tract.wcs.sky_to_pixel(*items[0].wcs.pixel_to_sky(150.0, x)))
    assert len(made.exact_psf.inputs_at(y, x)) == inputs


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
    assert max(max(box.shape) for box in asked) <= 167
    np.testing.assert_allclose(parts.image.image, whole.image.image, atol=0.02)
    np.testing.assert_array_equal(parts.image.mask, whole.image.mask)


def test_choosing_opens_no_pixels():
    """Selection, the common PSF and the patches are settled before any input is opened."""
    closed = [calexp(k, fwhm) for k, fwhm in enumerate((3.0, 3.6, 3.3, 5.5))]

    def refuse(*_):
        raise AssertionError("pixels were opened")

    items = [CoaddInput.deferred(CalExpSummary.of(one), refuse, refuse) for one in closed]
    chosen = select_inputs([item.quality() for item in items], SelectInputsConfig(best=3))
    kept = sharp_enough([items[k] for k in chosen.kept], CoaddConfig())
    skymap = covering_skymap(kept, patch_size=512, border=0)
    assert [item.info.id.visit for item in under_patches(kept, skymap)[0, 0]] == [0, 1, 2]
    assert common_psf(kept, SCALE, CoaddConfig()) is not None
    with pytest.raises(AssertionError, match="opened"):
        coadd_patch(kept, skymap.tract(0), 0, None, CoaddConfig(warp_type="direct"))


def test_a_coadd_is_known_by_its_inputs():
    tract = covering_skymap(inputs((3.0,)), patch_size=512, border=0).tract(0)
    first = replace(info(5), physical_filter="r.01", object_name="deep field")
    made = coadd_info([first, replace(info(6), mid_mjd_tai=60004.0)], [3.0, 1.0], tract, 0, "direct")
    assert (made.physical_filter, made.band, made.object_name) == ("r.01", "r", "deep field")
    assert made.mid_mjd_tai == pytest.approx(60001.0)
    assert made.exposure_s == 60.0
    assert made.id == VisitDetector("coadd", tract.id, 0)


def test_inputs_that_do_not_belong_together_are_refused():
    items = inputs((3.0, 3.2))
    tract = covering_skymap(items, patch_size=512, border=0).tract(0)
    with pytest.raises(ValueError, match="1 weights for 2 inputs"):
        coadd_info([info(1), info(2)], [1.0], tract, 0, "direct")
    with pytest.raises(BadSettings, match="of the bands g, r"):
        coadd_info([info(1), replace(info(2), band="g")], [1.0, 1.0], tract, 0, "direct")
    config = CoaddConfig(warp_type="direct")
    warps = [input_warp(item, tract, tract.outer_box(0), None, config) for item in items]
    with pytest.raises(ValueError, match="shorter"):
        coadd_warps(warps, [items[0].about], tract, 0, config)
    other = replace(items[1].about, photo_calib=PhotoCalib(njy_per_unit=1.0, n_stars=0, relative=True))
    with pytest.raises(BadSettings, match="some have fluxes in nJy"):
        coadd_warps(warps, [items[0].about, other], tract, 0, config)


def test_an_exposure_without_variance_is_left_out_with_the_reason():
    good, bad = calexp(0, 3.0), calexp(1, 3.0)
    gone = MaskedImage.make(bad.image.image, bad.image.mask, np.zeros(BOX.shape), "nJy", BOX)
    items = [CoaddInput.of(good), CoaddInput.of(replace(bad, image=gone))]
    tract = covering_skymap(items, patch_size=512, border=0).tract(0)
    coadd = coadd_patch(items, tract, 0, None, CoaddConfig(warp_type="direct")).coadd
    assert coadd.inputs == (str(good.info.id),)
    assert [(one.name, "variance is broken" in one.reason) for one in coadd.skipped] == [(str(bad.info.id), True)]
