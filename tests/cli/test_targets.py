"""What is read is never written over, nor counted twice; what cannot be a product's place is refused beforehand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import ApstreamError, BadSettings, StorageUnavailable
from apstream.repo.atomic import atomic_path
from apstream.repo.repository import Repository

NAMES = (
    *("raw.fits", "raw2.fits", "flat.fits", "dark.fits", "science.fits", "template.fits", "image.fits", "psf.fits"),
    *("mycam.yaml", "settings.yaml", "ptc.yaml", "characterized.fits", "calexp.fits", "difference.fits"),
    *("sources.parquet", "dia_sources.parquet", "weight.fits", "defects.yaml", "linked.fits"),
)
CAMERA = ("--camera", "simcam")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with nothing in them to work on, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES[:-1]:
        (tmp_path / name).write_text(name)
    (tmp_path / "linked.fits").symlink_to("raw.fits")
    (tmp_path / "mycam.yaml").write_text("{}")
    (tmp_path / "settings.yaml").write_text("{}")
    return tmp_path


def refusal(*words: str) -> ApstreamError:
    register()
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, ApstreamError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("raw.fits", ("isr", "raw.fits", *CAMERA, "--out", "raw.fits")),
        ("linked.fits", ("isr", "raw.fits", *CAMERA, "--out", "linked.fits")),
        ("raw.fits", ("isr", "linked.fits", *CAMERA, "--out", "raw.fits")),
        ("flat.fits", ("isr", "raw.fits", *CAMERA, "--flat", "flat.fits", "--out", "./flat.fits")),
        ("settings.yaml", ("isr", "raw.fits", *CAMERA, "-C", "settings.yaml", "--out", "settings.yaml")),
        ("raw.fits", ("calib", "bias", "raw.fits", "raw2.fits", *CAMERA, "--out", "raw.fits")),
        ("raw2.fits", ("calib", "dark", "raw.fits", "raw2.fits", *CAMERA, "--out", "raw2.fits")),
        ("dark.fits", ("calib", "flat", "raw.fits", *CAMERA, "--dark", "dark.fits", "--out", "dark.fits")),
        ("raw2.fits", ("calib", "ptc", "raw.fits", "raw2.fits", *CAMERA, "--out", "raw2.fits")),
        ("raw.fits", ("calib", "crosstalk", "raw.fits", *CAMERA, "--out", "raw.fits")),
        ("settings.yaml", ("calib", "ptc", "raw.fits", *CAMERA, "-C", "settings.yaml", "--out", "settings.yaml")),
        ("flat.fits", ("calib", "defects", "--flat", "flat.fits", "--out", "flat.fits")),
        ("characterized.fits", ("characterize", "characterized.fits", "--out", ".")),
        ("calexp.fits", ("calibrate", "calexp.fits", "--refcat", "sources.parquet", "--out", ".")),
        ("sources.parquet", ("calibrate", "image.fits", "--refcat", "sources.parquet", "--out", ".")),
        ("difference.fits", ("subtract", "difference.fits", "template.fits", "--out", ".")),
        ("difference.fits", ("subtract", "science.fits", "difference.fits", "--out", ".")),
        (
            "dia_sources.parquet",
            ("subtract", "science.fits", "template.fits", "--refcat", "dia_sources.parquet", "--out", "."),
        ),
        ("sources.parquet", ("characterize", "image.fits", "-C", "sources.parquet", "--out", ".")),
        ("calexp.fits", ("calibrate", "image.fits", "--refcat", "raw.fits", "-C", "calexp.fits", "--out", ".")),
        ("difference.fits", ("subtract", "science.fits", "template.fits", "-C", "difference.fits", "--out", ".")),
        (
            "characterized.fits",
            ("characterize", "image.fits", "-c", "image.weight_file=characterized.fits", "--out", "."),
        ),
    ],
)
def test_an_input_is_not_written_over(folder: Path, target: str, words: tuple[str, ...]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    error = refusal(*words)
    assert isinstance(error, BadSettings), error
    assert Path(error.where) == Path(target)
    assert "would be written over" in error.message
    assert error.remedy == "give --out another name"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "linked.fits").is_symlink()


def test_the_same_file_by_a_hard_link_is_the_same_file(folder: Path) -> None:
    os.link("raw.fits", "other.fits")
    error = refusal("calib", "bias", "raw.fits", "raw2.fits", *CAMERA, "--out", "other.fits")
    assert str(error) == "other.fits: is an input (raw.fits) and would be written over (give --out another name)"


@pytest.mark.parametrize("kind", ["bias", "dark", "flat", "fringe", "crosstalk", "ptc"])
def test_a_frame_given_twice_is_named(folder: Path, kind: str) -> None:
    out = "new.yaml" if kind in ("crosstalk", "ptc") else "new.fits"
    error = refusal("calib", kind, "raw.fits", "raw2.fits", "raw2.fits", *CAMERA, "--out", out)
    assert str(error) == "raw2.fits: given twice (give each frame once)"
    error = refusal("calib", kind, "raw.fits", "raw2.fits", "linked.fits", *CAMERA, "--out", out)
    assert str(error) == "linked.fits: given twice, as raw.fits too (give each frame once)"
    assert not (folder / out).exists()


def test_a_master_given_twice_is_named(folder: Path) -> None:
    error = refusal("calib", "defects", "--flat", "flat.fits", "--flat", "flat.fits", "--out", "new.yaml")
    assert str(error).startswith("flat.fits: given twice")


def test_a_page_of_alerts_is_not_written_over_the_alerts(folder: Path) -> None:
    (folder / "alerts").mkdir()
    (folder / "alerts" / "one.avro").write_bytes(b"alerts")
    for source, html in (("alerts", "alerts/one.avro"), ("alerts/one.avro", "./alerts/one.avro")):
        error = refusal("alerts", "show", source, "--html", html)
        assert error.message.startswith("is an input")
        assert error.remedy == "give --html another name"
    assert (folder / "alerts" / "one.avro").read_bytes() == b"alerts"


def test_a_dataset_is_not_written_over_itself_nor_over_another(folder: Path) -> None:
    repository = Repository.create("repo", camera="simcam")
    flat = Path(repository.put(np.ones((4, 4), np.float32), "flat", detector=0, band="r", valid=(60000.0, 61000.0)))
    bias = Path(repository.put(np.ones((4, 4), np.float32), "bias", detector=0, valid=(60000.0, 61000.0)))
    linked = folder / "mine.fits"
    linked.write_bytes(bias.read_bytes())
    repository.ingest(linked, "bias", detector=1)
    for words, out in (
        (("flat", "detector=0", "band=r", "mjd=60500"), flat),
        (("flat", "detector=0", "band=r", "mjd=60500"), bias),
        (("bias", "detector=1"), linked),
    ):
        before = out.read_bytes()
        error = refusal("repo", "get", "repo", *words, "--out", str(out))
        assert error.where == str(out)
        assert "would be written over" in error.message
        assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["new.yaml", "new", "new.fits.txt"])
@pytest.mark.parametrize("kind", ["isr", "bias", "dark", "flat", "fringe"])
def test_an_image_is_not_written_into_a_file_of_another_name(folder: Path, kind: str, name: str) -> None:
    error = refusal(*(["isr"] if kind == "isr" else ["calib", kind]), "raw.fits", *CAMERA, "--out", name)
    assert isinstance(error, BadSettings)
    assert error.where == name
    assert "end its name in .fits, .fit" in error.remedy


@pytest.mark.parametrize("name", ["new.fits", "new", "new.yaml.gz"])
@pytest.mark.parametrize("kind", ["crosstalk", "ptc", "defects"])
def test_yaml_is_not_written_into_a_file_of_another_name(folder: Path, kind: str, name: str) -> None:
    given = ("--flat", "flat.fits") if kind == "defects" else ("raw.fits", "raw2.fits", *CAMERA)
    error = refusal("calib", kind, *given, "--out", name)
    assert isinstance(error, BadSettings)
    assert error.where == name
    assert error.remedy == "end its name in .yaml or .yml"


@pytest.mark.parametrize(
    "words",
    [
        ("characterize", "image.fits"),
        ("calibrate", "image.fits", "--refcat", "sources.parquet"),
        ("subtract", "science.fits", "template.fits"),
    ],
)
def test_a_file_is_no_folder(folder: Path, words: tuple[str, ...]) -> None:
    error = refusal(*words, "--out", "psf.fits")
    assert str(error) == "psf.fits: cannot write: it is a file, and --out names a folder here (give --out another name)"


def test_a_folder_or_a_device_is_no_file(folder: Path) -> None:
    error = refusal("isr", "raw.fits", *CAMERA, "--out", str(folder))
    assert isinstance(error, StorageUnavailable)
    assert "it is a folder" in error.message
    os.mkfifo("pipe")
    for words in (("isr", "raw.fits", *CAMERA), ("calib", "bias", "raw.fits", *CAMERA)):
        error = refusal(*words, "--out", "pipe")
        assert "it is a device, pipe or socket" in error.message
        assert Path("pipe").is_fifo()


def test_no_writer_replaces_what_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageUnavailable, match=r"pipe: cannot write: it is a device"), atomic_path(tmp_path / "pipe"):
        raise AssertionError("nothing is written")
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_what_a_product_was_written_to_before_is_written_again(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with atomic_path(tmp_path / "x") as temporary:
            temporary.write_text(text)
    assert (tmp_path / "x").read_text() == "two"
