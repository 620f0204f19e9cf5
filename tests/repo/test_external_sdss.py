from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from starfield import make_field

from apstream.errors import BadFile, BadHeader
from apstream.repo.formats.external import ExternalOptions, read_external
from apstream.tasks.characterize import characterize
from apstream.tasks.external import ExternalConfig, enter

GAIN, DARK, SKY = 3.995, 1.96, 120.0  # camera column 4, g


@pytest.fixture(scope="module")
def header(shared_data: Path) -> fits.Header:
    """The cards of a real corrected frame, run 6377, column 4, g."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(None, lambda loader, node: loader.construct_sequence(node, deep=True))
    cards = yaml.load((shared_data / "headers/fitsheader-sdss-fpC-006377-g4-0399.yaml").read_text(), Loader)
    own = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "BZERO", "BSCALE")
    own += ("COMMENT", "HISTORY", "DATASUM", "CHECKSUM")
    return fits.Header([(name, value) for name, _, value, *_ in cards if name not in own and len(name) <= 8])


def counts(seed: int, shape: tuple[int, int] = (400, 512)) -> np.ndarray:
    """DN of a blank sky with the CCD's noise, sky included."""
    rng = np.random.default_rng(seed)
    return rng.poisson(SKY * GAIN, shape) / GAIN + rng.normal(0, np.sqrt(DARK), shape)


def save_frame(path: Path, dn: np.ndarray, header: fits.Header) -> Path:
    """Write what the survey's pipeline made of `dn`: nanomaggies, calibration by column, sky on a coarse grid."""
    ny, nx = dn.shape
    scale = (0.005 * (1 + 0.1 * np.sin(np.arange(nx) / 60))).astype(np.float32)
    table = np.zeros(1, [("ALLSKY", "f4", (12, 16)), ("XINTERP", "f4", (nx,)), ("YINTERP", "f4", (ny,))])
    table["ALLSKY"], table["XINTERP"], table["YINTERP"] = SKY, np.linspace(0, 15, nx), np.linspace(0, 11, ny)
    cards = header.copy()
    cards["BUNIT"] = "nanomaggy"
    image = fits.PrimaryHDU(((dn - SKY) * scale).astype(np.float32), cards)
    fits.HDUList([image, fits.ImageHDU(scale), fits.BinTableHDU(table)]).writeto(path)
    return path


def test_a_frame_gets_the_variance_that_its_pixels_have(tmp_path: Path, header: fits.Header):
    exposure = enter(read_external(save_frame(tmp_path / "frame.fits", counts(1), header), ExternalOptions()),
                     ExternalConfig())  # fmt: skip
    pull = exposure.image.image / np.sqrt(exposure.image.variance)
    by_column = pull.reshape(400, 8, 64).std(axis=(0, 2))  # the calibration varies along the columns
    assert by_column == pytest.approx(1.0, abs=0.03)
    assert exposure.image.unit == "electron"
    assert np.median(exposure.image.variance) == pytest.approx(GAIN * SKY + GAIN**2 * DARK, rel=0.1)


def test_a_corrected_frame_loses_its_pedestal_and_knows_its_gain(tmp_path: Path, header: fits.Header):
    fits.PrimaryHDU((counts(2) + 1000).astype(np.int16), header).writeto(tmp_path / "fpC.fits")
    image = read_external(tmp_path / "fpC.fits", ExternalOptions())
    exposure = enter(image, ExternalConfig())
    assert np.median(exposure.image.image) == pytest.approx(SKY * GAIN, rel=0.01)
    assert np.median(exposure.image.variance) == pytest.approx(SKY * GAIN + GAIN**2 * DARK, rel=0.03)
    assert image.info.band == "g"
    assert image.info.mid_mjd_tai == pytest.approx((4665448882.73 + 53.907456 / 2) / 86400, abs=1e-9)
    assert exposure.wcs is not None
    assert exposure.wcs.pixel_scale_arcsec == pytest.approx(0.396, abs=0.001)


def test_a_frame_of_stars_is_characterized_like_any_image(tmp_path: Path, header: fits.Header):
    field = make_field(size=512, n_stars=150, sky=SKY * GAIN, read_noise=GAIN * DARK**0.5, seed=5)
    path = save_frame(tmp_path / "stars.fits", field.image / GAIN, header)
    found = characterize(enter(read_external(path, ExternalOptions()), ExternalConfig()))
    assert found.psf.fwhm() == pytest.approx(field.fwhm, rel=0.05)
    assert found.metrics["characterize.n_psf_stars"] >= 10


def test_a_frame_without_its_sky_and_a_ccd_that_never_was_are_named(tmp_path: Path, header: fits.Header):
    path = save_frame(tmp_path / "whole.fits", counts(3), header)
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0].copy(), hdus[1].copy()]).writeto(tmp_path / "cut.fits")
        hdus[0].header["CAMCOL"] = 9
        hdus.writeto(tmp_path / "odd.fits")
    with pytest.raises(BadFile, match=r"cut\.fits.*calibration or sky"):
        read_external(tmp_path / "cut.fits", ExternalOptions())
    with pytest.raises(BadHeader, match=r"odd\.fits.*CAMCOL 9"):
        read_external(tmp_path / "odd.fits", ExternalOptions())
