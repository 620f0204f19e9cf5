from dataclasses import replace

import numpy as np
import pytest

from apstream.errors import CalibrationFailed, TooFewStars
from apstream.model.exposures import STAR_DTYPE, Background, CharacterizedExposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.psf import Psf
from apstream.model.refcat import REFCAT_DTYPE, RefCat, References
from apstream.model.wcs import SkyWcs
from apstream.tasks.astrometry import AstrometryConfig, FirstGuess
from apstream.tasks.calibrate import CalibrateConfig, calibrate
from apstream.tasks.photometry import PhotometryConfig

SHAPE = (1024, 1024)
ZERO_POINT = 27.3
MJD = 60000.0
SCALE = 0.25


def distorted_truth(ra: float = 359.99, dec: float = -30.0) -> SkyWcs:
    """Make a TAN-SIP WCS with distortion of some pixels at the corners."""
    header = dict(SkyWcs.tan(ra, dec, pixel_scale_arcsec=SCALE, y=511.5, x=511.5, rotation=4.0).to_header())
    header |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3}
    header |= {"A_2_0": 4e-6, "A_1_1": -2e-6, "A_3_0": 3e-9, "A_1_2": 3e-9, "B_0_2": -3e-6, "B_0_3": 3e-9}
    wcs = SkyWcs.from_header(header)
    assert wcs is not None
    return wcs


def shifted(wcs: SkyWcs, offset_arcsec: float, rotation: float, scale: float = 1.0) -> SkyWcs:
    """Return a plain TAN as a header would give it: offset, rotated, undistorted."""
    ra, dec = wcs.pixel_to_sky(511.5, 511.5)
    return SkyWcs.tan(
        float(ra) + offset_arcsec / 3600 / np.cos(np.deg2rad(float(dec))) * 0.6,
        float(dec) + offset_arcsec / 3600 * 0.8,
        pixel_scale_arcsec=SCALE * scale,
        y=511.5,
        x=511.5,
        rotation=4.0 + rotation,
    )


def make_field(seed: int, truth: SkyWcs, n: int = 600, noise: float = 0.03, crowd: int = 3):
    """Return (stars, refcat): the catalogue covers more sky and other stars than the image shows."""
    rng = np.random.default_rng(seed)
    total = n * crowd
    y, x = rng.uniform(-512, 1536, total), rng.uniform(-512, 1536, total)
    mag = np.clip(21.0 - rng.exponential(1.3, total), 13, None)
    ra, dec = truth.pixel_to_sky(y, x)
    pm_ra, pm_dec = rng.normal(0, 20, total), rng.normal(0, 20, total)
    ref = np.zeros(total, REFCAT_DTYPE)
    years = 2000 + (MJD - 51544.5) / 365.25 - 2016.0
    ref["ra"] = (ra - pm_ra * years / 3.6e6 / np.cos(np.deg2rad(dec))) % 360
    ref["dec"] = dec - pm_dec * years / 3.6e6
    ref["mag"], ref["mag_err"], ref["epoch"] = mag + rng.normal(0, 0.01, total), 0.01, 2016.0
    ref["pm_ra"], ref["pm_dec"] = pm_ra, pm_dec
    seen = Box.from_shape(SHAPE).contains(y, x) & (rng.uniform(size=total) < 0.85)
    stars = np.zeros(int(seen.sum()) + 40, STAR_DTYPE)
    flux = np.r_[10 ** (-0.4 * (mag[seen] - ZERO_POINT)), 10 ** rng.uniform(2, 4, 40)]
    stars["y"] = np.r_[y[seen], rng.uniform(0, 1023, 40)] + rng.normal(0, noise, len(stars))
    stars["x"] = np.r_[x[seen], rng.uniform(0, 1023, 40)] + rng.normal(0, noise, len(stars))
    stars["y_err"] = stars["x_err"] = noise
    stars["flux_err"] = np.sqrt(flux + 500)
    stars["flux"] = flux + rng.normal(0, 1, len(stars)) * stars["flux_err"]
    stars["saturated"] = flux > 3e5
    stars["is_star"] = True
    return stars, RefCat(ref[rng.uniform(size=total) < 0.9], "synthetic")


