from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from apstream.errors import BadFile, BadHeader, NoGoodPixels, WrongSize
from apstream.model.mask import MaskPlane
from apstream.repo.formats.external import ExternalOptions, read_external
from apstream.tasks.external import ExternalConfig, enter

NONE = ExternalOptions()


def save(path: Path, *hdus: fits.ImageHDU, **cards: object) -> Path:
    first = fits.PrimaryHDU()
    first.header.update(cards)
    fits.HDUList([first, *hdus]).writeto(path)
    return path


def sky(shape: tuple[int, int] = (300, 260), level: float = 400.0, gain: float = 2.0) -> np.ndarray:
    electrons = np.random.default_rng(3).normal(level * gain, np.sqrt(level * gain), shape)
    return (electrons / gain).astype(np.float32)


@pytest.mark.parametrize("subtracted", [False, True])
def test_variance_is_the_photon_noise_whether_the_sky_was_subtracted_or_not(tmp_path: Path, subtracted: bool):
    pixels = sky() - (400 if subtracted else 0)
    path = save(tmp_path / "s.fits", fits.ImageHDU(pixels), GAIN=2.0)
    exposure = enter(read_external(path, NONE), ExternalConfig())
    assert np.median(exposure.image.variance) == pytest.approx(800, rel=0.1)
    assert np.var(exposure.image.image) == pytest.approx(800, rel=0.1)
    assert exposure.image.unit == "electron"


def test_variance_and_mask_extensions_are_used(tmp_path: Path):
    mask = np.zeros((300, 260), np.int16)
    mask[5, 7], mask[6, 8] = 1, 4
    error = np.full((300, 260), 3.0, np.float32)
    path = save(
        tmp_path / "m.fits",
        fits.ImageHDU(sky(), name="SCI"),
        fits.ImageHDU(error, name="ERR"),
        fits.ImageHDU(mask, name="DQ"),
    )
    image = enter(read_external(path, NONE), ExternalConfig()).image
    assert image.mask[5, 7] & MaskPlane.BAD
    assert image.mask[6, 8] & MaskPlane.BAD
    np.testing.assert_allclose(image.variance, 9.0)
    chosen = enter(read_external(path, ExternalOptions(bad_bits=4)), ExternalConfig()).image
    assert not chosen.mask[5, 7]
    assert chosen.mask[6, 8] & MaskPlane.BAD


def test_saturation_comes_from_header_option_or_plateau(tmp_path: Path):
    pixels = sky()
    pixels[10:14, 10:14] = 9000
    header = save(tmp_path / "h.fits", fits.ImageHDU(pixels), GAIN=1.0, SATURATE=8000.0)
    silent = save(tmp_path / "p.fits", fits.ImageHDU(pixels), GAIN=1.0)
    for path, options in ((header, NONE), (silent, NONE), (silent, ExternalOptions(saturation=5000))):
        image = enter(read_external(path, options), ExternalConfig()).image
        assert np.count_nonzero(image.flagged(MaskPlane.SAT)) == 16 + 4 * 8 + 16


def test_a_missing_gain_says_how_to_give_it(tmp_path: Path):
    path = save(tmp_path / "g.fits", fits.ImageHDU(sky()))
    with pytest.raises(BadHeader, match=r"g\.fits.*-c image\.gain="):
        read_external(path, NONE)
    assert read_external(path, ExternalOptions(gain=1.5)).gain == 1.5


def test_compressed_files_read_like_plain_ones(tmp_path: Path):
    plain = save(tmp_path / "p.fits", fits.ImageHDU(sky()), GAIN=2.0)
    packed = tmp_path / "p.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(sky(), compression_type="GZIP_1", quantize_level=0)]).writeto(
        packed
    )
    zipped = save(tmp_path / "p.fits.gz", fits.ImageHDU(sky()), GAIN=2.0)
    expected = read_external(plain, NONE).pixels
    for path in (packed, zipped):
        np.testing.assert_array_equal(read_external(path, ExternalOptions(gain=2.0)).pixels, expected)


@pytest.mark.parametrize("content", [b"", b"not FITS at all", b"SIMPLE  =                    T"])
def test_what_is_no_fits_file_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "bad.fits").write_bytes(content)
    with pytest.raises(BadFile, match=r"bad\.fits"):
        read_external(tmp_path / "bad.fits", NONE)


def test_a_truncated_file_is_refused(tmp_path: Path):
    path = save(tmp_path / "t.fits", fits.ImageHDU(sky()), GAIN=2.0)
    path.write_bytes(path.read_bytes()[:-60_000])
    with pytest.raises(BadFile, match=r"t\.fits"):
        read_external(path, NONE)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path):
    path = save(
        tmp_path / "w.fits", fits.ImageHDU(sky(), name="SCI"), fits.ImageHDU(np.zeros((9, 9)), name="MASK"), GAIN=1.0
    )
    with pytest.raises(WrongSize, match=r"w\.fits"):
        read_external(path, NONE)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "not a number"), (70000.0, "saturated")])
def test_an_image_without_one_good_pixel_is_refused(tmp_path: Path, value: float, word: str):
    pixels = np.full((100, 100), value, np.float32)
    path = save(tmp_path / "n.fits", fits.ImageHDU(pixels), GAIN=1.0, SATURATE=60000.0)
    with pytest.raises(NoGoodPixels, match=rf"n\.fits.*{word}"):
        enter(read_external(path, NONE), ExternalConfig())


