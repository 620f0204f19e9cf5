"""Raw files: several detectors in one, and images with their companions beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from apstream.cameras import Camera, load_camera
from apstream.errors import BadFile, FileMissing, UnknownEvent, WrongSize
from apstream.model.mask import MaskPlane
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.companions import bundle_raw, companion_paths
from apstream.repo.formats.raw import list_detectors, read_raw
from apstream.tasks.calibrate import CalibrateConfig, calibrate
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.isr import isr

SHARED = {
    "EXPNUM": 229388, "EXPTIME": 200.0, "DATE-OBS": "2013-09-01T06:02:55.753848", "MJD-OBS": 56536.25203419,
    "TIMESYS": "UTC", "FILTER": "z DECam SDSS c0004 9260.0 1520.0", "OBSTYPE": "object",
    "TELRA": "02:51:16.790", "TELDEC": "-00:00:05.699",
}  # fmt: skip
INSTCAL = load_camera("decam-instcal")
NAMES = load_camera("decam").detectors.names
NY, NX = 300, 200


def extension(number: int, pixels: np.ndarray, name: str = "") -> fits.ImageHDU:
    hdu = fits.ImageHDU(pixels, name=name or NAMES.get(number, f"F{number}"))
    hdu.header.update({"CCDNUM": number, "GAINA": 3.9, "RDNOISEA": 7.0, "SATURATE": 45000.0, "PLVER": "V4.8.2"})
    return hdu


def mosaic(path: Path, numbers: range, **planes: np.ndarray) -> Path:
    """Write a file with an extension per CCD, numbers descending, each filled with its number or with `planes`."""
    hdus = [fits.PrimaryHDU(header=fits.Header(SHARED))]
    hdus += [extension(n, planes.get(f"n{n}", np.full((NY, NX), n, "i2"))) for n in reversed(numbers)]
    fits.HDUList(hdus).writeto(path)
    return path


def with_companions(folder: Path, number: int = 37) -> Path:
    """Write an image (ooi) with its weight (oow) and mask (ood)."""
    rng = np.random.default_rng(5)
    sky = rng.normal(200, 7, (NY, NX)).astype("f4")
    weight, mask = np.full((NY, NX), 1 / 49, "f4"), np.zeros((NY, NX), "i4")
    weight[10, 20], mask[10, 20], mask[30, 40] = 0, 3, 7
    image = mosaic(folder / "c4d_1_ooi_r_v1.fits", range(number, number + 1), **{f"n{number}": sky})
    mosaic(folder / "c4d_1_oow_r_v1.fits", range(number, number + 1), **{f"n{number}": weight})
    mosaic(folder / "c4d_1_ood_r_v1.fits", range(number, number + 1), **{f"n{number}": mask})
    return image


def bytes_read() -> int:
    """Bytes that this process has read so far, from any file."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("counting bytes needs /proc/self/io")
    return int(counters.read_text().split("rchar:")[1].split()[0])


def test_all_detectors_of_a_file_are_listed_without_reading_pixels(tmp_path: Path) -> None:
    path = mosaic(tmp_path / "decam.fits", range(1, 71))  # 63 to 70: focus and guide chips
    list_detectors(path, load_camera("decam"))
    before = bytes_read()
    infos = list_detectors(path, load_camera("decam"))
    assert bytes_read() - before < 0.15 * path.stat().st_size
    assert [info.id.detector for info in infos] == list(range(1, 63))
    assert {info.id.visit for info in infos} == {229388}
    assert {info.band for info in infos} == {"z"}


def test_each_listed_detector_can_be_read(tmp_path: Path) -> None:
    path = mosaic(tmp_path / "all_ooi_.fits", range(1, 63))
    camera = INSTCAL.model_copy(update={"companions": Camera.model_fields["companions"].default})
    some = list_detectors(path, camera)[::15]
    assert len(some) == 5
    for info in some:
        raw = read_raw(path, camera, detector=info.id.detector)
        assert np.all(raw.pixels == info.id.detector)
        assert raw.info.id == info.id
        assert raw.variance is None
        assert raw.mask is None


def test_a_file_with_one_image_has_one_entry(shared_data: Path) -> None:
    path = sorted((shared_data / "saao_bulge").glob("*.fits"))[3]
    (info,) = list_detectors(path, load_camera("saao-ste3"))
    assert (info.id.detector, info.band) == (0, "i")
    (raw,) = list_detectors(path, load_camera("generic"))
    assert raw.id.instrument == "generic"


