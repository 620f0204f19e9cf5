from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy.table import Table

from apstream.errors import ApstreamError, BadCatalog
from apstream.repo.formats.catalogs import read_refcat

COLUMNS = {
    "RA": [10.0, 10.1, 10.2],
    "Dec": [-1.0, -1.1, -1.2],
    "r": [18.0, 19.0, 20.0],
    "g": [18.5, 19.5, 20.5],
    "pmra": [100.0, 0.0, np.nan],
    "pmdec": [0.0, -50.0, np.nan],
    "epoch": [2016.0, 2016.0, 2016.0],
}


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(COLUMNS), path)
    else:
        Table(COLUMNS).write(path)
    return path


@pytest.mark.parametrize("name", ["ref.fits", "ref.csv", "ref.parquet"])
def test_every_format_gives_the_same_stars(tmp_path: Path, name: str):
    stars = read_refcat(write(tmp_path / name), band="g").stars
    np.testing.assert_allclose(stars["ra"], COLUMNS["RA"])
    np.testing.assert_allclose(stars["mag"], COLUMNS["g"])
    np.testing.assert_allclose(stars["pm_ra"], COLUMNS["pmra"])


def test_proper_motion_moves_the_stars_and_unknown_motion_does_not(tmp_path: Path):
    moved = read_refcat(write(tmp_path / "r.csv"), band="r").at(57388.5 + 10 * 365.25).stars  # 2026.0
    np.testing.assert_allclose((moved["ra"] - COLUMNS["RA"]) * 3.6e6, [1000 / np.cos(np.deg2rad(1)), 0, 0], atol=2)
    np.testing.assert_allclose((moved["dec"] - COLUMNS["Dec"]) * 3.6e6, [0, -500, 0], atol=2)


def test_a_catalogue_without_positions_says_what_it_has(tmp_path: Path):
    path = tmp_path / "bad.csv"
    path.write_text("alpha,delta,r\n1,2,3\n")
    with pytest.raises(BadCatalog, match=r"bad\.csv.*alpha"):
        read_refcat(path)


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"nonsense"), ("a.csv", b""), ("a.fits", b"nonsense")])
def test_an_unreadable_catalogue_is_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ApstreamError, match=name):
        read_refcat(tmp_path / name)


def test_a_missing_magnitude_column_is_named(tmp_path: Path):
    with pytest.raises(BadCatalog, match="no_such"):
        read_refcat(write(tmp_path / "r.csv"), magnitude="no_such")


def test_rows_without_a_finite_position_are_left_out(tmp_path: Path):
    path = tmp_path / "r.csv"
    path.write_text("ra,dec,mag\n1,2,3\nnan,2,3\n1,95,3\n")
    assert len(read_refcat(path).stars) == 1


def test_a_column_without_a_name_is_no_magnitude_of_an_image_without_a_band(tmp_path: Path):
    path = tmp_path / "pandas.csv"
    path.write_text(",ra,dec,mag_g\n0,10.0,-1.0,18.0\n1,10.1,-1.1,19.0\n")
    np.testing.assert_allclose(read_refcat(path, band="").stars["mag"], [18.0, 19.0])
