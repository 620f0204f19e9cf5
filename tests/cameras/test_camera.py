from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.time import Time

from apstream.cameras import load_camera
from apstream.errors import BadHeader, UnknownEvent, WrongSize
from apstream.model.geometry import Box
from apstream.repo.formats.raw import read_raw

DECAM_S1: dict[str, Any] = {
    "NAXIS1": 2160,
    "NAXIS2": 4146,
    "CCDNUM": 25,
    "EXPNUM": 229388,
    "EXPTIME": 200.0,
    "DATE-OBS": "2013-09-01T06:02:55.753848",
    "MJD-OBS": 56536.25203419,
    "TIMESYS": "UTC",
    "FILTER": "z DECam SDSS c0004 9260.0 1520.0",
    "OBSTYPE": "object",
    "TELRA": "02:51:16.790",
    "TELDEC": "-00:00:05.699",
    "DATASECA": "[1081:2104,51:4146]",
    "BIASSECA": "[2105:2154,51:4146]",
    "CCDSECA": "[1025:2048,1:4096]",
    "DATASECB": "[57:1080,51:4146]",
    "BIASSECB": "[7:56,51:4146]",
    "CCDSECB": "[1:1024,1:4096]",
    "GAINA": 4.59,
    "GAINB": 4.40,
    "RDNOISEA": 7.18,
    "RDNOISEB": 7.02,
    "SATURATA": 43266.0,
    "SATURATB": 44935.0,
}
SAAO: dict[str, Any] = {
    "NAXIS1": 512,
    "NAXIS2": 512,
    "DATE-OBS": "2013-07-08",
    "UT": "21:59:41",
    "MJD-OBS": 56481.91645,
    "EXPTIME": 300.041,
    "FILTERS": 58,
    "GAIN": 1.9,
    "RDNOISE": 5.0,
    "RA_OBS": 273.8708,
    "DEC_OBS": -25.285,
}


def astro_header(path: Path) -> dict[str, Any]:
    """Read the header dumps, which come as mappings or as lists of (keyword, type, value, comment)."""
    content = yaml.safe_load(path.read_text().replace("!<lsst.daf.base.PropertyList>\n", ""))
    return content if isinstance(content, dict) else {row[0]: row[2] for row in content}


def read_both(header: dict[str, Any], name: str) -> None:
    camera = load_camera("decam")
    camera.detector(header, name)
    camera.exposure_info(header, name)


