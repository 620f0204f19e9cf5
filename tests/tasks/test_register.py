from dataclasses import replace

import numpy as np
import pytest
import sep
from astropy.io import fits

from apstream.arrays.transform import from_affine
from apstream.errors import TooFewStars
from apstream.model.exposures import STAR_DTYPE, Background, CharacterizedExposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.tasks.register import (
    RegisterConfig,
    calibrate_to_reference,
    nominal_calexp,
    register,
    scaled_calexp,
)

SHAPE = (512, 512)


def make_char(stars, wcs=None, shape=SHAPE):
    box = Box.from_shape(shape)
    image = MaskedImage.make(
        np.ones(shape, np.float32), np.zeros(shape, np.int32), np.ones(shape, np.float32), "electron"
    )
    return CharacterizedExposure(
        image=image,
        info=ExposureInfo(
            id=VisitDetector("generic", 1, 0),
            band="i",
            physical_filter="i",
            mid_mjd_tai=56470.0,
            exposure_s=300.0,
        ),
        wcs=wcs,
        psf=Psf.gaussian(4.0, box),
        background=Background(np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32), box, 128),
        stars=stars,
        aperture_correction=1.0,
    )


def make_stars(y, x, flux, saturation=1e9):
    stars = np.zeros(len(y), STAR_DTYPE)
    stars["y"], stars["x"], stars["flux"] = y, x, flux
    stars["flux_err"] = np.sqrt(np.abs(flux) + 100)
    stars["y_err"] = stars["x_err"] = 0.05
    stars["is_star"] = True
    stars["saturated"] = flux > saturation
    return stars


def sky(seed=0, n=900):
    rng = np.random.default_rng(seed)
    return rng.uniform(-400, 900, n), rng.uniform(-400, 900, n), 10 ** rng.uniform(2, 5, n)


def view(positions, seed, turn=0.0, scale=1.0, shift=(0.0, 0.0), factor=1.0, depth=150.0, saturation=1e9):
    """Return the stars that an image sees; its pixel p lies at A p + b of the sky's plane."""
    rng = np.random.default_rng(seed)
    a = np.deg2rad(turn)
    matrix = scale * np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    y, x = np.linalg.solve(matrix, np.stack(positions[:2]) - np.array(shift)[:, None])
    flux = positions[2] * factor
    seen = Box.from_shape(SHAPE).contains(y, x) & (flux > depth) & (rng.uniform(size=len(y)) < 0.85)
    noise = rng.normal(0, 0.05, (2, int(seen.sum())))
    flux = flux[seen] * rng.normal(1, 0.03, int(seen.sum()))
    return make_stars(y[seen] + noise[0], x[seen] + noise[1], flux, saturation), from_affine(matrix, np.array(shift))


@pytest.mark.parametrize(
    ("turn", "scale", "shift"),
    [
        (0, 1, (0, 0)),
        (1, 1.01, (55, -80)),
        (-2, 0.98, (-150, 143)),
        (180, 1, (520, 505)),
        (90.5, 1.0, (-10, 530)),
    ],
)
def test_finds_the_map_without_coordinates(turn, scale, shift):
    positions = sky(3)
    science, truth = view(positions, 1, turn, scale, shift, factor=0.5, depth=250, saturation=20000)
    reference, _ = view(positions, 2)
    found = register(make_char(science), make_char(reference), RegisterConfig())
    y, x = np.meshgrid(np.linspace(0, 511, 9), np.linspace(0, 511, 9))
    inside = Box.from_shape(SHAPE).contains(*truth(y, x))
    got, want = np.array(found.to_reference(y, x))[:, inside], np.array(truth(y, x))[:, inside]
    assert np.abs(got - want).max() < 0.12
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.04
    assert found.flux_ratio == pytest.approx(2.0, rel=0.02)
    assert found.rms_pixels < 0.1
    assert found.n_matched > 25


def test_unrelated_fields_and_few_stars_are_refused():
    science, _ = view(sky(1), 1)
    reference, _ = view(sky(2), 2)
    with pytest.raises(TooFewStars, match="no common star pattern"):
        register(make_char(science), make_char(reference), RegisterConfig())
    with pytest.raises(TooFewStars, match="4 stars in the image"):
        register(make_char(science[:4]), make_char(reference), RegisterConfig())


@pytest.mark.parametrize("distorted", [False, True])
def test_wcs_and_flux_scale_are_inherited(distorted):
    positions = sky(5)
    science, truth = view(positions, 1, 1.5, 1.005, (20, -30), factor=0.5)
    stars, _ = view(positions, 2)
    wcs = SkyWcs.tan(200.0, -40.0, pixel_scale_arcsec=0.3, y=100.0, x=50.0, rotation=30.0)
    if distorted:
        header = dict(wcs.to_header()) | {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-6, "B_1_1": -2e-6}
        wcs = SkyWcs.from_header(header)
    reference = scaled_calexp(make_char(stars), wcs, PhotoCalib(njy_per_unit=3.0), {})
    out = calibrate_to_reference(make_char(science), reference, RegisterConfig())
    y, x = np.meshgrid(np.linspace(50, 450, 9), np.linspace(50, 450, 9))
    want = wcs.pixel_to_sky(*truth(y, x))
    back_y, back_x = out.wcs.sky_to_pixel(*want)
    assert np.hypot(back_y - y, back_x - x).max() < 0.12
    assert out.photo_calib.relative
    assert out.photo_calib.njy_per_unit == pytest.approx(6.0, rel=0.02)
    assert np.median(out.image.image) == pytest.approx(6.0, rel=0.02)
    assert out.wcs.wcs.sip is not None or not distorted


def test_nominal_reference_has_a_wcs_and_its_own_flux_scale():
    stars, _ = view(sky(5), 2)
    out = nominal_calexp(make_char(stars), pixel_scale_arcsec=0.31)
    assert out.wcs.pixel_scale_arcsec == pytest.approx(0.31)
    assert out.photo_calib.njy_per_unit == 1.0
    assert out.photo_calib.relative
    char = make_char(stars)
    info = replace(char.info, ra=273.87, dec=-25.285)
    out = nominal_calexp(replace(char, info=info), pixel_scale_arcsec=0.31)
    ra, dec = out.wcs.pixel_to_sky(*out.box.center)
    assert (float(ra), float(dec)) == pytest.approx((273.87, -25.285))


def test_saao_bulge_frames_register_on_the_sharpest(shared_data):
    paths = sorted((shared_data / "saao_bulge").glob("*.fits"))
    chars = {p.name: make_char(_detect(p)) for p in paths}
    reference = chars["AKB13475I0028.fits"]
    rms = []
    for char in chars.values():
        try:
            rms.append(register(char, reference, RegisterConfig()).rms_pixels)
        except TooFewStars:
            rms.append(np.inf)
    assert len(rms) == 75
    assert np.isfinite(rms).sum() >= 74
    assert np.median(rms) < 0.15
    assert np.percentile(rms, 93) < 0.25


def _detect(path):
    with fits.open(path) as hdus:
        pixels, fwhm = hdus[0].data.astype(np.float32), hdus[0].header["PFWHM"]
    background = sep.Background(pixels, bw=32, bh=32)
    pixels -= background.back()
    found = sep.extract(pixels, 5, err=background.globalrms, minarea=5)
    x, y, _ = sep.winpos(pixels, found["x"], found["y"], fwhm / 2.3548)
    return make_stars(y, x, found["flux"])