def make_char(stars, wcs: SkyWcs | None, shape=SHAPE) -> CharacterizedExposure:
    box = Box.from_shape(shape)
    image = MaskedImage.make(
        np.ones(shape, np.float32), np.zeros(shape, np.int32), np.full(shape, 4.0, np.float32), "electron"
    )
    return CharacterizedExposure(
        image=image,
        info=ExposureInfo(
            id=VisitDetector("simcam", 7, 1),
            band="r",
            physical_filter="r",
            mid_mjd_tai=MJD,
            exposure_s=30.0,
        ),
        wcs=wcs,
        psf=Psf.gaussian(4.0, box),
        background=Background(np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32), box, 256),
        stars=stars,
        aperture_correction=1.0,
    )


@pytest.mark.parametrize(
    ("seed", "offset", "rotation", "scale"),
    [
        (1, 0.0, 0.0, 1.0),
        (2, 8.0, 1.0, 1.0),
        (3, 60.0, -1.0, 1.0),
        (4, -30.0, 2.5, 1.01),
        (5, 5.0, -2.0, 0.99),
    ],
)
def test_recovers_wcs_and_zero_point(seed, offset, rotation, scale):
    truth = distorted_truth()
    noise = 0.03
    stars, refcat = make_field(seed, truth, noise=noise)
    out = calibrate(make_char(stars, shifted(truth, offset, rotation, scale)), refcat, CalibrateConfig())
    assert out.metrics["calibrate.astrometry_rms_arcsec"] < 1.15 * noise * SCALE
    y, x = np.meshgrid(np.linspace(0, 1023, 20), np.linspace(0, 1023, 20))
    back_y, back_x = out.wcs.sky_to_pixel(*truth.pixel_to_sky(y, x))
    wrong = np.hypot(back_y - y, back_x - x)
    assert np.median(wrong) < 0.4 * noise
    assert wrong.max() < 2 * noise
    assert out.metrics["calibrate.zero_point"] == pytest.approx(ZERO_POINT, abs=0.01)
    assert out.photo_calib.n_stars > 60
    njy = 10 ** (-0.4 * (ZERO_POINT - 31.4))
    assert np.median(out.image.image) == pytest.approx(njy, rel=0.01)
    assert np.median(out.image.variance) == pytest.approx(4 * njy**2, rel=0.02)
    assert np.median(out.stars["flux"] / stars["flux"]) == pytest.approx(njy, rel=0.01)


def test_forward_and_inverse_terms_agree():
    truth = distorted_truth()
    stars, refcat = make_field(6, truth)
    wcs = calibrate(make_char(stars, shifted(truth, 5, 0.5)), refcat, CalibrateConfig()).wcs
    assert wcs.wcs.sip.ap_order >= wcs.wcs.sip.a_order
    sip, crpix = wcs.wcs.sip, wcs.wcs.wcs.crpix
    v, u = (a.ravel() for a in np.meshgrid(np.linspace(-511, 511, 9), np.linspace(-511, 511, 9)))

    def terms(matrix, u, v):
        return sum(matrix[p, q] * u**p * v**q for p, q in np.ndindex(*matrix.shape))

    big_u, big_v = u + terms(sip.a, u, v), v + terms(sip.b, u, v)
    assert np.abs(big_u + terms(sip.ap, big_u, big_v) - u).max() < 0.01
    assert np.abs(big_v + terms(sip.bp, big_u, big_v) - v).max() < 0.01
    assert tuple(crpix) == (512.5, 512.5)
    assert SkyWcs.from_header(wcs.to_header()).wcs.sip.ap_order == sip.ap_order


def test_few_stars_give_a_low_degree_and_still_a_solution():
    truth = SkyWcs.tan(150.0, 2.0, pixel_scale_arcsec=SCALE, y=511.5, x=511.5, rotation=4.0)
    stars, refcat = make_field(7, truth, n=16, crowd=6)
    out = calibrate(make_char(stars[:-36], shifted(truth, 5, 0.5)), refcat, CalibrateConfig())
    assert out.metrics["calibrate.astrometry_rms_arcsec"] < 0.05
    assert out.metrics["calibrate.n_matched"] < 30
    assert out.wcs.wcs.sip is None