def test_weight_and_mask_of_files_beside_are_used(tmp_path: Path):
    weight, mask = np.full((300, 260), 0.25, np.float32), np.zeros((300, 260), np.int32)
    weight[3, 4], mask[5, 6], mask[7, 8] = 0, 2, 1 << 25
    path = save(tmp_path / "i.fits", fits.ImageHDU(sky()))
    beside = {
        "weight_file": save(tmp_path / "w.fits", fits.ImageHDU(weight)),
        "mask_file": save(tmp_path / "m.fits", fits.ImageHDU(mask)),
    }
    image = enter(read_external(path, ExternalOptions(**beside, bad_bits=1 << 25)), ExternalConfig()).image
    np.testing.assert_allclose(image.variance[100:], 4.0)
    assert image.mask[3, 4] & MaskPlane.NO_DATA
    assert image.mask[7, 8] & MaskPlane.BAD
    assert not image.mask[5, 6]


def test_a_weight_of_another_shape_is_named(tmp_path: Path):
    path = save(tmp_path / "i.fits", fits.ImageHDU(sky()))
    weight = save(tmp_path / "w.fits", fits.ImageHDU(np.ones((30, 26), np.float32)))
    with pytest.raises(WrongSize, match=r"w\.fits"):
        read_external(path, ExternalOptions(weight_file=weight))


def test_a_real_stamp_with_its_weight_enters_with_its_noise(shared_data: Path):
    folder = shared_data / "decam_stamps/testcase8"
    name = "c4d_171113_060340_{}_r_ls9.N6.fits"
    options = ExternalOptions(
        weight_file=folder / name.format("oow"), mask_file=folder / name.format("ood"), gain=4.0, band="r"
    )
    exposure = enter(read_external(folder / name.format("ooi"), options), ExternalConfig())
    steps = np.abs(np.diff(exposure.image.image, axis=1))  # a galaxy fills the stamp; neighbours share its light
    scatter = 1.4826 * np.median(steps) / np.sqrt(2)
    assert scatter == pytest.approx(np.sqrt(np.median(exposure.image.variance)), rel=0.05)


@pytest.mark.parametrize("filter", ["R", "V"])
def test_a_real_image_with_cards_that_cannot_be_parsed_is_read(shared_data: Path, filter: str):
    path = shared_data / "smarts_sn2019so" / f"SN2019so_20190201_{filter}.fits.gz"
    image = read_external(path, ExternalOptions(gain=2.3))
    assert image.pixels.shape == (994, 904)
    assert image.wcs is not None
    assert 0.36 < image.wcs.pixel_scale_arcsec < 0.38


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"BUNIT": "MJy/sr", "GAIN": 2.0}, r"BUNIT = 'MJy/sr': known are adu.*-c image\.gain"),
        ({"BUNIT": "electron/s", "GAIN": 2.0}, r"BUNIT = 'electron/s'"),
        ({"EXPTIME": -30.0, "GAIN": 2.0}, r"EXPTIME = -30\.0 is no exposure time"),
        ({"EXPTIME": "long", "GAIN": 2.0}, r"EXPTIME = 'long' is no exposure time"),
        ({"RDNOISE": -5.0, "GAIN": 2.0}, r"RDNOISE = -5\.0 is no read noise.*-c image\.read_noise"),
        ({"GAIN": -1.9}, r"GAIN = -1\.9 is no gain .*-c image\.gain"),
        ({"GAIN": 0}, r"GAIN = 0 is no gain"),
    ],
)
def test_an_impossible_card_is_named_with_what_overrides_it(tmp_path: Path, cards: dict[str, object], said: str):
    path = save(tmp_path / "c.fits", fits.ImageHDU(sky()), **cards)
    with pytest.raises(BadHeader, match=rf"c\.fits.*{said}"):
        read_external(path, NONE)


def test_a_unit_that_is_not_known_does_no_harm_where_gain_or_variance_are_given(tmp_path: Path):
    path = save(tmp_path / "u.fits", fits.ImageHDU(sky(), name="SCI"), BUNIT="MJy/sr", RDNOISE=-1.0, GAIN=7.0)
    assert read_external(path, ExternalOptions(gain=1.5, read_noise=3.0)).gain == 1.5
    with_variance = save(
        tmp_path / "v.fits", fits.ImageHDU(sky(), name="SCI"), fits.ImageHDU(sky(), name="VAR"), BUNIT="nJy", GAIN=7.0
    )
    assert read_external(with_variance, NONE).gain is None


@pytest.mark.parametrize("unit", ["ADU", "counts", "DN", "adu/pixel", ""])
def test_units_of_counts_take_the_gain_of_the_header(tmp_path: Path, unit: str):
    path = save(tmp_path / "u.fits", fits.ImageHDU(sky()), BUNIT=unit, GAIN=2.0, EXPTIME=0.0)
    assert read_external(path, NONE).gain == 2.0


def test_a_gain_that_is_none_gives_way_to_one_that_is(tmp_path: Path):
    path = save(tmp_path / "u.fits", fits.ImageHDU(sky()), BUNIT="electrons/pixel")
    assert read_external(path, NONE).gain == 1.0
    path = save(tmp_path / "e.fits", fits.ImageHDU(sky()), GAIN=0.0, EGAIN=1.5)
    assert read_external(path, NONE).gain == 1.5


def test_text_in_place_of_fits_gives_no_advice_to_programmers(tmp_path: Path):
    (tmp_path / "t.fits").write_text("ra,dec,mag\n" * 500)
    with pytest.raises(BadFile, match="No SIMPLE card found") as caught:
        read_external(tmp_path / "t.fits", NONE)
    assert "ignore_missing" not in str(caught.value)
    assert "If this is really" not in str(caught.value)
