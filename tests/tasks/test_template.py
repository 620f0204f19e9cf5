from dataclasses import replace

import numpy as np
import pytest

from apstream.errors import NoTemplateOverlap, TooFewStars
from apstream.model.exposures import STAR_DTYPE, Background, CharacterizedExposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.skymap import SkyMap
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs
from apstream.tasks.register import scaled_calexp
from apstream.tasks.template import TemplateConfig, TemplateInput, make_template

SHAPE = (256, 256)
SCALE = 0.25
RA, DEC = 150.0, -30.0


def sky_stars(seed=0, n=150):
    rng = np.random.default_rng(seed)
    reach = 60 / 3600
    return (
        RA + rng.uniform(-reach, reach, n) / np.cos(np.deg2rad(DEC)),
        DEC + rng.uniform(-reach, reach, n),
        10 ** rng.uniform(3, 5, n),
    )


def render(wcs, box, fwhm, sky, shift=(0.0, 0.0)):
    """Return (image, stars) of the sky's stars; `shift` is what the WCS does not know."""
    ra, dec, flux = sky
    y, x = wcs.sky_to_pixel(ra, dec)
    y, x = y + shift[0], x + shift[1]
    near = box.grow(15).contains(y, x)
    image = np.zeros(box.shape, np.float32)
    s = fwhm / 2.3548
    for a, b, f in zip(y[near], x[near], flux[near], strict=True):
        y0, x0 = max(int(a) - 15, box.y0), max(int(b) - 15, box.x0)
        y1, x1 = min(int(a) + 17, box.y1), min(int(b) + 17, box.x1)
        if y1 <= y0 or x1 <= x0:
            continue
        ys, xs = np.mgrid[y0:y1, x0:x1]
        spot = f * np.exp(-0.5 * ((ys - a) ** 2 + (xs - b) ** 2) / s**2) / (2 * np.pi * s**2)
        image[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] += spot
    inside = box.contains(y, x)
    stars = np.zeros(int(inside.sum()), STAR_DTYPE)
    stars["y"], stars["x"], stars["flux"] = y[inside], x[inside], flux[inside]
    stars["flux_err"], stars["y_err"], stars["x_err"], stars["is_star"] = 30, 0.02, 0.02, True
    full = MaskedImage.make(image, np.zeros(box.shape, np.int32), np.full(box.shape, 100.0), "nJy", box)
    return full, stars


def make_science(wcs=None, fwhm=4.0, seed=0):
    box = Box.from_shape(SHAPE)
    wcs = wcs or SkyWcs.tan(RA, DEC, pixel_scale_arcsec=SCALE, y=127.5, x=127.5, rotation=12.0)
    image, stars = render(wcs, box, fwhm, sky_stars(seed))
    char = CharacterizedExposure(
        image=replace(image, unit="electron"),
        info=ExposureInfo(
            id=VisitDetector("simcam", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
        ),
        wcs=wcs,
        psf=Psf.gaussian(fwhm, box),
        background=Background(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32), box, 128),
        stars=stars,
        aperture_correction=1.0,
    )
    return scaled_calexp(char, wcs, PhotoCalib(njy_per_unit=1.0), {})


def make_input(wcs, box, *, fwhm=4.0, shift=(0.0, 0.0), name="t", seed=0, with_stars=True):
    image, stars = render(wcs, box, fwhm, sky_stars(seed), shift)
    return TemplateInput(
        image=image, psf=Psf.gaussian(fwhm, box), name=name, wcs=wcs, stars=stars if with_stars else None
    )


def other_wcs():
    return SkyWcs.tan(RA, DEC, pixel_scale_arcsec=SCALE * 0.98, y=200.3, x=199.6, rotation=-3.0)


def residual(template, science):
    inner = np.s_[12:-12, 12:-12]
    return np.abs(template.image.image - science.image.image)[inner].max() / science.image.image.max()