def test_catalogue_of_another_place_is_refused():
    truth = distorted_truth()
    stars, refcat = make_field(8, truth)
    far = refcat.stars.copy()
    far["dec"] += 5.0
    with pytest.raises(CalibrationFailed, match="0 catalogue stars"):
        calibrate(make_char(stars, truth), RefCat(far), CalibrateConfig())


@pytest.mark.parametrize(
    ("unit", "place", "asked"), [(np.pi / 180, r"2\.61", "are these radians"), (1 / 15, r"9\.99", "are these hours")]
)
def test_a_catalogue_elsewhere_is_told_where_it_lies_and_asked_for_its_units(unit: float, place: str, asked: str):
    truth = distorted_truth()
    stars, refcat = make_field(8, truth)
    rows = refcat.stars.copy()
    rows["ra"] = (rows["ra"] + 150) % 360 * unit
    rows["dec"] *= 1 if unit == 1 / 15 else unit
    with pytest.raises(CalibrationFailed, match=rf"30 are needed.*, about \({place}.*{asked}"):
        calibrate(make_char(stars, truth), RefCat(rows), CalibrateConfig(astrometry={"min_matches": 30}))


@pytest.mark.parametrize("seed", range(4))
def test_unrelated_catalogue_is_never_matched_by_chance(seed):
    truth = distorted_truth()
    stars, _ = make_field(20 + seed, truth)
    _, refcat = make_field(30 + seed, truth)
    with pytest.raises(CalibrationFailed, match="no common pattern"):
        calibrate(make_char(stars, truth), refcat, CalibrateConfig())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("keep", "depth"), [(1.0, 1), (1.0, 8), (0.15, 3)], ids=["like", "deeper", "shallower"])