class TestDecam:
    camera = load_camera("decam")

    def test_two_amplifiers_assemble_one_ccd(self) -> None:
        detector = self.camera.detector(DECAM_S1)
        assert (detector.number, detector.name, detector.shape) == (25, "S1", (4096, 2048))
        a, b = detector.amplifiers
        assert (a.name, a.data, a.target) == ("A", Box(50, 1080, 4146, 2104), Box(0, 1024, 4096, 2048))
        assert (b.name, b.overscan, b.target) == ("B", Box(50, 6, 4146, 56), Box(0, 0, 4096, 1024))
        assert (a.gain, b.gain, a.read_noise, b.saturation) == (4.59, 4.40, 7.18, 44935.0)

    def test_all_62_ccds_have_their_extension(self) -> None:
        names = [self.camera.select_hdu(number).name for number in range(1, 63)]
        assert len(set(names)) == 62
        assert (names[0], names[24], names[31], names[60], names[61]) == ("S29", "S1", "N1", "N30", "N31")

    def test_the_middle_of_the_exposure_in_tai(self) -> None:
        info = self.camera.exposure_info(DECAM_S1, "x.fits")
        middle = Time("2013-09-01T06:02:55.753848", scale="utc").mjd + 100 / 86400 + 35 / 86400
        assert info.mid_mjd_tai == pytest.approx(middle, abs=1e-9)
        assert (info.band, info.physical_filter, info.id.visit) == ("z", "z", 229388)
        assert (info.ra, info.dec) == pytest.approx((42.819958, -0.001583), abs=1e-5)

    def test_gains_have_defaults_and_sentinels(self) -> None:
        header = {k: v for k, v in DECAM_S1.items() if k != "GAINA"} | {"GAINB": -999}
        assert [a.gain for a in self.camera.detector(header).amplifiers] == [4.0, 4.0]

    @pytest.mark.parametrize("name", ["fitsheader-decam.yaml", "fitsheader-decam-raw_dec050441_25.yaml"])
    def test_real_headers(self, shared_data: Path, name: str) -> None:
        header = astro_header(shared_data / "headers" / name)
        info, detector = self.camera.exposure_info(header, name), self.camera.detector(header)
        wcs = self.camera.initial_wcs(header)
        assert wcs is not None
        assert detector.amplifiers[0].gain == pytest.approx(4.59347726229)
        assert wcs.pixel_scale_arcsec == pytest.approx(0.263, abs=0.002)
        pointing = (header["CRVAL1"], header["CRVAL2"])
        assert 0.5 < math.dist((info.ra, info.dec), pointing) < 1.2  # S1 lies at the edge of the field

    def test_a_bias_is_a_bias(self, shared_data: Path) -> None:
        header = astro_header(shared_data / "headers" / "fitsheader-decam-0160496.yaml")
        assert self.camera.exposure_info(header, "x").observation_type == "bias"

    def test_crpix_moves_with_the_trim(self) -> None:
        cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 1.0}
        cards |= {"CRPIX1": 157.0, "CRPIX2": 251.0, "CD1_1": -7e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7e-5}
        wcs = self.camera.initial_wcs(DECAM_S1 | cards)
        assert wcs is not None
        assert wcs.pixel_to_sky(200.0, 100.0) == pytest.approx((10.0, 1.0), abs=1e-12)

    @pytest.mark.parametrize("change", [{"CD1_1": 0.0}, {"CRVAL1": math.nan}, {"CRPIX1": "middle"}, {"CRPIX2": None}])
    def test_a_broken_wcs_is_no_crash(self, change: dict[str, Any]) -> None:
        cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 1.0}
        cards |= {"CRPIX1": 157.0, "CRPIX2": 251.0, "CD1_1": -7e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7e-5}
        with pytest.raises(BadHeader, match=r"a\.fits.*WCS"):
            self.camera.exposure_info(DECAM_S1 | cards | change, "a.fits")

    def test_a_detector_it_does_not_have(self) -> None:
        with pytest.raises(UnknownEvent, match="no detector 63"):
            self.camera.detector(DECAM_S1 | {"CCDNUM": 63})

    def test_a_wrong_size(self) -> None:
        with pytest.raises(WrongSize, match=r"f\.fits.*\(4146, 2160\)"):
            self.camera.detector(DECAM_S1 | {"NAXIS1": 2000}, "f.fits")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"EXPTIME": None}, ["EXPTIME", "exposure time"]),
        ({"EXPTIME": "long"}, ["EXPTIME", "'long'"]),
        ({"EXPTIME": -1}, ["exposure time"]),
        ({"EXPNUM": None}, ["EXPNUM", "visit"]),
        ({"EXPNUM": -5}, ["visit -5"]),
        ({"FILTER": None}, ["FILTER"]),
        ({"FILTER": "solid plate"}, ["solid plate", "filters"]),
        ({"DATE-OBS": None, "MJD-OBS": None}, ["DATE-OBS", "MJD-OBS"]),
        ({"DATE-OBS": "yesterday"}, ["DATE-OBS", "yesterday"]),
        ({"DATE-OBS": "2013-13-01T00:00:00"}, ["DATE-OBS", "2013-13-01"]),
        ({"MJD-OBS": 2456536.75}, ["MJD-OBS", "modified Julian"]),
        ({"DATE-OBS": "2013-09-02T06:02:55"}, ["differ by"]),
        ({"TIMESYS": "LOCAL"}, ["local", "TAI"]),
        ({"CCDNUM": "x"}, ["CCDNUM"]),
        ({"TELRA": "a:b:c"}, ["TELRA"]),
        ({"DATASECA": "[1:2,3]"}, ["section"]),
        ({"DATASECA": None}, ["DATASECA"]),
        ({"GAINA": 0.0, "GAINB": "?"}, ["GAINB"]),
        ({"CCDSECA": "[1:100,1:100]"}, ["amplifier A"]),
        ({"CCDSECA": "[1:1024,1:4096]"}, ["cover"]),
    ],
)
def test_bad_headers_name_keyword_file_and_remedy(changes: dict[str, Any], words: list[str]) -> None:
    header = {k: v for k, v in (DECAM_S1 | changes).items() if v is not None}
    with pytest.raises(BadHeader) as caught:
        read_both(header, "a.fits")
    assert caught.value.where == "a.fits"
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


