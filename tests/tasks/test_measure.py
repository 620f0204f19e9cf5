from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from apstream.model.columns import DIA_SOURCE
from apstream.model.ids import unpack_source_id
from apstream.model.mask import MaskPlane
from apstream.tasks.detect import DetectConfig, detect
from apstream.tasks.measure import MeasureConfig, measure


def run(scene, **options):
    difference, science, template = scene.products()
    found = detect(difference, DetectConfig(background_cell_px=None))
    return measure(found, difference, science, template, MeasureConfig(**options))


def spaced(rng, scene, n, gap=36):
    """Positions on a jittered grid: no two closer than about the gap."""
    side = scene.box.shape[0]
    cells = int((side - 40) // gap)
    pick = rng.permutation(cells * cells)[:n]
    y = scene.box.y0 + 20 + gap / 2 + gap * (pick // cells) + rng.uniform(-3, 3, len(pick))
    x = scene.box.x0 + 20 + gap / 2 + gap * (pick % cells) + rng.uniform(-3, 3, len(pick))
    return y, x


def matched(rows, y, x, radius=3.0):
    distance, index = cKDTree(np.c_[rows["y"], rows["x"]]).query(np.c_[y, x])
    return distance < radius, index


def width(values):
    low, high = np.percentile(values, [15.87, 84.13])
    return (high - low) / 2


@pytest.fixture
def bright(scene):
    """Transients of S/N 12-80, both signs, with truth."""
    rng = np.random.default_rng(11)
    sky = scene.empty(800, seed=2)
    y, x = spaced(rng, sky, 400)
    error = np.array([sky.error_of(a, b) for a, b in zip(y, x, strict=True)])
    flux = error * rng.uniform(12, 80, len(y)) * np.where(rng.random(len(y)) < 0.7, 1, -1)
    sky.transients(y, x, flux)
    return run(sky), y, x, flux


def test_fluxes_and_positions_have_honest_errors(bright):
    rows, y, x, flux = bright
    found, index = matched(rows, y, x)
    assert found.mean() > 0.99
    rows, y, x, flux = rows[index[found]], y[found], x[found], flux[found]
    pull = (rows["psfFlux"] - flux) / rows["psfFluxErr"]
    assert abs(np.median(pull)) < 0.12
    assert 0.93 < width(pull) < 1.07
    assert 0.9 < width((rows["y"] - y) / rows["yErr"]) < 1.1
    assert 0.9 < width((rows["x"] - x) / rows["xErr"]) < 1.1
    assert abs(np.median((rows["apFlux"] - flux) / rows["apFluxErr"])) < 0.2
    assert np.array_equal(rows["isNegative"], flux < 0)
    assert 0.97 < np.median(rows["psfChi2"] / rows["psfNdata"]) < 1.03
    direct = (rows["scienceFlux"] - flux) / rows["scienceFluxErr"]
    assert 0.9 < width(direct) < 1.1
    assert abs(np.median(rows["templateFlux"] / rows["templateFluxErr"])) < 0.2


def test_point_sources_have_the_shape_of_the_psf(bright):
    rows, *_ = bright
    good = (rows["snr"] > 40) & ~rows["shape_flag"]
    assert good.sum() > 100
    assert abs(np.median(rows["ixx"][good] / rows["ixxPSF"][good]) - 1) < 0.03
    assert np.nanmean(rows["extendedness"][good]) < 0.02


def test_rows_come_by_significance_with_packed_ids(bright):
    rows, *_ = bright
    assert rows.dtype == DIA_SOURCE.dtype
    assert np.all(np.diff(rows["snr"]) <= 0)
    assert unpack_source_id(int(rows["diaSourceId"][5])) == (7, 3, 5)
    assert np.all(rows["midpointMjdTai"] == 60000.5)


def test_sky_positions_follow_the_wcs(scene):
    sky = scene.empty()
    sky.transients([150.3], [170.7], [30 * sky.error_of(150, 170)])
    row = run(sky)[0]
    ra, dec = sky.wcs.pixel_to_sky(150.3, 170.7)
    assert abs(row["ra"] - ra) * 3600 < 0.05
    assert abs(row["dec"] - dec) * 3600 < 0.05
    total = row["raErr"] ** 2 + row["decErr"] ** 2
    assert np.isclose(total, (row["xErr"] ** 2 + row["yErr"] ** 2) * (0.26 / 3600) ** 2, rtol=1e-3)


def test_without_wcs_only_the_sky_is_unknown(scene):
    sky = scene.empty(wcs=False)
    sky.transients([150.3], [170.7], [30 * sky.error_of(150, 170)])
    row = run(sky)[0]
    assert np.isnan(row["ra"])
    assert row["psfFlux"] > 0
    assert not row["psfFlux_flag"]


def test_pixel_flags_name_the_planes(scene):
    sky = scene.empty()
    flux = 30 * sky.error_of(150, 170)
    sky.transients([120.0, 200.0], [130.0, 250.0], [flux, flux])
    y, x = 120 - sky.box.y0, 130 - sky.box.x0
    sky.mask[y, x] |= MaskPlane.SAT_TEMPLATE
    sky.mask[y + 3, x] |= MaskPlane.CR
    rows = run(sky)
    one, other = rows[matched(rows, [120.0, 200.0], [130.0, 250.0])[1]]
    assert one["pixelFlags"]
    assert one["pixelFlags_saturated_template"]
    assert one["pixelFlags_saturated_templateCenter"]
    assert one["pixelFlags_cr"]
    assert not one["pixelFlags_crCenter"]
    assert not one["pixelFlags_saturated"]
    assert not any(other[name] for name in rows.dtype.names if name.startswith("pixelFlags"))


def test_masked_core_is_flagged_and_measured_from_the_rest(scene):
    sky = scene.empty()
    flux = 60 * sky.error_of(150, 170)
    sky.transients([150.0], [170.0], [flux])
    y, x = 150 - sky.box.y0, 170 - sky.box.x0
    sky.mask[y : y + 1, x - 3 : x + 1] |= MaskPlane.BAD
    sky.difference[y : y + 1, x - 3 : x + 1] = np.nan
    row = run(sky)[0]
    assert row["pixelFlags_bad"]
    assert abs(row["psfFlux"] - flux) < 5 * row["psfFluxErr"]


def test_source_on_the_edge_is_flagged(scene):
    sky = scene.empty()
    sky.transients([sky.box.y0 + 3.0], [170.0], [40 * sky.error_of(150, 170)])
    row = run(sky)[0]
    assert row["psfFlux_flag_edge"]
    assert row["apFlux_flag_apertureTruncated"]
    assert not row["psfFlux_flag"]


def test_empty_sky_gives_no_rows(scene):
    assert len(run(scene.empty(64, seed=4))) == 0


def test_same_input_same_bytes(scene):
    def once():
        sky = scene.empty()
        sky.transients([150.3], [170.7], [3e3])
        return run(sky).tobytes()

    assert once() == once()


def test_misregistered_stars_are_dipoles(scene):
    sky = scene.empty(400, seed=8)
    axis = np.arange(100, 400, 60.0)
    y, x = (a.ravel() for a in np.meshgrid(axis, axis + 40))
    sky.shifted_stars(y, x, np.full(len(y), 40_000.0), dy=0.25, dx=-0.15)
    rows = run(sky)
    found, index = matched(rows, y - 0.125, x + 0.075, radius=1.5)
    assert found.mean() > 0.95
    rows = rows[index[found]]
    assert rows["isDipole"].mean() > 0.95
    assert rows["dipoleFitAttempted"].all()
    assert abs(np.median(rows["dipoleMeanFlux"]) - 40_000) < 4000
    assert abs(np.median(rows["dipoleLength"]) - 0.26 * np.hypot(0.25, 0.15)) < 0.02
    assert abs(np.median(rows["psfFlux"] / rows["psfFluxErr"])) < 3
    assert np.median(rows["reliability"]) < 0.3
    # From the template's place to the science image's: (dy, dx) = (0.25, -0.15), seen on the sky.
    ra, dec = sky.wcs.pixel_to_sky(np.array([200.0, 200.25]), np.array([200.0, 199.85]))
    bearing = np.rad2deg(np.arctan2((ra[1] - ra[0]) * np.cos(np.deg2rad(dec[0])), dec[1] - dec[0])) % 360
    assert abs((np.median(rows["dipoleAngle"]) - bearing + 180) % 360 - 180) < 5


def test_transients_are_not_dipoles_and_are_reliable(bright):
    rows, *_ = bright
    assert rows["isDipole"].mean() < 0.01
    assert np.median(rows["reliability"]) > 0.85
    assert np.all((rows["reliability"] >= 0) & (rows["reliability"] <= 1))
    assert np.all(rows["reliabilityVersion"] == "rule-1")


def test_variable_star_stays_a_point_source(scene):
    # A star that brightened by a tenth: both direct fluxes are large, the difference is a point.
    sky = scene.empty(seed=9)
    sky.shifted_stars([150.2], [200.4], [60_000.0], dy=0.0, dx=0.0)
    sky.transients([150.2], [200.4], [6_000.0])
    row = run(sky)[0]
    assert not row["isDipole"]
    assert not row["isBrightStarResidual"]
    assert row["reliability"] > 0.7
    assert abs(row["templateFlux"] - 60_000) < 1000


def test_trails_are_measured(scene):
    sky = scene.empty(400, seed=10)
    length, angle = 20.0, np.deg2rad(35.0)
    steps = (np.arange(60) + 0.5) / 60 - 0.5
    sky.transients(250 + steps * length * np.sin(angle), 280 + steps * length * np.cos(angle), np.full(60, 6000 / 60))
    sky.transients([120.0], [150.0], [5000.0])
    rows = run(sky)
    trail, point = rows[matched(rows, [250.0, 120.0], [280.0, 150.0], radius=12)[1]]
    assert np.isnan(point["trailFlux"])
    assert abs(trail["trailLength"] - 0.26 * length) < 4 * trail["trailLengthErr"]
    assert abs(trail["trailFlux"] - 6000) < 4 * trail["trailFluxErr"]
    ra, dec = sky.wcs.pixel_to_sky(np.array([250.0, 250 + np.sin(angle)]), np.array([280.0, 280 + np.cos(angle)]))
    bearing = np.rad2deg(np.arctan2((ra[1] - ra[0]) * np.cos(np.deg2rad(dec[0])), dec[1] - dec[0])) % 180
    assert abs((trail["trailAngle"] - bearing + 90) % 180 - 90) < 4 * trail["trailAngleErr"]
    assert abs(trail["trailRa"] - ra[0]) * 3600 < 0.1
    assert not trail["trail_flag_edge"]
    assert trail["reliability"] > 0.6


def test_wings_of_bright_stars_are_flagged(scene):
    sky = scene.empty(400, seed=12)
    sky.shifted_stars([150.0, 350.0], [200.0, 400.0], [400_000.0, 2_000.0], dy=0.0, dx=0.0)
    sky.transients([153.0, 353.0, 250.0], [205.0, 405.0, 250.0], [1500.0, 1500.0, 1500.0])
    rows = run(sky)
    flags = rows["isBrightStarResidual"][matched(rows, [153.0, 353.0, 250.0], [205.0, 405.0, 250.0])[1]]
    assert flags.tolist() == [True, False, False]