def test_all_errors_of_the_pointing_at_once(seed, keep, depth):
    truth, rng = distorted_truth(), np.random.default_rng(seed)
    stars, refcat = make_field(40 + seed, truth, n=350, crowd=depth)
    brightest = np.sort(refcat.stars["mag"])[int(keep * (len(refcat.stars) - 1))]
    refcat = RefCat(refcat.stars[refcat.stars["mag"] <= brightest])
    guess = shifted(truth, 60.0, rng.choice([-2.0, 2.0]), rng.choice([0.98, 1.02]))
    out = calibrate(make_char(stars, guess), refcat, CalibrateConfig())
    y, x = out.wcs.sky_to_pixel(*truth.pixel_to_sky(511.5, 511.5))
    assert np.hypot(y - 511.5, x - 511.5) < 0.06
    assert out.metrics["calibrate.pointing_offset_arcsec"] == pytest.approx(60.0, abs=1.0)
    assert abs(out.metrics["calibrate.pointing_rotation_deg"]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_header_of_the_wrong_parity_is_found_out(mirrored):
    truth = distorted_truth()
    stars, refcat = make_field(50, truth)
    guess = shifted(truth, 20.0, 1.0)
    out = calibrate(make_char(stars, guess.mirrored() if mirrored else guess), refcat, CalibrateConfig())
    assert out.metrics["calibrate.parity_wrong"] == float(mirrored)
    y, x = out.wcs.sky_to_pixel(*truth.pixel_to_sky(300.0, 700.0))
    assert np.hypot(y - 300, x - 700) < 0.03


def test_a_pointing_stands_for_a_header_without_wcs():
    truth = distorted_truth()
    stars, refcat = make_field(51, truth)
    ra, dec = truth.pixel_to_sky(530.0, 480.0)
    char = make_char(stars, None)
    char = replace(char, info=replace(char.info, ra=float(ra), dec=float(dec)))
    guess = FirstGuess(pixel_scale_arcsec=SCALE * 1.01, rotation_deg=5.5)
    out = calibrate(char, refcat, CalibrateConfig(astrometry=AstrometryConfig(first_guess=guess)))
    y, x = out.wcs.sky_to_pixel(*truth.pixel_to_sky(300.0, 700.0))
    assert np.hypot(y - 300, x - 700) < 0.03
    with pytest.raises(CalibrationFailed, match="no pixel scale"):
        calibrate(char, refcat, CalibrateConfig())
    with pytest.raises(CalibrationFailed, match="no pointing"):
        calibrate(make_char(stars, None), refcat, CalibrateConfig(astrometry=AstrometryConfig(first_guess=guess)))


def test_positions_and_magnitudes_may_come_from_different_catalogues():
    truth = distorted_truth()
    stars, refcat = make_field(52, truth)
    coarse = RefCat(refcat.stars.copy(), "magnitudes")
    coarse.stars["dec"] += 0.3 / 3600  # positions that would spoil the WCS
    poor = RefCat(refcat.stars.copy(), "positions")
    poor.stars["mag"] += 1.0  # magnitudes that would spoil the zero point
    out = calibrate(make_char(stars, shifted(truth, 8, 0.5)), References(poor, coarse), CalibrateConfig())
    y, x = out.wcs.sky_to_pixel(*truth.pixel_to_sky(300.0, 700.0))
    assert np.hypot(y - 300, x - 700) < 0.03
    assert out.metrics["calibrate.zero_point"] == pytest.approx(ZERO_POINT, abs=0.01)


def test_the_wcs_is_given_in_the_form_asked_for():
    truth = distorted_truth()
    stars, refcat = make_field(53, truth)
    char = make_char(stars, shifted(truth, 8, 0.5))
    forms = [calibrate(char, refcat, CalibrateConfig(wcs_form=form)).wcs for form in ("sip", "tpv")]
    assert [one.kind for one in forms] == ["TAN-SIP", "TPV"]
    y, x = np.array([0.0, 1023.0, 500.0]), np.array([3.0, 1020.0, 700.0])
    back = SkyWcs.from_header(forms[1].to_header()).sky_to_pixel(*forms[0].pixel_to_sky(y, x))
    np.testing.assert_allclose(back, (y, x), rtol=0, atol=1e-4)


def test_a_map_of_the_zero_point_reaches_pixels_and_stars():
    truth = distorted_truth()
    stars, refcat = make_field(54, truth, n=1500)
    ty = stars["y"] / 511.5 - 1
    dim = 10 ** (-0.4 * 0.05 * ty)
    bent = stars.copy()
    bent["flux"] *= dim
    bent["flux_err"] *= dim
    config = CalibrateConfig(photometry=PhotometryConfig(spatial_degree=2))
    out = calibrate(make_char(bent, shifted(truth, 8, 0.5)), refcat, config)
    assert out.metrics["calibrate.zero_point_map_rms"] == pytest.approx(0.05 / np.sqrt(3), rel=0.15)
    njy = 10 ** (-0.4 * (ZERO_POINT - 31.4))
    assert np.median(out.image.image[:20]) == pytest.approx(njy * 10 ** (-0.4 * 0.05), rel=0.01)
    assert np.median(out.image.image[-20:]) == pytest.approx(njy * 10 ** (0.4 * 0.05), rel=0.01)
    np.testing.assert_allclose(out.stars["flux"] / stars["flux"] / njy, 1.0, atol=0.012)


def test_depth_and_sky_are_told():
    truth = distorted_truth()
    stars, refcat = make_field(55, truth)
    char = make_char(stars, shifted(truth, 8, 0.5))
    sky = replace(char.background, mesh=np.full((4, 4), 100.0, np.float32))
    out = calibrate(replace(char, background=sky), refcat, CalibrateConfig())
    limit = 5 * np.sqrt(4.0 * char.psf.effective_area())
    assert out.metrics["calibrate.depth_mag"] == pytest.approx(ZERO_POINT - 2.5 * np.log10(limit), abs=0.02)
    expected = ZERO_POINT - 2.5 * np.log10(100 / SCALE**2)
    assert out.metrics["calibrate.sky_mag_arcsec2"] == pytest.approx(expected, abs=0.02)


def test_errors_name_counts():
    truth = distorted_truth()
    stars, refcat = make_field(9, truth)
    with pytest.raises(TooFewStars, match="3 usable stars"):
        calibrate(make_char(stars[:3], truth), refcat, CalibrateConfig())
    with pytest.raises(CalibrationFailed, match="first-guess"):
        calibrate(make_char(stars, None), refcat, CalibrateConfig())
    dark = replace(refcat, stars=refcat.stars.copy())
    dark.stars["mag"] = np.nan
    with pytest.raises(CalibrationFailed):
        calibrate(make_char(stars, truth), dark, CalibrateConfig())
