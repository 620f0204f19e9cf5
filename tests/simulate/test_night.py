from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from astropy.wcs import WCS

from apstream.cameras import load_camera
from apstream.simulate.config import ChipConfig, NightConfig, SkyConfig
from apstream.simulate.night import FIRST_SCIENCE_VISIT, NightSummary, simulate_night

CONFIG = NightConfig(visits=2, template_visits=1, size=256, seed=11, transients=12)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> NightSummary:
    return simulate_night(tmp_path_factory.mktemp("night"), CONFIG)


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def calibrated(out: Path, path: Path) -> np.ndarray:
    """Undo what the chip did, with the masters: electrons per unit response."""
    raw, header = fits.getdata(path).astype(float), fits.getheader(path)
    detector = load_camera("simcam").detector(header)
    master = {k: fits.getdata(out / "calib" / f"{k}_d00.fits").astype(float) for k in ("bias", "dark", "flat_r")}
    image = np.zeros(detector.shape)
    for amplifier in detector.amplifiers:
        over = raw[amplifier.overscan.y0 : amplifier.overscan.y1, amplifier.overscan.x0 : amplifier.overscan.x1]
        data = raw[amplifier.data.y0 : amplifier.data.y1, amplifier.data.x0 : amplifier.data.x1]
        part = amplifier.target.slices(detector.box)
        adu = data - np.median(over) - master["bias"][part] - header["EXPTIME"] * master["dark"][part]
        image[part] = adu * amplifier.gain
    return image / master["flat_r"]


def test_same_seed_gives_the_same_bytes(night: NightSummary, tmp_path: Path) -> None:
    simulate_night(tmp_path, CONFIG)
    assert digests(tmp_path) == digests(night.out)


def test_another_seed_gives_other_pixels(night: NightSummary, tmp_path: Path) -> None:
    simulate_night(tmp_path, CONFIG.model_copy(update={"seed": 12}))
    same = {k for k, v in digests(tmp_path).items() if digests(night.out).get(k) == v}
    assert {Path(name).name for name in same} <= set()


def test_every_exposure_of_the_plan_is_there(night: NightSummary) -> None:
    plan = yaml.safe_load((night.out / "night.yaml").read_text())
    camera = load_camera(plan["camera"])
    assert [e["role"] for e in plan["exposures"]] == ["template", "science", "science"]
    for exposure in plan["exposures"]:
        info = camera.exposure_info(fits.getheader(night.out / exposure["path"]), exposure["path"])
        assert (info.id.visit, info.id.detector, info.band) == (exposure["visit"], exposure["detector"], "r")
        assert info.mid_mjd_tai == pytest.approx(exposure["mjd_mid_utc"] + 37 / 86400, abs=1e-6)


def test_the_header_wcs_is_wrong_by_arcseconds_only(night: NightSummary) -> None:
    camera = load_camera("simcam")
    rows = pq.read_table(night.out / "truth/visits.parquet").to_pylist()
    assert len(rows) == len(night.raws)
    for row in rows:
        header = fits.getheader(night.out / "raw" / f"sim_v{row['visit']:05d}_d00.fits")
        true = WCS(fits.Header.fromstring(row["true_wcs"], sep="\n"))
        guess = camera.initial_wcs(header)
        assert guess is not None
        ra, dec = true.all_pix2world([[127.5, 127.5]], 0)[0]
        assert (ra, dec) == pytest.approx((row["ra"], row["dec"]), abs=1e-9)
        y, x = guess.sky_to_pixel(ra, dec)
        assert 0.5 < np.hypot(y - 127.5, x - 127.5) * 0.25 < 2.5


