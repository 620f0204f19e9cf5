from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from apstream.errors import BadFile, FileMissing
from apstream.model.exposures import CalExp, DifferenceImage
from apstream.model.image import MaskedImage
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.fits import read_calexp, read_difference, write_image


def same_image(a: MaskedImage, b: MaskedImage) -> None:
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.variance, b.variance)
    assert (a.unit, a.box) == (b.unit, b.box)


def same_wcs(a: SkyWcs, b: SkyWcs) -> None:
    y, x = np.mgrid[100:148:7, -20:44:9]
    np.testing.assert_allclose(a.pixel_to_sky(y, x), b.pixel_to_sky(y, x), rtol=0, atol=1e-11)


def test_a_calexp_comes_back_bit_for_bit(tmp_path: Path, calexp: CalExp):
    write_image(tmp_path / "c.fits", calexp)
    back = read_calexp(tmp_path / "c.fits")
    same_image(calexp.image, back.image)
    same_wcs(calexp.wcs, back.wcs)
    np.testing.assert_array_equal(calexp.psf.basis, back.psf.basis)
    np.testing.assert_array_equal(calexp.stars, back.stars)
    assert (back.psf.box, back.photo_calib) == (calexp.psf.box, calexp.photo_calib)
    assert back.info.id == calexp.info.id
    assert back.info.mid_mjd_tai == calexp.info.mid_mjd_tai
    assert np.isnan(back.metrics["characterize.fwhm_pixel"])
    assert back.metrics["calibrate.n_matched"] == 312


def test_what_is_not_known_of_an_exposure_has_no_card(tmp_path: Path, calexp: CalExp):
    write_image(tmp_path / "known.fits", calexp)
    with fits.open(tmp_path / "known.fits") as hdus:
        assert [hdus[0].header[key] for key in ("RA", "DEC")] == [calexp.info.ra, calexp.info.dec]
    nan = float("nan")
    unknown = replace(calexp, info=replace(calexp.info, ra=nan, dec=nan, mid_mjd_tai=nan, exposure_s=nan))
    write_image(tmp_path / "unknown.fits", unknown)
    with fits.open(tmp_path / "unknown.fits") as hdus:
        assert not {"RA", "DEC", "MIDMJD", "EXPTIME"} & set(hdus[0].header)
    back = read_calexp(tmp_path / "unknown.fits").info
    assert np.isnan([back.ra, back.dec, back.mid_mjd_tai, back.exposure_s]).all()


def test_a_difference_comes_back_bit_for_bit(tmp_path: Path, difference: DifferenceImage):
    write_image(tmp_path / "d.fits", difference)
    back = read_difference(tmp_path / "d.fits")
    same_image(difference.image, back.image)
    np.testing.assert_array_equal(difference.matched_template, back.matched_template)
    np.testing.assert_array_equal(difference.kernel.basis, back.kernel.basis)
    np.testing.assert_array_equal(difference.kernel.at(120.0, 3.0), back.kernel.at(120.0, 3.0))
    assert (back.convolved, back.metrics) == (difference.convolved, difference.metrics)


def test_other_software_finds_the_same_sky_position(tmp_path: Path, calexp: CalExp):
    write_image(tmp_path / "c.fits", calexp)
    with fits.open(tmp_path / "c.fits") as hdus:
        plain = WCS(hdus["SCI"].header)
    ra, dec = calexp.wcs.pixel_to_sky(130.0, 7.0)
    theirs = plain.all_pix2world(7.0 + 20, 130.0 - 100, 0)  # they count from the array's corner
    np.testing.assert_allclose([ra, dec], np.ravel(theirs), rtol=0, atol=1e-10)


def test_same_input_same_bytes(tmp_path: Path, calexp: CalExp):
    write_image(tmp_path / "1.fits", calexp)
    write_image(tmp_path / "2.fits", calexp)
    assert (tmp_path / "1.fits").read_bytes() == (tmp_path / "2.fits").read_bytes()


@pytest.mark.parametrize("kept", [0, 100, 2880, 9000, 40000])
def test_a_truncated_file_is_named_and_never_half_read(tmp_path: Path, calexp: CalExp, kept: int):
    write_image(tmp_path / "c.fits", calexp)
    whole = (tmp_path / "c.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(whole[:kept])
    with pytest.raises(BadFile) as refused:
        read_calexp(tmp_path / "cut.fits")
    assert "cut.fits" in str(refused.value)


def test_a_newer_layout_is_refused(tmp_path: Path, calexp: CalExp):
    write_image(tmp_path / "c.fits", calexp)
    fits.setval(tmp_path / "c.fits", "APSVERS", value=99)
    with pytest.raises(BadFile, match="newer"):
        read_calexp(tmp_path / "c.fits")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileMissing, match=r"nowhere\.fits"):
        read_calexp(tmp_path / "nowhere.fits")