def test_single_input_lands_on_the_science_grid_with_flux_and_psf():
    science = make_science(fwhm=4.0)
    template = make_template([make_input(other_wcs(), Box(0, 0, 400, 400), fwhm=4.0 / 0.98)], science, TemplateConfig())
    assert template.box == science.box
    assert template.image.unit == "nJy"
    assert template.coverage == 1.0
    assert residual(template, science) < 0.01
    np.testing.assert_allclose(template.psf.central(), science.psf.central(), atol=2e-4)
    assert np.median(template.image.variance) == pytest.approx(100 / 0.98**4, rel=1e-3)
    assert template.inputs == ("t",)


@pytest.mark.parametrize("with_stars", [True, False])
def test_stars_correct_what_the_wcs_leaves(with_stars):
    science = make_science(fwhm=4.0)
    spoiled = make_input(other_wcs(), Box(0, 0, 400, 400), fwhm=4.0 / 0.98, shift=(0.6, -0.45), with_stars=with_stars)
    blind = make_template([spoiled], science, TemplateConfig(check_radius_pixels=None))
    seeing = make_template([spoiled], science, TemplateConfig())
    assert residual(blind, science) > 0.1
    assert residual(seeing, science) < 0.012


def test_wrong_wcs_falls_back_to_patterns_and_no_wcs_uses_them():
    science = make_science(fwhm=4.0)
    away = make_input(other_wcs(), Box(0, 0, 400, 400), fwhm=4.0 / 0.98, shift=(25.0, -14.0))
    assert residual(make_template([away], science, TemplateConfig()), science) < 0.012
    bare = replace(away, wcs=None)
    assert residual(make_template([bare], science, TemplateConfig()), science) < 0.012
    with pytest.raises(TooFewStars):
        make_template([replace(bare, stars=None)], science, TemplateConfig())


def test_patches_of_a_sky_map_merge_without_a_seam():
    tract = Tract(ra=RA, dec=DEC, pixel_scale_arcsec=SCALE, patches=(2, 2), patch_size=200, border=20)
    science = make_science(fwhm=4.0)
    patches = SkyMap.discrete([tract]).patches_under(science.wcs, science.box)
    assert patches == [(0, 0), (0, 1), (0, 2), (0, 3)]
    inputs = [make_input(tract.wcs, tract.patch_box(p), name=f"patch {p}") for _, p in patches]
    template = make_template(inputs, science, TemplateConfig())
    assert template.coverage == 1.0
    assert residual(template, science) < 0.01
    assert len(template.inputs) == 4
    variance = template.image.variance
    assert variance.max() == pytest.approx(100, rel=0.01)
    assert variance.min() > 24


def test_part_without_cover_is_marked_and_finite():
    science = make_science(fwhm=4.0)
    half = make_input(science.wcs, Box(0, 0, 256, 100))
    template = make_template([half], science, TemplateConfig())
    assert template.coverage == pytest.approx(100 / 256, abs=0.01)
    gone = template.image.flagged(int(MaskPlane.NO_DATA))
    assert gone[:, 101:].all()
    assert not gone[:, :99].any()
    assert (template.image.image[gone] == 0).all()
    assert np.isfinite(template.image.image).all()
    assert np.isfinite(template.image.variance).all()
    with pytest.raises(NoTemplateOverlap, match="39"):
        make_template([half], science, TemplateConfig(min_coverage=0.5))


def test_template_of_another_place_is_refused():
    science = make_science()
    far = SkyWcs.tan(20.0, 40.0, pixel_scale_arcsec=SCALE, y=100, x=100)
    with pytest.raises(NoTemplateOverlap, match=r"0\.0%"):
        make_template([make_input(far, Box(0, 0, 200, 200))], science, TemplateConfig())
    with pytest.raises(NoTemplateOverlap):
        make_template([], science, TemplateConfig())


def test_given_map_is_used_as_it_is():
    science = make_science(fwhm=4.0)
    item = replace(make_input(science.wcs, Box(0, 0, 256, 256)), wcs=None, stars=None, pixel_map=lambda y, x: (y, x))
    template = make_template([item], science, TemplateConfig())
    np.testing.assert_array_equal(template.image.image, item.image.image)
