from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from apstream.cli.simulate import simulate
from apstream.errors import BadFile, BadSettings
from apstream.repo.formats.calibs import require_kind

RUN = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(rich_markup_mode="rich")
    made.command()(simulate)
    return made


def test_a_night_is_written_and_summed_up(app: typer.Typer, tmp_path: Path) -> None:
    words = [str(tmp_path / "n"), "--visits", "1", "--template-visits", "1", "--size", "128", "--filters", "gr"]
    result = RUN.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "3 raw frames (2 template and 1 science visits)" in result.output
    made = {path.name for path in (tmp_path / "n").iterdir()}
    assert made == {"raw", "calib", "truth", "refcat.parquet", "night.yaml"}


def test_a_pair_is_written(app: typer.Typer, tmp_path: Path) -> None:
    result = RUN.invoke(app, [str(tmp_path), "--pair", "--size", "128", "--transients", "3", "--no-cosmic-rays"])
    assert result.exit_code == 0, result.output
    assert "3 transients" in result.output
    assert {"science.fits", "template.fits", "truth.parquet", "refcat.parquet"} == {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("words", "field"),
    [(["--filters", "q"], "bands"), (["--size", "10"], "size"), (["--pair", "--filters", "q"], "band")],
)
def test_what_cannot_be_simulated_is_refused(app: typer.Typer, tmp_path: Path, words: list[str], field: str) -> None:
    result = RUN.invoke(app, [str(tmp_path), *words])
    assert isinstance(result.exception, BadSettings)
    assert field in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(app: typer.Typer, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    result = RUN.invoke(app, [str(blocked / "night"), "--size", "128", "--visits", "1"])
    assert "file" in str(result.exception)
    assert type(result.exception).__name__ == "StorageUnavailable"


def test_masters_say_which_calibration_they_are(app: typer.Typer, tmp_path: Path) -> None:
    words = [str(tmp_path / "n"), "--visits", "1", "--template-visits", "1", "--size", "128", "--filters", "r"]
    assert RUN.invoke(app, words).exit_code == 0
    found = {path.name: path for path in (tmp_path / "n" / "calib").glob("*.fits")}
    for kind, name in (("bias", "bias_d00"), ("dark", "dark_d00"), ("flat", "flat_r_d00"), ("defects", "defects_d00")):
        require_kind(found[f"{name}.fits"], kind)
    with pytest.raises(BadFile, match=r"bias_d00\.fits: its header says that it is bias, and flat is wanted"):
        require_kind(found["bias_d00.fits"], "flat")
