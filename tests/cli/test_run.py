"""What `apstream run` says before it runs anything, on a repository with raws of a small simulated night."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import BadSettings, DatasetNotFound
from apstream.repo.repository import Repository

register()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository = Repository.create(tmp_path / "repo", camera="simcam")
    for visit in (1, 2, 3):
        raw = tmp_path / f"{visit}.fits"
        raw.write_bytes(b"%d" % visit)
        repository.ingest(raw, "raw", visit=visit, detector=0, band="r" if visit < 3 else "g")
    repository.close()
    return tmp_path / "repo"


def run(*words: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["run", *map(str, words)])
    return result.exit_code, result.output, result.exception


def test_show_data_lists_what_a_selection_matches_and_runs_nothing(root: Path) -> None:
    status, output, _ = run(root, "--show", "data", "--id", "visit=2..9 filter=r")
    assert status == 0
    assert [line.split("  ")[0] for line in output.splitlines()] == ["simcam visit=2 detector=0"]
    assert len(run(root, "--show", "data", "--id", "visit=2..3")[1].splitlines()) == 2  # any filter
    assert not Repository(root).find("calexp")


def test_show_config_prints_the_settings_with_overrides(root: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("detect: {threshold_sigma: 7}\n")
    words = ("--show", "config", "-C", tmp_path / "my.yaml")
    assert "threshold_sigma: 7.0" in run(root, *words)[1]
    assert "threshold_sigma: 6.5" in run(root, *words, "-c", "detect.threshold_sigma=6.5")[1]


def test_without_an_apdb_it_refuses(root: Path, tmp_path: Path) -> None:
    _, _, error = run(root, "--alerts", tmp_path / "alerts")
    assert isinstance(error, BadSettings)
    assert "--apdb" in str(error)
    _, _, error = run(root, "--apdb", f"sqlite:///{tmp_path}/apdb.sqlite")
    assert isinstance(error, BadSettings)
    assert "--alerts" in str(error)


def test_a_selection_without_raws_says_what_to_ingest(root: Path) -> None:
    _, _, error = run(root, "--id", "visit=77", "--show", "data")
    assert isinstance(error, DatasetNotFound)
    assert "no location for raw with visit=77" in str(error)
    misspelt = run(root, "--id", "vist=1", "--show", "data")[2]
    assert "no key 'vist' (did you mean visit" in str(misspelt)
    assert "ingest" in str(error)


def test_show_schema_prints_columns_and_units_before_there_is_anything(tmp_path: Path) -> None:
    status, output, _ = run(tmp_path / "not-yet", "--show", "schema")
    assert status == 0
    columns = {line.split()[0]: line for line in output.splitlines() if line.startswith("  ")}
    assert {"diaSourceId", "psfFlux", "midpointMjdTai", "ap_flux", "fwhm"} <= columns.keys()
    assert " nJy " in columns["psfFlux"]
    assert " pixel " in columns["fwhm"]
    tables = [line.split(":")[0] for line in output.splitlines() if line and not line.startswith(" ")]
    assert tables[:3] == ["icSrc", "src", "DiaObject"]


def test_settings_come_from_camera_person_file_environment_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: simcam\nname: mine\nsettings: {detect: {threshold_sigma: 4.5}}\n")
    root = Repository.create(tmp_path / "repo", camera=str(tmp_path / "mine.yaml")).root
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def threshold(*words: object) -> float:
        status, output, error = run(root, "--show", "config", *words)
        assert status == 0, error
        return float(yaml.safe_load(output)["detect"]["threshold_sigma"])

    assert threshold() == 4.5
    (tmp_path / "apstream").mkdir()
    (tmp_path / "apstream" / "settings.yaml").write_text("detect: {threshold_sigma: 5.5}\n")
    assert threshold() == 5.5
    (tmp_path / "file.yaml").write_text("detect: {threshold_sigma: 6.5}\n")
    assert threshold("-C", tmp_path / "file.yaml") == 6.5
    monkeypatch.setenv("APSTREAM__PIXELS__STAGES__DETECT__THRESHOLD_SIGMA", "7.5")
    monkeypatch.setenv("APSTREAM__TRANSPORT__KIND", "kafka")  # the service's; nothing to the batch
    assert threshold("-C", tmp_path / "file.yaml") == 7.5
    assert threshold("-C", tmp_path / "file.yaml", "-c", "detect.threshold_sigma=8.5") == 8.5


def test_the_catalogue_half_and_the_database_have_settings_too(root: Path) -> None:
    words = ("-c", "catalogs.pack.schema_id=7", "-c", "apdb.history_days=30")
    shown = yaml.safe_load(run(root, "--show", "config", *words)[1])
    assert shown["catalogs"]["pack"]["schema_id"] == 7
    assert shown["apdb"]["history_days"] == 30
    _, _, error = run(root, "--show", "config", "-c", "catalogs.asociate.x=1")
    assert "did you mean catalogs.associate" in str(error)
    assert "-c catalogs.asociate.x" in str(error)


@pytest.mark.parametrize("words", [("--template-id", "visit=1^2"), ("--template-id", "visit=x"), ("--show", "all")])
def test_an_impossible_option_is_named(root: Path, tmp_path: Path, words: tuple[str, str]) -> None:
    _, _, error = run(root, "--apdb", f"sqlite:///{tmp_path}/a.sqlite", "--alerts", tmp_path / "a", *words)
    assert isinstance(error, BadSettings)
    assert words[0] in str(error)