def test_what_changes_is_where_and_as_bright_as_the_truth_says(night: NightSummary, tmp_path: Path) -> None:
    still = SkyConfig(variables_per_arcmin2=0, asteroids_per_arcmin2=0)
    simulate_night(tmp_path, CONFIG.model_copy(update={"transients": 0, "sky": still}))
    table = pq.read_table(night.out / "truth/sources.parquet")
    truth = {name: np.array(table[name]) for name in table.column_names}
    zero_point = {
        v["visit"]: v["zero_point_mag"] for v in pq.read_table(night.out / "truth/visits.parquet").to_pylist()
    }
    bad = fits.getdata(night.out / "calib/defects_d00.fits") > 0
    checked = 0
    for visit in night.science_visits:
        name = f"raw/sim_v{visit:05d}_d00.fits"
        change = calibrated(night.out, night.out / name) - calibrated(tmp_path, tmp_path / name)
        here = np.flatnonzero(truth["visit"] == visit)
        for i in here:
            y, x, flux = truth["y"][i], truth["x"][i], truth["total_flux_njy"][i]
            near = np.hypot(truth["y"][here] - y, truth["x"][here] - x) < 40
            box = (slice(round(y) - 14, round(y) + 15), slice(round(x) - 14, round(x) + 15))
            electrons = flux * 10 ** (0.4 * (zero_point[visit] - 31.4))
            if near.sum() > 1 or min(y, x, 255 - y, 255 - x) < 15 or bad[box].any() or abs(electrons) < 1500:
                continue
            stamp = change[box]
            dy, dx = np.mgrid[-14:15, -14:15] * np.abs(stamp) / np.abs(stamp).sum()
            assert np.hypot(dy.sum() + round(y) - y, dx.sum() + round(x) - x) < 0.5
            assert stamp.sum() == pytest.approx(0.985 * electrons, rel=0.04, abs=150)
            checked += 1
    assert checked >= 3


def test_template_visits_hold_no_supernova(night: NightSummary) -> None:
    table = pq.read_table(night.out / "truth/sources.parquet")
    truth = {name: np.array(table[name]) for name in table.column_names}
    template, burst = truth["visit"] < FIRST_SCIENCE_VISIT, np.isin(truth["kind"], ["supernova", "flare"])
    assert np.all(truth["total_flux_njy"][template & burst] < 1)
    science = ~template & burst
    np.testing.assert_allclose(truth["flux_njy"][science], truth["total_flux_njy"][science], atol=1)
    assert np.all(truth["flux_njy"][~template & (truth["kind"] == "faded")] < 0)


def test_isolated_stars_have_their_flux(tmp_path: Path) -> None:
    sky = SkyConfig(
        stars_per_arcmin2=12,
        star_mag_limits=(17.5, 19),
        galaxies_per_arcmin2=0,
        variables_per_arcmin2=0,
        asteroids_per_arcmin2=0,
    )
    chip = ChipConfig(cosmic_rays_cm2_min=0, satellite_rate=0)
    simulate_night(
        tmp_path, NightConfig(visits=1, template_visits=0, size=640, seed=5, transients=0, sky=sky, chip=chip)
    )
    image = calibrated(tmp_path, tmp_path / "raw/sim_v01001_d00.fits")
    visit = pq.read_table(tmp_path / "truth/visits.parquet").to_pylist()[0]
    table = pq.read_table(tmp_path / "truth/objects.parquet")
    wcs = WCS(fits.Header.fromstring(visit["true_wcs"], sep="\n"))
    x, y = wcs.all_world2pix(np.array(table["ra"]), np.array(table["dec"]), 0)
    bad = fits.getdata(tmp_path / "calib/defects_d00.fits") > 0
    yy, xx = np.mgrid[:640, :640]
    ratios = []
    for i in range(len(x)):
        others = np.delete(np.hypot(x - x[i], y - y[i]), i)
        if not (40 < x[i] < 600 and 40 < y[i] < 600) or others.min() < 45:
            continue
        r = np.hypot(yy - y[i], xx - x[i])
        if bad[r < 16].any():
            continue
        sky_level = np.median(image[(r > 28) & (r < 40) & ~bad])
        flux = (image[r < 16] - sky_level).sum()
        ratios.append(flux / 10 ** (-0.4 * (table["mag_r"][i].as_py() - visit["zero_point_mag"])))
    assert len(ratios) >= 6
    assert np.median(ratios) == pytest.approx(0.99, abs=0.012)  # the wing outside the aperture is 1 %
