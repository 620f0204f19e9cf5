"""Datasets written to files of their own: the ending of the file says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import BadSettings
from apstream.model.columns import DIA_SOURCE
from apstream.model.sources import SOURCE
from apstream.repo.export import describe, export
from apstream.repo.repository import Repository

PLACE = {"visit": 7, "detector": 0}
TABLE_ENDINGS = (".parquet", ".csv", ".ecsv", ".json", ".fits")


def rows_of(path: Path) -> dict[str, list[object]]:
    """Read x, flux and is_star of three sources, of any kind of file."""
    names = ("x", "flux", "is_star")
    match path.suffix:
        case ".json":
            rows = json.loads(path.read_text())
            return {name: [row[name] for row in rows] for name in names}
        case ".parquet":
            table = pa.parquet.read_table(path)
            return {name: table[name].to_pylist() for name in names}
        case ".csv":
            table = pa.csv.read_csv(path)
            return {name: table[name].to_pylist() for name in names}
        case _:
            found = Table.read(path)
            assert (found["flux"].unit, found["x"].unit) == ("nJy", "pixel")
            lists = {name: np.asarray(found[name]).tolist() for name in names}
            return {**lists, "flux": [None if value != value else value for value in lists["flux"]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    sources, found = SOURCE.empty(3), DIA_SOURCE.empty(2)
    sources["x"], sources["flux"], sources["is_star"] = [1.5, 2.5, 3.5], [10, np.nan, 30], [True, False, True]
    found["diaSourceId"], found["band"], found["psfFlux"] = [5, 6], ["r", "r"], [1.25, -2.5]
    repository.put(sources, "src", band="r", **PLACE)
    repository.put(found, "deepDiff_diaSrc", band="r", **PLACE)
    repository.put({"isr": {"seconds": 1.5}}, "processing_metadata", band="r", **PLACE)
    repository.put(np.arange(12, dtype=np.float32).reshape(3, 4), "bias", detector=0, valid=(59000.0, 60100.0))
    repository.close()
    return tmp_path / "repo"


def get(root: Path, dataset_type: str, out: Path, *words: str) -> None:
    register()
    done = CliRunner().invoke(app, ["repo", "get", str(root), dataset_type, *words, "--out", str(out)])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_a_source_list_is_written_as_the_ending_says(root: Path, tmp_path: Path, ending: str):
    get(root, "src", tmp_path / f"src{ending}", "visit=7", "detector=0")
    flux = [10.0, None, 30.0]
    assert rows_of(tmp_path / f"src{ending}") == {"x": [1.5, 2.5, 3.5], "flux": flux, "is_star": [True, False, True]}


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_the_same_table_gives_the_same_bytes(root: Path, tmp_path: Path, ending: str):
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path in paths:
        get(root, "deepDiff_diaSrc", path, "visit=7", "detector=0")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_column_without_a_value_is_masked(root: Path, tmp_path: Path):
    get(root, "deepDiff_diaSrc", tmp_path / "dia.ecsv", "visit=7", "detector=0")
    found = Table.read(tmp_path / "dia.ecsv")
    assert found["diaSourceId"].tolist() == [5, 6]
    assert found["ssObjectId"].tolist() == [None, None]
    assert found["band"].tolist() == ["r", "r"]


def test_an_ending_that_says_nothing_is_refused_with_those_that_do(root: Path, tmp_path: Path):
    for name in ("src.txt", "src"):
        with pytest.raises(BadSettings, match=r"\.parquet, \.csv, \.ecsv, \.json, \.fits"):
            get(root, "src", tmp_path / name, "visit=7", "detector=0")
        assert not (tmp_path / name).exists()
    with pytest.raises(BadSettings, match=r"ending in '.jpg'.*end its name in \.fits"):
        get(root, "bias", tmp_path / "bias.jpg", "detector=0", "mjd=60000")


def test_records_are_written_as_yaml_or_json(root: Path, tmp_path: Path):
    get(root, "processing_metadata", tmp_path / "m.json", "visit=7", "detector=0")
    assert json.loads((tmp_path / "m.json").read_text()) == {"isr": {"seconds": 1.5}}
    get(root, "processing_metadata", tmp_path / "m.yaml", "visit=7", "detector=0")
    assert (tmp_path / "m.yaml").read_text().startswith("isr:")


def test_a_record_in_a_record_is_described_on_lines_of_its_own():
    told = describe({"isr": {"seconds": 1.5, "n": 3}, "of": "bias", "left_out": {}})
    assert told.splitlines() == ["  isr:", "    seconds: 1.5", "    n: 3", "  of: bias", "  left_out: "]


def test_arrays_are_written_as_images(root: Path, tmp_path: Path):
    get(root, "bias", tmp_path / "bias.fits", "detector=0", "mjd=60000")
    assert fits.getdata(tmp_path / "bias.fits").tolist() == np.arange(12).reshape(3, 4).tolist()
    export(np.full((2, 3), 5, np.int32), tmp_path / "mask.fits")
    with fits.open(tmp_path / "mask.fits") as hdus:
        assert "MASK" in hdus
    with pytest.raises(BadSettings, match=r"x\.fits: .*read it from Python"):
        export(np.zeros(3), tmp_path / "x.fits")
    with pytest.raises(BadSettings, match="no storage format holds a complex"):
        export(1j, tmp_path / "x.fits")
