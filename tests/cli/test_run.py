"""What `apstream run` says before it runs anything, on a repository with raws of a small simulated night."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    assert "ingest" in str(error)
