from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from apstream.model.wcs import SkyWcs
from apstream.simulate.config import PairConfig, SkyConfig
from apstream.simulate.pair import simulate_pair

EMPTY = SkyConfig(stars_per_arcmin2=0, galaxies_per_arcmin2=0, variables_per_arcmin2=0)


def columns(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return {name: np.array(table[name]) for name in table.column_names}


def box_sum(image: np.ndarray, y: float, x: float, half: int) -> float:
    iy, ix = round(y), round(x)
    return float(image[iy - half : iy + half + 1, ix - half : ix + half + 1].sum())


def test_transients_stand_where_the_truth_says_with_its_flux(tmp_path: Path) -> None:
    config = PairConfig(size=600, seed=2, transients=14, sky=EMPTY, cosmic_rays=False, snr_range=(40, 200))
    assert simulate_pair(tmp_path, config).n_transients == 14
    with fits.open(tmp_path / "science.fits") as hdus:
        image, header = hdus[0].data.astype(float), hdus[0].header
    truth, wcs = columns(tmp_path / "truth.parquet"), SkyWcs.from_header(header)
    assert wcs is not None
    y, x = wcs.sky_to_pixel(truth["ra"], truth["dec"])
    np.testing.assert_allclose([y, x], [truth["y"], truth["x"]], atol=1e-3)
    sky = np.median(image)
    tilt = np.polynomial.polynomial.polyvander2d(*np.meshgrid(*2 * [np.linspace(-1, 1, 600)]), [1, 1]).reshape(-1, 4)
    near = np.abs(image - sky).ravel() < 0.15 * sky
    image -= (tilt @ np.linalg.lstsq(tilt[near], image.ravel()[near], rcond=None)[0]).reshape(image.shape)
    for i in range(14):
        if np.hypot(y - y[i], x - x[i])[np.arange(14) != i].min() < 32:
            continue
        stamp = image[round(y[i]) - 8 : round(y[i]) + 9, round(x[i]) - 8 : round(x[i]) + 9]
        dy, dx = np.mgrid[-8:9, -8:9] * np.clip(stamp, 0, None) / np.clip(stamp, 0, None).sum()
        assert np.hypot(dy.sum() + round(y[i]) - y[i], dx.sum() + round(x[i]) - x[i]) < 0.7
        flux = box_sum(image, y[i], x[i], 14) * 10 ** (0.4 * (31.4 - header["MAGZERO"]))
        noise = truth["flux_njy"][i] / truth["sn_expected"][i] * 29 / np.sqrt(25)
        assert flux == pytest.approx(truth["flux_njy"][i] * 0.985, abs=4 * noise)


def test_signal_to_noise_spreads_evenly_in_its_logarithm(tmp_path: Path) -> None:
    simulate_pair(tmp_path, PairConfig(size=256, seed=3, transients=60))
    truth = columns(tmp_path / "truth.parquet")
    new = truth["kind"] == "transient"
    snr = np.sort(truth["sn_expected"][new])
    assert new.sum() == 60
    assert np.median(snr) == pytest.approx(np.sqrt(300), rel=0.05)
    assert (snr[0], snr[-1]) == pytest.approx((3, 100), rel=0.06)
    assert np.all(truth["sn_local"][new] <= 1.06 * truth["sn_expected"][new])  # the sky has a slope
    assert np.mean(truth["host"][new] == "galaxy") == pytest.approx(0.5, abs=0.2)


def test_the_noise_is_what_the_header_says(tmp_path: Path) -> None:
    simulate_pair(tmp_path, PairConfig(size=256, seed=4, transients=0, sky=EMPTY, cosmic_rays=False))
    for name, count in (("science", 1), ("template", 5)):
        with fits.open(tmp_path / f"{name}.fits") as hdus:
            image, header = hdus[0].data.astype(float), hdus[0].header
        electrons = image * header["GAIN"]
        pairs = (electrons[:, 1::2] - electrons[:, ::2]) / np.sqrt(2)
        assert header["NCOMBINE"] == count
        assert pairs.var() == pytest.approx(electrons.mean() + header["RDNOISE"] ** 2, rel=0.03)


def test_identical_images_differ_by_noise_alone(tmp_path: Path) -> None:
    summary = simulate_pair(tmp_path, PairConfig(size=256, seed=5, identical=True, cosmic_rays=False))
    science, template = (fits.getdata(tmp_path / f"{n}.fits").astype(float) * 2 for n in ("science", "template"))
    assert (summary.n_transients, summary.n_variables) == (0, 0)
    assert len(columns(tmp_path / "truth.parquet")["id"]) == 0
    clear = np.maximum(science, template) < 90_000
    pull = ((science - template) / np.sqrt(science + template + 50))[clear]
    assert (pull.mean(), pull.std()) == pytest.approx((0, 1), abs=0.02)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        simulate_pair(tmp_path / name, PairConfig(size=128, seed=6))
    for file in sorted(path.name for path in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
