from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from apstream.cameras import load_camera
from apstream.errors import BadCamera, BadFile, BadSettings, MissingPsf, TooFewStars
from apstream.model.calibs import IsrCalibs
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.fits import read_calexp, read_exposure
from apstream.repo.formats.hdus import float_image, open_fits
from apstream.repo.formats.raw import read_raw
from apstream.service.flight import QUALITY
from apstream.service.single import SingleSettings, calibrate_file, characterize_file, isr_file, with_psf
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night

CALIBS = ("bias", "dark", "defects", "flat")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("night")
    simulate_night(out, NightConfig(size=400, visits=1, template_visits=0, seed=4))
    return out


def masters(night: Path) -> dict[str, Path]:
    names = {name: "flat_r_d00" if name == "flat" else f"{name}_d00" for name in CALIBS}
    return {name: night / "calib" / f"{stem}.fits" for name, stem in names.items()}


def pixels(path: Path) -> np.ndarray:
    with open_fits(path) as hdus:
        return float_image(hdus[0])


def test_the_stages_alone_give_what_the_pipeline_gives(night: Path, tmp_path: Path):
    raw = next((night / "raw").iterdir())
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    assert read_exposure(tmp_path / "isr.fits").image.unit == "electron"
    calibrate_file(tmp_path / "isr.fits", tmp_path, night / "refcat.parquet", SingleSettings())
    alone = read_calexp(tmp_path / "calexp.fits")
    arrays = {name: pixels(path) for name, path in masters(night).items()}
    calibs = IsrCalibs(defects=arrays.pop("defects") != 0, **arrays)
    catalog = read_refcat(night / "refcat.parquet", band="r")
    whole = calibrate_raw(read_raw(raw, load_camera("simcam")), calibs, catalog, PixelConfig())
    np.testing.assert_allclose(alone.image.image, whole.image.image, rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(alone.image.mask, whole.image.mask)
    assert alone.photo_calib.njy_per_unit == pytest.approx(whole.photo_calib.njy_per_unit, rel=1e-6)
    assert set(QUALITY) <= set(whole.metrics)


def test_three_commands_give_what_two_give(night: Path, tmp_path: Path):
    raw, catalog = next((night / "raw").iterdir()), night / "refcat.parquet"
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    characterize_file(tmp_path / "isr.fits", tmp_path / "char", SingleSettings())
    three = calibrate_file(tmp_path / "char" / "characterized.fits", tmp_path / "three", catalog, SingleSettings())
    two = calibrate_file(tmp_path / "isr.fits", tmp_path / "two", catalog, SingleSettings())
    assert three.metrics == two.metrics
    told = str(fits.getheader(tmp_path / "three" / "calexp.fits")["HISTORY"]).replace("\n", "")
    for word in ("isr", "characterize", "calibrate", "bias_d00.fits sha256", "refcat.parquet sha256"):
        assert word in told
    np.testing.assert_array_equal(three.image.image, two.image.image)
    np.testing.assert_array_equal(three.image.mask, two.image.mask)
    tables = [pq.read_table(tmp_path / name / "sources.parquet") for name in ("two", "three")]
    assert tables[0].equals(tables[1])
    with pytest.raises(BadSettings, match="has its PSF already"):
        calibrate_file(
            tmp_path / "char" / "characterized.fits", tmp_path, catalog, SingleSettings(), psf=tmp_path / "isr.fits"
        )


def test_stages_differ_in_what_they_measure_and_calibration_goes_to_5_sigma(night: Path, tmp_path: Path):
    raw, catalog = next((night / "raw").iterdir()), night / "refcat.parquet"
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    lists = {
        "characterize": {"measure": {"names": ["kron"]}},
        "calibrate": {"detection": {"measure": {"names": ["moments"]}}},
    }
    settings = SingleSettings.model_validate(lists)
    characterize_file(tmp_path / "isr.fits", tmp_path / "char", settings)
    calibrate_file(tmp_path / "isr.fits", tmp_path / "cal", catalog, settings)
    bright, deep = (pq.read_table(tmp_path / name / "sources.parquet") for name in ("char", "cal"))
    assert np.nanmedian(bright["kron_flux"].to_numpy() / bright["flux"].to_numpy()) == pytest.approx(1, abs=0.3)
    assert np.nanmedian(deep["ixx"].to_numpy()) > 0
    assert "ixx" not in bright.column_names
    assert "kron_flux" not in deep.column_names
    assert [t.schema.field("flux").metadata[b"unit"] for t in (bright, deep)] == [b"electron", b"nJy"]
    snr = deep["flux"].to_numpy() / deep["flux_err"].to_numpy()
    assert 3 < np.nanpercentile(snr, 2) < 8


def test_one_image_gives_a_source_list(night: Path, tmp_path: Path):
    raw = next((night / "raw").iterdir())
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    found = characterize_file(tmp_path / "isr.fits", tmp_path / "out", SingleSettings())
    table = pq.read_table(tmp_path / "out" / "sources.parquet")
    assert table.num_rows == len(found.stars) > 50
    assert {"ra", "dec", "y", "x", "flux", "fwhm", "is_star"} <= set(table.column_names)
    assert np.isfinite(table["ra"].to_numpy()).all()


def test_what_is_wrong_is_named(night: Path, tmp_path: Path):
    raw = next((night / "raw").iterdir())
    with pytest.raises(BadCamera, match="simcam"):
        isr_file(raw, tmp_path / "x.fits", "simcm", {}, SingleSettings())
    bias, settings = night / "calib" / "bias_d00.fits", SingleSettings.model_validate({"image": {"gain": 2.0}})
    with pytest.raises(TooFewStars, match=r"bias_d00\.fits"):
        characterize_file(bias, tmp_path, settings)


def test_a_supplied_psf_serves_characterization_and_calibration_of_isr_output(night: Path, tmp_path: Path):
    raw = next((night / "raw").iterdir())
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    measured = characterize_file(tmp_path / "isr.fits", tmp_path / "out", SingleSettings())
    given, settings = tmp_path / "out" / "characterized.fits", with_psf(SingleSettings())
    again = characterize_file(tmp_path / "isr.fits", tmp_path / "again", settings, given)
    assert np.array_equal(again.psf.basis, measured.psf.basis)
    calexp = calibrate_file(tmp_path / "isr.fits", tmp_path / "cal", night / "refcat.parquet", settings, psf=given)
    own = calibrate_file(tmp_path / "isr.fits", tmp_path / "own", night / "refcat.parquet", SingleSettings())
    assert np.array_equal(calexp.psf.basis, measured.psf.basis)
    assert calexp.photo_calib.zero_point == pytest.approx(own.photo_calib.zero_point, abs=0.005)
    fits.writeto(tmp_path / "kernel.fits", 3 * measured.psf.central())
    plain = characterize_file(tmp_path / "isr.fits", tmp_path / "plain", settings, tmp_path / "kernel.fits")
    assert plain.psf.central() == pytest.approx(measured.psf.central(), rel=1e-6, abs=1e-12)


def test_a_psf_that_is_missing_or_none_is_refused_by_name(night: Path, tmp_path: Path):
    raw = next((night / "raw").iterdir())
    isr_file(raw, tmp_path / "isr.fits", "simcam", masters(night), SingleSettings())
    settings = with_psf(SingleSettings())
    with pytest.raises(MissingPsf, match=r"isr\.fits.*--psf"):
        characterize_file(tmp_path / "isr.fits", tmp_path, settings)
    fits.writeto(tmp_path / "even.fits", np.ones((4, 4)))
    with pytest.raises(BadFile, match=r"even\.fits"):
        characterize_file(tmp_path / "isr.fits", tmp_path, settings, tmp_path / "even.fits")
    gaussian = {"characterize": {"psf_source": "gaussian", "gaussian_fwhm_pixel": 4}}
    with pytest.raises(BadSettings, match="exclude"):
        with_psf(SingleSettings.model_validate(gaussian))
