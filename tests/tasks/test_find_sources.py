"""Sources found before calibration: completeness, false ones, blends, sky, measurements, settings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.nouns import SAMPLES
from scipy.spatial import cKDTree
from starfield import add_stamp, moffat, stamp

from apstream.errors import BadSettings
from apstream.model.exposures import Background, CharacterizedExposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.measurements import MEASURED
from apstream.model.psf import Psf
from apstream.tasks.find_sources import FindSourcesConfig, find_sources
from apstream.tasks.measure_list import MEASUREMENTS, MeasureListConfig, measure_listed, measurement

FWHM, SKY, SIZE = 4.0, 400.0, 640


def profile(a, b):
    return moffat(a, b, FWHM)


KERNEL = stamp(16, 16, 16, profile)[2]
AREA = 1 / float(np.sum((KERNEL / KERNEL.sum()) ** 2))
SIGMA = np.sqrt(SKY)


def characterized(light: np.ndarray, seed: int = 1, *, pedestal: float = 0.0, box: Box | None = None):
    """An exposure of known PSF with the light given, electrons; the sky is taken off but for `pedestal`."""
    rng = np.random.default_rng(seed)
    box = box or Box.from_shape(light.shape)
    data = rng.poisson(light + SKY) - SKY + pedestal
    image = MaskedImage.make(data, np.zeros(light.shape, np.int32), light + SKY, "electron", box)
    cells = tuple(-(-n // 128) for n in light.shape)
    mesh = np.zeros((2, *cells), np.float32)
    info = ExposureInfo(
        id=VisitDetector("x", 1, 1), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )
    return CharacterizedExposure(
        image=image, info=info, wcs=None, psf=Psf((KERNEL / KERNEL.sum())[None], box),
        background=Background(mesh[0], mesh[1] + SIGMA, box, 128),
        stars=SAMPLES["calexp"](np.random.default_rng(1)).stars[:0], aperture_correction=1.0,
    )  # fmt: skip


def flux_of(snr: float) -> float:
    return snr * SIGMA * np.sqrt(AREA)


def grid(step: float, seed: int):
    rng = np.random.default_rng(seed)
    places = np.arange(step, SIZE - step / 2, step)
    y, x = (g.ravel() for g in np.meshgrid(places, places, indexing="ij"))
    return y + rng.uniform(-0.5, 0.5, len(y)), x + rng.uniform(-0.5, 0.5, len(x))


def paint(y, x, flux) -> np.ndarray:
    light = np.zeros((SIZE, SIZE))
    for one in zip(y, x, np.broadcast_to(flux, np.shape(y)), strict=True):
        add_stamp(light, one[0], one[1], 16, profile, one[2])
    return light


def matched(found, y, x, radius=1.5):
    gap, index = cKDTree(np.column_stack([found["y"], found["x"]])).query(np.column_stack([y, x]))
    return gap < radius, index


def test_without_detection_the_stars_of_characterization_stay():
    char = SAMPLES["characterized"](np.random.default_rng(1))
    assert find_sources(char, None) is char


@pytest.mark.parametrize(("snr", "low", "high"), [(3.5, 0.0, 0.2), (5.0, 0.35, 0.65), (8.0, 0.98, 1.0)])
def test_the_threshold_is_where_it_says(snr: float, low: float, high: float):
    y, x = grid(40, 1)
    found = find_sources(characterized(paint(y, x, flux_of(snr))), FindSourcesConfig()).stars
    part = matched(found, y, x, 2.0)[0].mean() if len(found) else 0.0
    assert low <= part <= high


def test_an_empty_sky_gives_hardly_a_source():
    found = find_sources(characterized(np.zeros((1024, 1024)), 3), FindSourcesConfig()).stars
    assert len(found) <= 2  # 0.03 by a Gaussian with as many independent places


@pytest.mark.parametrize(("separation", "ratio"), [(1.5, 1.0), (1.5, 3.0), (1.5, 10.0), (2.0, 10.0), (3.0, 3.0)])
def test_pairs_are_told_apart_without_bias(separation: float, ratio: float):
    y, x = grid(44, 2)
    angle = np.random.default_rng(5).uniform(0, 2 * np.pi, len(y))
    y2, x2 = y + separation * FWHM * np.sin(angle), x + separation * FWHM * np.cos(angle)
    bright = flux_of(150.0)
    light = paint(y, x, bright) + paint(y2, x2, bright / ratio)
    result = find_sources(characterized(light, 7), FindSourcesConfig())
    for places, flux in (((y, x), bright), ((y2, x2), bright / ratio)):
        there, index = matched(result.stars, *places)
        assert there.mean() > 0.98
        rows = result.stars[index[there]]
        pull = (rows["flux"] - flux) / rows["flux_err"]
        standard = np.std(rows["flux"] / flux) / np.sqrt(len(rows))
        assert abs(np.mean(rows["flux"] / flux) - 1) < 0.01 + 2 * standard
        assert 0.75 < np.std(pull) < 1.3
        assert np.median(result.measured["n_children"][index[there]]) == 2


def galaxy(width):
    return lambda a, b: np.exp(-0.5 * (a**2 + (b / 0.6) ** 2) / width**2) / (2 * np.pi * 0.6 * width**2)


def crowded_with_galaxies(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    light = paint(*rng.uniform(20, SIZE - 20, (2, 40)), flux_of(1.0) * rng.uniform(20, 400, 40))
    for gy, gx in rng.uniform(40, SIZE - 40, (30, 2)):
        add_stamp(light, gy, gx, 60, galaxy(rng.uniform(4, 9)), flux_of(1.0) * rng.uniform(30, 400))
    return light


def test_the_sky_is_measured_again_without_the_light_of_galaxies():
    char = characterized(crowded_with_galaxies(4), pedestal=8.0)
    result = find_sources(char, FindSourcesConfig())
    correction = result.background.mesh - char.background.mesh
    assert abs(np.mean(correction) - 8.0) < 0.1 * SIGMA
    assert np.max(np.abs(correction - 8.0)) < 0.3 * SIGMA
    taken = char.image.image - result.image.image
    assert abs(np.median(taken) - np.median(correction)) < 0.02 * SIGMA
    detected = result.image.flagged(MaskPlane.DETECTED)
    assert result.image.image[detected].mean() > 0.5 * SIGMA > 5 * abs(result.image.image[~detected].mean())


def test_more_rounds_come_closer_to_the_sky_and_one_is_the_default():
    char = characterized(crowded_with_galaxies(4), pedestal=2.0)
    found = {n: find_sources(char, FindSourcesConfig(iterations=n)) for n in (1, 2, 4)}
    left = {n: abs(np.mean(one.background.mesh) - 2.0) for n, one in found.items()}
    assert left[2] < left[1]
    assert max(left[2], left[4]) < 0.015 * SIGMA
    assert find_sources(char, FindSourcesConfig()).stars.tobytes() == found[1].stars.tobytes()


def test_noise_is_no_source_and_stays_in_the_sky():
    y, x = grid(64, 3)
    char = characterized(paint(y, x, flux_of(np.geomspace(6.0, 300.0, len(y)))))
    result = find_sources(char, FindSourcesConfig())
    assert result.image.flagged(MaskPlane.DETECTED).mean() < 0.12
    assert (
        abs(np.mean(result.background.mesh) + 1 / 3) < 0.015 * SIGMA
    )  # the median of counts lies a third below the mean


def test_galaxies_are_extended_and_stars_are_not():
    y, x = grid(64, 3)
    light = paint(y[::2], x[::2], flux_of(100.0))
    for gy, gx in zip(y[1::2], x[1::2], strict=True):
        add_stamp(light, gy, gx, 40, galaxy(5.0), flux_of(250.0))
    result = find_sources(characterized(light, 8), FindSourcesConfig())
    stars, galaxies = (matched(result.stars, y[k::2], x[k::2])[1] for k in (0, 1))
    assert np.mean(result.measured["extendedness"][galaxies]) > 0.97
    assert np.mean(result.measured["extendedness"][stars]) < 0.03
    kron = result.measured["kron_flux"][galaxies] / flux_of(250.0)
    assert 0.88 < np.median(kron) < 1.03
    assert np.mean(result.stars["is_star"][stars]) > 0.97
    assert np.mean(result.stars["is_star"][galaxies]) < 0.03


def test_every_source_has_a_kron_flux_and_where_the_shape_is_the_psfs_it_is_flagged():
    y, x = grid(40, 1)
    result = find_sources(characterized(paint(y, x, flux_of(7.0)), 12), FindSourcesConfig())
    lost = result.measured["shape_flag"]
    assert lost.any()  # noise alone leaves some without a shape
    assert np.isfinite(result.measured["kron_flux"]).all()
    assert np.isfinite(result.measured["kron_flux_err"]).all()
    assert result.measured["kron_flag"][lost].all()
    there, index = matched(result.stars[lost], y, x)
    kron = result.measured["kron_flux"][lost][index[there]]
    assert abs(np.mean(kron) / flux_of(7.0) - 1) < 0.15 + 3 * np.std(kron) / flux_of(7.0) / np.sqrt(len(kron))


def test_two_galaxies_that_touch_share_their_light():
    light = np.zeros((SIZE, SIZE))
    y, x = grid(90, 6)
    for gy, gx in zip(y, x, strict=True):
        add_stamp(light, gy, gx - 9, 40, galaxy(4.0), flux_of(400.0))
        add_stamp(light, gy, gx + 9, 40, galaxy(4.0), flux_of(200.0))
    result = find_sources(characterized(light, 9), FindSourcesConfig())
    for shift, flux in ((-9, 400.0), (9, 200.0)):
        there, index = matched(result.stars, y, x + shift, 2.0)
        assert there.mean() > 0.9
        kron = result.measured["kron_flux"][index[there]] / flux_of(flux)
        assert 0.85 < np.median(kron) < 1.1


def test_positions_are_absolute_and_rows_aligned():
    y, x = grid(64, 3)
    here = find_sources(characterized(paint(y, x, flux_of(60.0))), FindSourcesConfig())
    box = Box.from_shape((SIZE, SIZE), 1000, -300)
    there = find_sources(characterized(paint(y, x, flux_of(60.0)), box=box), FindSourcesConfig())
    np.testing.assert_allclose(there.stars["y"], here.stars["y"] + 1000)
    np.testing.assert_allclose(there.measured["peak_x"], here.measured["peak_x"] - 300)
    assert np.all(np.abs(there.stars["x"] - there.measured["peak_x"]) < 1.5)
    assert np.all(np.diff(there.stars["flux"]) <= 0)
    assert set(here.measured.dtype.names) >= {"kron_flux", "ap_flux_4_5", "iyy", "blendedness", "local_sky_flux"}
    assert all(name in MEASURED or name.startswith("ap_flux_") for name in here.measured.dtype.names)


def test_the_same_exposure_gives_the_same_bytes_and_is_left_as_it_was():
    char = characterized(crowded_with_galaxies(5))
    before = char.image.image.copy()
    one, two = (find_sources(char, FindSourcesConfig(iterations=2)) for _ in range(2))
    assert one.stars.tobytes() == two.stars.tobytes()
    assert one.measured.tobytes() == two.measured.tobytes()
    np.testing.assert_array_equal(char.image.image, before)


def test_a_saturated_star_with_its_trail_is_one_source():
    light = paint([320.2], [300.4], 4e5)
    char = characterized(light)
    data, mask = char.image.image.copy(), char.image.mask.copy()
    full = data > 8000
    full[250:390, 300] = True
    data[full], mask[full] = 8000, int(MaskPlane.SAT)
    image = MaskedImage.make(data, mask, data + SKY, "electron")
    found = find_sources(dataclasses.replace(char, image=image), FindSourcesConfig()).stars
    near = np.hypot(found["y"] - 320.2, found["x"] - 300.4) < 12
    assert np.sum(near & found["saturated"]) == 1
    assert np.sum(found["saturated"]) <= 3


def my_measurement(view, config):
    return {"my_flux": view.flux * 2, "my_rank": np.arange(len(view))}


def test_a_measurement_of_ones_own_stands_beside_ours(monkeypatch: pytest.MonkeyPatch):
    y, x = grid(90, 3)
    config = FindSourcesConfig(measure=MeasureListConfig(names=("psf_shape", f"{__name__}:my_measurement")))
    result = find_sources(characterized(paint(y, x, flux_of(60.0))), config)
    assert result.measured.dtype.names == ("psf_iyy", "psf_ixx", "psf_iyx", "my_flux", "my_rank")
    np.testing.assert_allclose(result.measured["my_flux"], 2 * result.stars["flux"])
    none = find_sources(characterized(paint(y, x, flux_of(60.0))), FindSourcesConfig(measure=MeasureListConfig()))
    assert none.measured is None


@pytest.mark.parametrize("name", ["kronn", "no_such_module:f", f"{__name__}:FWHM"])
def test_an_unknown_measurement_is_named_with_what_there_is(name: str):
    with pytest.raises(BadSettings, match=name) as refused:
        measurement(name)
    assert refused.value.remedy
    with pytest.raises(BadSettings, match=", ".join(sorted(MEASUREMENTS))):
        measurement("kronn")


def test_a_measurement_of_the_wrong_length_is_refused():
    with pytest.raises(BadSettings, match="wrong_length"):
        measure_listed(Three(), MeasureListConfig(names=(f"{__name__}:wrong_length",)))


class Three:
    def __len__(self) -> int:
        return 3


def wrong_length(view, config):
    return {"a": np.zeros(2)}