def test_one_ccd_taken_out_of_its_mosaic_needs_no_extension_name(tmp_path: Path) -> None:
    path = tmp_path / "one.fits"
    one = extension(37, np.full((NY, NX), 5.0, "f4"), name="SCI")
    beside = fits.ImageHDU(np.ones((NY, NX), "f4"), name="SCI_WEIGHT")
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(SHARED)), one, beside]).writeto(path)
    camera = INSTCAL.model_copy(update={"companions": Camera.model_fields["companions"].default})
    assert [info.id.detector for info in list_detectors(path, camera)] == [37]
    assert read_raw(path, camera, detector=37).detector.name == "N6"
    with pytest.raises(BadFile, match="no image of detector 5"):
        read_raw(path, camera, detector=5)


def test_a_file_of_no_known_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownEvent, match=r"guiders\.fits.*no detector 67"):
        list_detectors(mosaic(tmp_path / "guiders.fits", range(65, 68)), load_camera("decam"))


def test_weight_and_mask_come_from_the_files_beside(tmp_path: Path) -> None:
    path = with_companions(tmp_path)
    raw = read_raw(path, INSTCAL)
    assert raw.variance is not None
    assert raw.mask is not None
    assert raw.variance[0, 0] == pytest.approx(49)
    assert np.isinf(raw.variance[10, 20])
    assert np.argwhere(raw.mask).tolist() == [[10, 20]]  # code 7, a transient, stays
    out = isr(raw).image
    assert np.median(out.variance) == pytest.approx(49 * 3.9**2, rel=1e-3)
    assert np.isfinite(out.variance).all()
    assert out.mask[10, 20] & MaskPlane.SAT
    assert {kind: place.name for kind, place in companion_paths(path, INSTCAL).items()} == {
        "weight": "c4d_1_oow_r_v1.fits", "mask": "c4d_1_ood_r_v1.fits",
    }  # fmt: skip


def test_companions_are_found_behind_a_link(tmp_path: Path) -> None:
    real = with_companions(tmp_path)
    (tmp_path / "repo").mkdir()
    link = tmp_path / "repo" / "raw-229388-37.fits"
    link.symlink_to(real)
    raw = read_raw(link, INSTCAL, detector=37)
    assert raw.mask is not None
    assert raw.mask[10, 20] == MaskPlane.SAT


def test_a_bundle_holds_them_all_and_reads_the_same(tmp_path: Path) -> None:
    path = with_companions(tmp_path)
    (tmp_path / "away").mkdir()
    bundle = tmp_path / "away" / "229388-37.fits"
    bundle_raw(path, INSTCAL, bundle)
    one, two = read_raw(path, INSTCAL, detector=37), read_raw(bundle, INSTCAL, detector=37)
    for plane in ("pixels", "variance", "mask"):
        assert np.array_equal(getattr(one, plane), getattr(two, plane))
    assert [i.id for i in list_detectors(bundle, INSTCAL)] == [one.info.id]


@pytest.mark.parametrize("kind", ["oow", "ood"])
def test_a_missing_companion_is_named(tmp_path: Path, kind: str) -> None:
    path = with_companions(tmp_path)
    (tmp_path / f"c4d_1_{kind}_r_v1.fits").unlink()
    with pytest.raises(FileMissing, match=rf"c4d_1_ooi_r_v1.*c4d_1_{kind}_r_v1\.fits.*required: false"):
        read_raw(path, INSTCAL)
    companions = INSTCAL.companions
    weight, mask = (
        spec and spec.model_copy(update={"required": False}) for spec in (companions.weight, companions.mask)
    )
    lenient = INSTCAL.model_copy(update={"companions": companions.model_copy(update={"weight": weight, "mask": mask})})
    raw = read_raw(path, lenient)
    assert (raw.variance is None, raw.mask is None) == (kind == "oow", kind == "ood")


def test_a_companion_of_another_image_is_refused(tmp_path: Path) -> None:
    path = with_companions(tmp_path)
    weight = tmp_path / "c4d_1_oow_r_v1.fits"
    weight.unlink()
    mosaic(weight, range(37, 38), n37=np.ones((NY, NX - 1), "f4"))
    with pytest.raises(WrongSize, match=r"oow_r_v1\.fits.*weight is \(300, 199\)"):
        read_raw(path, INSTCAL)
    weight.unlink()
    mosaic(weight, range(40, 44))
    with pytest.raises(BadFile, match=r"oow_r_v1\.fits.*no image N6"):
        read_raw(path, INSTCAL)