class TestSaao:
    camera = load_camera("saao-ste3")

    def test_date_and_clock_make_the_time(self) -> None:
        info = self.camera.exposure_info(SAAO, "/data/AKB13475I0028.fits")
        assert info.id.visit == 28
        assert (info.band, info.physical_filter) == ("i", "I")
        expected = Time("2013-07-08T21:59:41", scale="utc").mjd + (150.0205 + 35) / 86400
        assert info.mid_mjd_tai == pytest.approx(expected, abs=1e-8)
        assert (info.ra, info.dec) == (273.8708, -25.285)

    def test_without_a_frame_number_the_time_is_the_visit(self) -> None:
        assert self.camera.exposure_info(SAAO, "x.fits").id.visit == 130708220211

    def test_processed_frames_are_used_whole_and_without_wcs(self) -> None:
        detector = self.camera.detector(SAAO)
        assert detector.amplifiers[0].data == Box(0, 0, 512, 512)
        assert self.camera.calibrated
        assert self.camera.initial_wcs(SAAO | {"CRPIX1": 1.0}) is None

    def test_all_real_frames(self, shared_data: Path) -> None:
        paths = sorted((shared_data / "saao_bulge").glob("*.fits"))
        infos = [self.camera.exposure_info(fits.getheader(path), str(path)) for path in paths]
        assert len({info.id.visit for info in infos}) == 75
        assert {info.band for info in infos} == {"i"}
        times = np.array([info.mid_mjd_tai for info in infos])
        assert np.all(np.diff(times) > 0)

    def test_the_raw_frame(self, shared_data: Path) -> None:
        header = fits.getheader(shared_data / "overscan_frames" / "a8280271.fits")
        detector = load_camera("saao-ste3-raw").detector(header)
        assert detector.shape == (520, 512)
        assert detector.amplifiers[0].overscan == Box(0, 3, 520, 13)

    def test_a_raw_frame_tells_which_camera_it_fits(self, shared_data: Path) -> None:
        path = shared_data / "overscan_frames" / "a8280271.fits"
        with pytest.raises(WrongSize, match=r"saao-ste3 has \(512, 512\) \(it fits the camera saao-ste3-raw"):
            read_raw(path, self.camera)
        other = shared_data / "overscan_frames" / "d1030.fits"
        with pytest.raises(WrongSize, match=r"\(check the camera file\)"):
            read_raw(other, self.camera)


class TestGeneric:
    camera = load_camera("generic")

    def test_options_win_over_the_header(self) -> None:
        header = {"NAXIS1": 10, "NAXIS2": 8, "EGAIN": 1.14, "READNOIS": 2.0, "SATURATE": 4000}
        assert self.camera.detector(header).gain == 1.14
        changed = self.camera.with_options(gain=3.0, saturation=100.0, read_noise=None).detector(header)
        assert (changed.gain, changed.read_noise, changed.amplifiers[0].saturation) == (3.0, 2.0, 100.0)
        with pytest.raises(ValueError, match="colour"):
            self.camera.with_options(colour=1)

    @pytest.mark.parametrize(
        ("name", "band"),
        [
            ("r", "r"),
            ("SDSS g", "g"),
            ("g_band", "g"),
            ("i'", "i"),
            ("r.00000", "unknown"),
            ("Ha", "unknown"),
            ("V", "V"),
        ],
    )
    def test_common_filter_names(self, name: str, band: str) -> None:
        info = self.camera.exposure_info({"EXPTIME": 1, "MJD-OBS": 59000.5, "FILTER": name}, "x.fits")
        assert (info.band, info.physical_filter) == (band, name)

    def test_local_time_with_its_offset(self) -> None:
        header = {"EXPTIME": 0, "DATE-OBS": "2017-12-19T18:33:43.317-0700", "FILTER": "r"}
        info = self.camera.exposure_info(header, "x.fits")
        utc = Time("2017-12-20T01:33:43.317", scale="utc")
        assert info.mid_mjd_tai == pytest.approx(utc.tai.mjd, abs=1e-9)

    def test_huntsman(self, shared_data: Path) -> None:
        header = fits.getheader(shared_data / "huntsman" / "science_0.fits")
        info, wcs = self.camera.exposure_info(header, "science_0.fits"), self.camera.initial_wcs(header)
        assert wcs is not None
        assert (info.band, info.exposure_s) == ("g", 300)
        assert self.camera.detector(header).gain == pytest.approx(1.1447, abs=1e-4)
