from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree
from starfield import Field, add_rays, add_stamp, make_field, moffat, shape_at, stamp

from apstream.arrays.moments import adaptive_moments
from apstream.errors import NoGoodPixels, TooFewStars
from apstream.model.exposures import CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.tasks.characterize import CharacterizeConfig, characterize

INFO = ExposureInfo(id=VisitDetector("test", 1, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0)
SIZE = 512


def exposure(image, variance, mask=None, box=None) -> Exposure:
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    return Exposure(image=MaskedImage.make(image, mask, variance, "electron", box), info=INFO, wcs=None)


def match(stars, field: Field):
    """Index of the star nearest to each true one, and whether it is within a pixel."""
    distance, index = cKDTree(np.column_stack([stars["y"], stars["x"]])).query(np.column_stack([field.y, field.x]))
    return index, distance < 1


@pytest.fixture(scope="module")
def field() -> Field:
    return make_field(size=SIZE, fwhm=4.0, n_stars=250, gradient=0.2, faintest=800, n_galaxies=30)


@pytest.fixture(scope="module")
def result(field: Field) -> CharacterizedExposure:
    return characterize(exposure(field.image, field.variance))


def test_the_sky_is_subtracted_also_where_it_has_a_gradient(field, result):
    blank = (result.image.mask & MaskPlane.DETECTED) == 0
    for part in np.array_split(np.arange(SIZE), 4):
        rows = np.ix_(part, np.arange(SIZE))
        assert abs(np.median(result.image.image[rows][blank[rows]])) < 0.05 * result.metrics["characterize.sky_rms"]
    assert result.metrics["characterize.sky"] == pytest.approx(field.sky, rel=0.05)
    assert result.metrics["characterize.sky_rms"] == pytest.approx(np.sqrt(field.sky + 25), rel=0.1)


def test_stars_come_back_with_right_fluxes_and_honest_errors(field, result):
    stars = result.stars
    index, found = match(stars, field)
    snr = stars["flux"][index] / stars["flux_err"][index]
    good = found & ~stars["blended"][index] & (snr > 10) & (snr < 100)
    pull = ((stars["flux"][index] - field.flux) / stars["flux_err"][index])[good]
    assert good.sum() > 50
    assert abs(np.median(pull)) < 0.3
    assert 0.8 < 1.48 * np.median(np.abs(pull - np.median(pull))) < 1.3
    bright = found & (snr > 100) & ~stars["blended"][index]
    assert np.median(stars["flux"][index] / field.flux, axis=0) == pytest.approx(1, abs=0.02)
    assert np.median(np.abs(stars["y"][index] - field.y)[bright]) < 0.02
    assert stars["is_star"][index][bright].mean() > 0.9


@pytest.mark.parametrize("fwhm", [2.3, 4.0, 7.0])
def test_the_psf_has_the_true_size_and_shape_everywhere(fwhm):
    f = make_field(size=SIZE, fwhm=fwhm, n_stars=int(600 / fwhm), faintest=20000, brightest=3e5, seed=3)
    psf = characterize(exposure(f.image, f.variance)).psf
    rows = []
    for y in np.linspace(40, SIZE - 40, 5):
        for x in np.linspace(40, SIZE - 40, 5):
            width, e1, e2 = shape_at(y, x, SIZE, fwhm, 1.0)
            half = psf.shape[0] // 2
            true = stamp(0, 0, half, lambda a, b, w=width, p=e1, q=e2: moffat(a, b, w, e1=p, e2=q))[2]
            rows.append([_shape(k, fwhm) for k in (psf.at(y, x), true)])
    model, truth = np.array(rows).transpose(1, 2, 0)
    assert np.median(model[0] / truth[0]) == pytest.approx(1, abs=0.006)
    assert np.std(model[0] / truth[0]) < 0.005
    assert np.all(np.abs(np.median(model[1:] - truth[1:], axis=1)) < 0.004)


def _shape(kernel, fwhm):
    half = np.array([kernel.shape[0] // 2], float)
    m = adaptive_moments(kernel.astype("f4"), np.zeros(kernel.shape, bool), y=half, x=half, sigma=fwhm / 2.35)[0]
    trace = m["yy"] + m["xx"]
    return np.sqrt(trace), (m["xx"] - m["yy"]) / trace, 2 * m["xy"] / trace


def test_a_saturated_neighbour_of_a_bright_star_is_not_printed_into_the_psf(field, result):
    image, variance, mask = field.image.copy(), field.variance.copy(), np.zeros(field.image.shape, np.int32)
    used = result.stars[result.stars["psf_used"]]
    star = used[np.argmax(used["flux"])]
    y, x = star["y"] + 13, star["x"] - 13
    row, column, light = stamp(y, x, 30, lambda a, b: moffat(a, b, field.fwhm))
    rows, columns = (np.arange(31 + 30) + first for first in (row, column))
    inside = np.ix_((rows >= 0) & (rows < SIZE), (columns >= 0) & (columns < SIZE))
    where = np.ix_(rows[(rows >= 0) & (rows < SIZE)], columns[(columns >= 0) & (columns < SIZE)])
    image[where] += (3e6 * light[inside]).astype(np.float32)
    variance[where] += (3e6 * light[inside]).astype(np.float32)
    mask[image > 60000] = int(MaskPlane.SAT)
    found = characterize(exposure(image, variance, mask))
    assert found.stars["psf_used"][np.argmin(np.hypot(found.stars["y"] - star["y"], found.stars["x"] - star["x"]))]
    expected, kernel = result.psf.at(star["y"], star["x"]), found.psf.at(star["y"], star["x"])
    assert np.abs(kernel - expected).max() < 0.01 * expected.max()
    assert abs((kernel - expected)[-8:, :8].sum()) < 0.002


def test_absolute_positions_follow_the_box(field, result):
    box = Box.from_shape(field.image.shape, 1000, 2000)
    moved = characterize(exposure(field.image, field.variance, box=box))
    assert np.allclose(moved.stars["y"], result.stars["y"] + 1000)
    assert np.allclose(moved.stars["x"], result.stars["x"] + 2000)
    assert np.allclose(moved.psf.at(1256, 2256), result.psf.at(256, 256))


def test_the_same_image_gives_the_same_bytes(field, result):
    again = characterize(exposure(field.image, field.variance))
    assert again.image.image.tobytes() == result.image.image.tobytes()
    assert again.stars.tobytes() == result.stars.tobytes()
    assert again.psf.basis.tobytes() == result.psf.basis.tobytes()


def test_a_coadd_with_holes_and_uneven_depth_is_characterized(field):
    image, variance = field.image.copy(), field.variance.copy()
    mask = np.zeros(image.shape, np.int32)
    image[:, :60], variance[:, :60], mask[:, :60] = np.nan, np.inf, MaskPlane.NO_DATA
    variance[300:, 300:] *= 4
    image[300:, 300:] += np.random.default_rng(5).normal(0, 1, (212, 212)) * np.sqrt(3 * field.variance[300:, 300:])
    got = characterize(exposure(image, variance, mask), CharacterizeConfig(cosmic_rays=None))
    assert np.all(np.isfinite(got.image.image))
    assert np.all(got.image.mask[:, :60] & MaskPlane.NO_DATA)
    assert got.metrics["characterize.fwhm_pixel"] == pytest.approx(4.1, abs=0.2)
    assert got.metrics["characterize.n_cosmic_ray_pixels"] == 0


def test_all_nan_and_all_saturated_images_are_refused(field):
    with pytest.raises(NoGoodPixels, match="NaN"):
        characterize(exposure(np.full_like(field.image, np.nan), field.variance))
    mask = np.full(field.image.shape, int(MaskPlane.SAT), np.int32)
    with pytest.raises(NoGoodPixels, match="saturated"):
        characterize(exposure(field.image, field.variance, mask))
    with pytest.raises(NoGoodPixels, match="alike"):
        characterize(exposure(np.full_like(field.image, 7.0), field.variance))


def test_a_field_without_stars_is_refused_with_a_remedy():
    rng = np.random.default_rng(2)
    blank = rng.normal(100, 10, (256, 256)).astype(np.float32)
    with pytest.raises(TooFewStars) as error:
        characterize(exposure(blank, np.full_like(blank, 100.0)))
    assert "check focus, clouds" in error.value.remedy


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_where_half_the_pixels_are_missing_it_is_them_that_are_blamed(value):
    field = make_field(size=256, fwhm=4.0, n_stars=30, seed=71)
    holes = np.where(np.random.default_rng(3).random(field.image.shape) < 0.5, value, field.image).astype(np.float32)
    with pytest.raises(TooFewStars, match="50% of the pixels cannot be used, most of them not finite") as error:
        characterize(exposure(holes, field.variance))
    assert "clouds" not in error.value.remedy
    mask = np.where(np.isfinite(holes), 0, int(MaskPlane.BAD)).astype(np.int32)
    with pytest.raises(TooFewStars, match="most of them flagged as bad"):
        characterize(exposure(field.image, field.variance, mask))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((20, 20), TooFewStars), ((64, 50), TooFewStars), ((3, 3), NoGoodPixels), ((1, 256), NoGoodPixels)],
)
def test_an_image_too_small_is_blamed_for_its_size(shape, kind):
    field = make_field(size=256, fwhm=4.0, n_stars=30, seed=71)
    part = np.s_[: shape[0], : shape[1]]
    with pytest.raises(kind, match=f"the image is only {shape[0]} x {shape[1]} pixels") as error:
        characterize(exposure(field.image[part].copy(), field.variance[part].copy()))
    assert "clouds" not in error.value.remedy


@pytest.mark.parametrize("fwhm", [2.0, 4.0])
def test_cosmic_rays_are_found_and_stars_are_spared(fwhm):
    f = make_field(size=SIZE, fwhm=fwhm, n_stars=200, brightest=3e5, n_galaxies=30, seed=11)
    image = f.image.copy()
    rays = add_rays(image, n_rays=50)
    got = characterize(exposure(image, f.variance + rays))
    hit = (got.image.mask & MaskPlane.CR) != 0
    strong = rays > 10 * np.sqrt(f.variance)
    assert (rays * (hit & strong)).sum() > 0.95 * (rays * strong).sum()
    near_ray = maximum_filter(rays, 3) > 0
    assert np.count_nonzero(hit & ~near_ray) < 10
    assert np.all((got.image.mask[hit] & MaskPlane.INTRP) != 0)
    left = got.image.image[hit & strong] / np.sqrt(f.variance[hit & strong])
    assert np.median(np.abs(left)) < 3
    assert got.metrics["characterize.fwhm_pixel"] == pytest.approx(np.hypot(fwhm, 0.8), rel=0.05)


@pytest.mark.parametrize(("width", "part"), [(1.0, 0.80), (1.5, 0.93)])
def test_the_aperture_correction_leads_from_psf_fluxes_to_those_in_the_aperture(field, width, part):
    result = characterize(exposure(field.image, field.variance), CharacterizeConfig(aperture_fwhm=width))
    stars = result.stars
    clean = stars["is_star"] & ~stars["blended"] & ~stars["saturated"] & (stars["flux"] > 100 * stars["flux_err"])
    ratio = np.median((stars["ap_flux"] / stars["flux"])[clean])
    assert result.aperture_correction == pytest.approx(ratio, abs=0.005)
    assert ratio == pytest.approx(part, abs=0.02)  # of a Moffat profile of this width in pixels


def test_a_trail_is_flagged_and_an_image_without_has_no_flag(field, result):
    y, x = np.mgrid[:SIZE, :SIZE]
    away = np.abs((y - 200) * np.cos(0.4) - (x - 300) * np.sin(0.4))
    trail = 2 * np.sqrt(field.variance) * np.exp(-0.5 * (away / 2) ** 2)
    crossed = exposure((field.image + trail).astype(np.float32), field.variance)
    streak = int(MaskPlane.STREAK)
    found = characterize(crossed)
    flagged = (found.image.mask & streak) != 0
    assert found.metrics["characterize.n_streaks"] == 1
    assert flagged[away < 3].mean() > 0.97
    assert not flagged[away > 16].any()
    assert not (result.image.mask & streak).any()
    blind = characterize(crossed, CharacterizeConfig(streaks=None))
    assert not (blind.image.mask & streak).any()
    on_trail, unaware = (away[one.stars["y"].round().astype(int), one.stars["x"].round().astype(int)] < 3
                         for one in (found, blind))  # fmt: skip
    assert found.stars["flagged"][on_trail].all()
    assert not found.stars["psf_used"][on_trail].any()
    assert blind.stars["psf_used"][unaware].any()  # else there was nothing to leave out


@pytest.mark.parametrize("frame", ["0001", "0025", "0028"])
def test_a_real_crowded_bulge_field_is_characterized(shared_data, frame):
    """SAAO Galactic bulge: no empty sky; frame 0028 is trailed, which must not be taken for cosmic rays."""
    fits = pytest.importorskip("astropy.io.fits")
    image = fits.getdata(shared_data / "saao_bulge" / f"AKB13475I{frame}.fits").astype("f4") * 1.9
    mask = np.where(image > 60000 * 1.9, int(MaskPlane.SAT), 0)
    got = characterize(exposure(image, np.maximum(image, 0) + 25, mask))
    assert got.metrics["characterize.n_psf_stars"] > 40
    assert got.metrics["characterize.n_sources"] > 250
    assert got.metrics["characterize.n_cosmic_ray_pixels"] < 0.001 * image.size
    assert 3.5 < got.metrics["characterize.fwhm_pixel"] < 8.5
    assert abs(got.aperture_correction - 1) < 0.15


def test_neighbours_are_fitted_along_unless_that_is_switched_off():
    """Every star has fainter ones on two sides, anywhere around: not deblended, their light is in the PSF's wings."""
    f = make_field(size=SIZE, fwhm=4.0, n_stars=45, faintest=2e4, brightest=2e5, vary=0, seed=13)
    image, rng = f.image.astype(float), np.random.default_rng(2)
    for y, x, flux, angle in zip(f.y, f.x, f.flux, rng.uniform(0, 2 * np.pi, len(f.y)), strict=True):
        for way in (9, -9):
            at = y + way * np.sin(angle), x + way * np.cos(angle)
            add_stamp(image, *at, 28, lambda a, b: moffat(a, b, 4.0), 0.5 * flux)
    image = image.astype(np.float32)
    star = {"stars": {"max_contamination": 0.5}}
    both = characterize(exposure(image, f.variance), CharacterizeConfig.model_validate(star)).psf
    apart = {**star, "psf": {"deblend": False}}
    alone = characterize(exposure(image, f.variance), CharacterizeConfig.model_validate(apart)).psf
    truths = [stamp(0, 0, psf.shape[0] // 2, lambda a, b: moffat(a, b, 4.0))[2] for psf in (both, alone)]
    missed = [np.abs(psf.central() - truth).sum() for psf, truth in zip((both, alone), truths, strict=True)]
    assert missed[0] < 0.08
    assert missed[1] > 2 * missed[0]