def stamps(shared_data: Path) -> list[Path]:
    found = sorted((shared_data / "decam_stamps").glob("*/*_ooi_*.fits"))
    assert found
    return found


def test_real_community_pipeline_stamps_are_what_they_say(shared_data: Path) -> None:
    for path in stamps(shared_data):
        (info,) = list_detectors(path, INSTCAL)
        raw = read_raw(path, INSTCAL, detector=info.id.detector)
        table = fits.getdata(path.parent / "survey-ccds-1.fits.gz")
        row = next(r for r in table if r["expnum"] == info.id.visit)
        assert (info.band, raw.detector.name, info.exposure_s) == (row["filter"], row["ccdname"], row["exptime"])
        middle = row["mjd_obs"] + row["exptime"] / 2 / 86400
        assert abs(info.mid_mjd_tai - middle - 37 / 86400) < 3e-5  # 37 s TAI - UTC, 35 or 36 before 2017
        out = isr(raw).image
        good = (out.mask & ~int(MaskPlane.EDGE)) == 0
        poisson = out.image[good] + raw.detector.read_noise**2
        assert np.median(out.variance[good] / poisson) == pytest.approx(1, abs=0.1)  # weights and gain agree
        assert not np.any(good & ~np.isfinite(out.variance))


def test_gaia_stars_land_on_their_peaks_through_the_tpv_wcs(shared_data: Path, tmp_path: Path) -> None:
    (path,) = (p for p in stamps(shared_data) if "testcase8" in p.parts)
    exposure = isr(read_raw(path, INSTCAL))
    assert exposure.wcs is not None
    tables = [fits.getdata(chunk) for chunk in path.parent.glob("chunk-*.fits")]
    ra, dec = (np.concatenate([table[key] for table in tables if len(table)]) for key in ("RA", "DEC"))
    y, x = exposure.wcs.sky_to_pixel(ra, dec)
    image = exposure.image.image - np.median(exposure.image.image)
    ny, nx = image.shape
    bright = []
    for cy, cx in zip(y, x, strict=True):
        if 10 < cy < ny - 11 and 10 < cx < nx - 11:
            j, i = round(cy), round(cx)
            stamp = image[j - 5 : j + 6, i - 5 : i + 6].astype(float)
            light = np.where(stamp > 0.3 * stamp.max(), stamp, 0)
            yy, xx = np.mgrid[-5:6, -5:6]
            offset = ((light * yy).sum() / light.sum() + j - cy, (light * xx).sum() / light.sum() + i - cx)
            if stamp[5, 5] > 2000:
                bright.append(offset)
    assert len(bright) >= 4
    assert np.abs(bright).max() < 0.3


def test_a_real_cutout_is_calibrated_on_gaia_with_its_cameras_settings(shared_data: Path) -> None:
    (path,) = (p for p in stamps(shared_data) if "testcase8" in p.parts)
    catalogue = read_refcat(path.parent / "chunk-05483.fits", band="r")
    characterized = characterize(isr(read_raw(path, INSTCAL)), CharacterizeConfig())
    row = fits.getdata(path.parent / "survey-ccds-1.fits.gz")[0]
    assert characterized.metrics["characterize.fwhm_pixel"] == pytest.approx(row["fwhm"], rel=0.1)
    calexp = calibrate(characterized, catalogue, CalibrateConfig.model_validate(INSTCAL.settings["calibrate"]))
    assert calexp.metrics["calibrate.pointing_offset_arcsec"] < 0.15
    gain = float(fits.getheader(path, 1)["GAINA"])
    zero = row["ccdzpt"] + 2.5 * np.log10(row["exptime"] * gain)  # of the survey: ADU per second
    assert calexp.metrics["calibrate.zero_point"] == pytest.approx(zero, abs=0.15)  # Gaia's G is not r


def test_an_image_copied_away_from_its_companions_says_so(shared_data: Path, tmp_path: Path) -> None:
    path = stamps(shared_data)[0]
    alone = tmp_path / path.name
    shutil.copy(path, alone)
    with pytest.raises(FileMissing, match="no weight"):
        read_raw(alone, INSTCAL)
