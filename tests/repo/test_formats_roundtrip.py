"""Every format: what was written is what is read, the same value gives the same bytes, broken files are named."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from astropy.io import fits
from helpers.nouns import SAMPLES, same

from apstream.errors import BadFile, BadSettings, FileMissing
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.geometry import Box
from apstream.model.sources import SOURCE
from apstream.repo.formats.registry import FORMATS, get_format

SEEDS = range(8)
ODD = (b"", b"\x00" * 3000, b"[unclosed", b"\xff\xfe\x80", b"SIMPLE  =  ", b"PAR1PAR1", b"7")
TEXTS = {"text", "yaml", "json", "photo_calib", "defects", "crosstalk", "linearity", "photon_transfer", "skymap"}
TEXTS |= {"regions"}
BINARY = sorted(set(SAMPLES) - TEXTS)


def test_every_format_that_can_be_put_has_a_sample():
    assert set(SAMPLES) == {name for name, kept in FORMATS.items() if kept.type != ()}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_written_is_what_is_read_to_the_last_bit(tmp_path: Path, name: str):
    kept = FORMATS[name]
    for seed in SEEDS:
        value = SAMPLES[name](np.random.default_rng(seed))
        assert isinstance(value, kept.type)
        kept.write(tmp_path / "file", value)
        assert same(value, kept.read(tmp_path / "file")), seed


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_value_gives_the_same_bytes_and_stays_as_it_was(tmp_path: Path, name: str):
    for seed in SEEDS:
        value, twin, untouched = (SAMPLES[name](np.random.default_rng(seed)) for _ in range(3))
        FORMATS[name].write(tmp_path / "one", value)
        FORMATS[name].write(tmp_path / "two", twin)
        FORMATS[name].write(tmp_path / "three", FORMATS[name].read(tmp_path / "one"))
        assert len({digest(tmp_path / file) for file in ("one", "two", "three")}) == 1, seed
        assert same(value, untouched)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_tables_in_other_chunks_and_mappings_in_other_order_give_the_same_bytes(tmp_path: Path):
    table = pa.table({"a": [1, 2, 3]})
    FORMATS["table"].write(tmp_path / "1", table)
    FORMATS["table"].write(tmp_path / "2", pa.concat_tables([table[:1], table[1:]]))
    for name in ("yaml", "json"):
        FORMATS[name].write(tmp_path / f"{name}1", {"a": 1, "b": [2.5]})
        FORMATS[name].write(tmp_path / f"{name}2", {"b": [2.5], "a": 1})
        assert digest(tmp_path / f"{name}1") == digest(tmp_path / f"{name}2")
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str):
    with pytest.raises(FileMissing, match="nowhere"):
        FORMATS[name].read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, kept: float):
    FORMATS[name].write(tmp_path / "whole", SAMPLES[name](np.random.default_rng(3)))
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut.fits").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(BadFile, match=r"cut\.fits") as refused:
        FORMATS[name].read(tmp_path / "cut.fits")
    assert refused.value.remedy


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"text"}))
@pytest.mark.parametrize("content", ODD)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, name: str, content: bytes):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(BadFile, match="odd") as refused:
        FORMATS[name].read(tmp_path / "odd")
    assert refused.value.remedy


@pytest.mark.parametrize("name", ["exposure", "characterized", "calexp", "difference", "wcs", "psf", "background"])
def test_bits_turned_over_in_headers_are_refused_or_harmless(tmp_path: Path, name: str):
    FORMATS[name].write(tmp_path / "good", SAMPLES[name](np.random.default_rng(5)))
    good = (tmp_path / "good").read_bytes()
    rng = np.random.default_rng(6)
    for place in rng.integers(0, min(len(good), 14400), 60):
        broken = bytearray(good)
        broken[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "broken").write_bytes(broken)
        try:
            FORMATS[name].read(tmp_path / "broken")
        except BadFile as error:
            assert "broken" in str(error)  # noqa: PT017


def test_an_exposure_of_another_stage_is_refused(tmp_path: Path):
    FORMATS["exposure"].write(tmp_path / "e.fits", SAMPLES["exposure"](np.random.default_rng(1)))
    for name in ("calexp", "difference", "characterized", "psf", "wcs"):
        with pytest.raises(BadFile, match="file holds a"):
            FORMATS[name].read(tmp_path / "e.fits")


def test_a_packed_file_is_read(tmp_path: Path):
    value = SAMPLES["calexp"](np.random.default_rng(2))
    FORMATS["calexp"].write(tmp_path / "c.fits", value)
    packed = gzip.compress((tmp_path / "c.fits").read_bytes())
    (tmp_path / "c.fits.gz").write_bytes(packed)
    assert same(FORMATS["calexp"].read(tmp_path / "c.fits.gz"), value)
    (tmp_path / "c.fits.gz").write_bytes(packed[:-100])
    with pytest.raises(BadFile, match=r"c\.fits\.gz"):
        FORMATS["calexp"].read(tmp_path / "c.fits.gz")


def test_defects_are_read_from_a_map_and_written_as_boxes(tmp_path: Path):
    bad = np.zeros((20, 30), np.uint8)
    bad[5:, 4] = bad[2, 10:13] = 1
    fits.PrimaryHDU(bad).writeto(tmp_path / "map.fits")
    (tmp_path / "map.fits.gz").write_bytes(gzip.compress((tmp_path / "map.fits").read_bytes()))
    defects = FORMATS["defects"].read(tmp_path / "map.fits")
    assert defects == FORMATS["defects"].read(tmp_path / "map.fits.gz")
    assert defects == Defects((Box(2, 10, 3, 13), Box(5, 4, 20, 5)))
    FORMATS["defects"].write(tmp_path / "boxes.yaml", defects)
    assert yaml.safe_load((tmp_path / "boxes.yaml").read_text())["boxes"][1] == {"y0": 5, "x0": 4, "y1": 20, "x1": 5}


def test_a_user_writes_crosstalk_and_a_curve_by_hand(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(
        "amplifiers: [A, B]\nfraction_of_each_seen_in:\n  A: [0, 1.0e-4]\n  B: [-2.0e-5, 0]\n"
    )
    crosstalk: Crosstalk = FORMATS["crosstalk"].read(tmp_path / "x.yaml")
    assert crosstalk.between("B", "A") == 1e-4
    (tmp_path / "r.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: wavelength_nm, unit: nm, datatype: float64}\n"
        "# - {name: throughput, datatype: float64}\nwavelength_nm throughput\n500.0 0.0\n600.0 0.8\n"
    )
    assert float(FORMATS["transmission"].read(tmp_path / "r.ecsv").at(550.0)) == pytest.approx(0.4)


def test_the_catalogue_of_sources_says_its_units(tmp_path: Path):
    rows = SAMPLES["stars"](np.random.default_rng(4))
    for name, flux_unit in (("stars", "nJy"), ("instrumental_stars", "electron")):
        FORMATS[name].write(tmp_path / "src.parquet", rows)
        schema = FORMATS["table"].read(tmp_path / "src.parquet").schema
        units = {field.name: field.metadata[b"unit"].decode() for field in schema}
        assert units["ra"] == units["dec"] == "deg"
        assert units["y"] == "pixel"
        assert units["kron_flux"] == units["flux"] == flux_unit
        assert units["ixx"] == "pixel2"
        assert tuple(units) == (*SOURCE.names, "parent", "kron_flux", "ixx", "shape_flag", "mine")


@pytest.mark.parametrize("value", [{"a": object()}, {"a": {1, 2}}, {"a": b"x"}, {(1, 2): 3}, {True: 1}])
@pytest.mark.parametrize("name", ["yaml", "json"])
def test_what_text_would_change_is_refused(tmp_path: Path, name: str, value: object):
    with pytest.raises(TypeError, match="value"):
        FORMATS[name].write(tmp_path / "file", value)


def test_an_array_that_float32_does_not_hold_is_refused(tmp_path: Path):
    with pytest.raises(TypeError, match="float32"):
        FORMATS["array"].write(tmp_path / "a.fits", np.full((2, 2), 0.1))
    with pytest.raises(TypeError, match="2-D"):
        FORMATS["array"].write(tmp_path / "a.fits", np.zeros(4, np.float32))


def test_records_of_another_table_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="src"):
        FORMATS["stars"].write(tmp_path / "a", SAMPLES["dia_source"](np.random.default_rng(0)))


def test_a_users_format_is_found_by_module_and_attribute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "my_formats.py").write_text(
        "from apstream.repo.formats.registry import Format\n"
        "NOTE = Format(type=str, read=lambda p: p.read_text(), write=lambda p, v: p.write_text(v))\nNUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert get_format("my_formats:NOTE").type is str
    for wrong in ("my_formats:NOTES", "no_such_module:NOTE", "my_formats:NUMBER", "my_formats:"):
        with pytest.raises(BadSettings, match=wrong):
            get_format(wrong)


def test_a_misspelt_format_names_the_nearest():
    with pytest.raises(BadSettings, match="calexp"):
        get_format("calxep")
