from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import Conflict, DatasetNotFound
from apstream.repo.ingest import ingest_sources
from apstream.repo.provenance import why
from apstream.repo.repository import Repository
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night

register()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the raws of two template visits and what they are calibrated with."""
    folder = tmp_path_factory.mktemp("coadd")
    simulate_night(folder / "night", NightConfig(size=256, visits=1, template_visits=2, seed=5))
    repository = Repository.create(folder / "repo", camera="simcam")
    ingest_sources(repository, [folder / "night"])
    return folder / "repo"


def coadd(*words: str) -> str:
    done = CliRunner().invoke(app, ["coadd", *words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def rerun(root: Path) -> Repository:
    assert "deepCoadd band=r tract=0 patch=0: 2 inputs" in coadd(str(root), "--id", "visit=1..2", "--rerun", "first")
    return Repository(root / "rerun" / "first")


def test_products_go_to_the_rerun_alone(root: Path, rerun: Repository):
    assert len(rerun.find("calexp")) == 2
    assert len(rerun.find("deepCoadd")) == 1
    assert not Repository(root).find("calexp")
    assert rerun.get("deepCoadd", band="r", tract=0, patch=0).metrics["coadd.psf_matched"] == 1


def test_products_know_what_they_were_made_from(rerun: Repository):
    patch = rerun.precursors("deepCoadd", band="r", tract=0, patch=0)
    assert [one.type for one in patch] == ["calexp", "calexp", "skymap"]
    assert {one.data_id.get("visit") for one in patch[:2]} == {1, 2}
    calexp = {one.type for one in rerun.precursors("calexp", visit=1, detector=0)}
    assert {"raw", "bias", "dark", "flat", "defects", "refcat"} <= calexp


def test_products_go_elsewhere_and_calexps_are_used_again(root: Path, rerun: Repository, tmp_path: Path):
    coadd(rerun.root, "--id", "visit=1..2", "--output", str(tmp_path / "out"), "-c", "warp_type=direct")
    out = Repository(tmp_path / "out")
    assert {entry.root for entry in out.find("calexp")} == {rerun.root}
    assert out.get("deepCoadd", band="r", tract=0, patch=0).metrics["coadd.psf_matched"] == 0
    assert rerun.get("deepCoadd", band="r", tract=0, patch=0).metrics["coadd.psf_matched"] == 1


def test_products_know_settings_and_versions_and_others_are_refused(root: Path, rerun: Repository):
    tree = why(rerun, "deepCoadd", band="r", tract=0, patch=0)
    assert tree.record is not None
    assert tree.record["settings"]["warp_type"] == "psf_matched"
    assert {"apstream", "numpy"} <= tree.record["versions"].keys()
    assert {node.run for node in tree.made_from if node.used.type == "calexp"} == {tree.run}
    words = ("coadd", str(root), "--id", "visit=1..2", "--rerun", "first", "-c", "warp_type=direct")
    refused = CliRunner().invoke(app, [*words])
    assert isinstance(refused.exception, Conflict)
    assert "warp_type" in str(refused.exception)


def test_the_fraction_shown_of_a_raw_is_what_its_template_covers(root: Path, rerun: Repository, tmp_path: Path):
    words = ["template", rerun.root, "--visit", "1001"]
    lines = {}
    for name, more in (("shown", ["--show"]), ("made", ["--output", str(tmp_path / "out")])):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        lines[name] = [line.split("\t") for line in done.output.splitlines()]
        assert lines[name][0] == ["exposure", "template", "fraction covered"]
    made = float(lines["made"][-1][-1])
    assert made > 0.8
    assert float(lines["shown"][-1][-1]) == pytest.approx(made, abs=0.05)


def test_a_catalogue_without_the_band_is_named_once(root: Path, tmp_path: Path):
    table = pq.read_table(root.parent / "night" / "refcat.parquet").drop_columns(["r", "r_err"])
    pq.write_table(table, tmp_path / "blue.parquet")
    Repository(root).ingest_refcat([tmp_path / "blue.parquet"], name="blue")
    words = (str(root), "--id", "visit=1..2", "--rerun", "blue")
    setting, note = "calibrate.astrometry_refcat=blue", "no magnitude of band r; mag_g is used instead"
    assert coadd(*words, "-c", f"stages.{setting}").count(note) == 1
    for stage, count in (("isr", 0), ("characterize", 0), ("calibrate", 1)):
        done = CliRunner().invoke(app, [stage, *words, "-c", setting])
        assert done.exit_code == 0, done.output
        assert done.output.count(note) == count
        assert "alerts" not in done.output  # no stage alone makes any
        assert ("sources" in done.output) == (stage != "isr")


def test_a_catalogue_that_is_named_and_not_there_is_an_error(root: Path):
    for which in ("astrometry", "photometry"):
        words = ["coadd", str(root), "--id", "visit=1..2", "--rerun", which]
        done = CliRunner().invoke(app, [*words, "-c", f"stages.calibrate.{which}_refcat=gaia"])
        assert isinstance(done.exception, DatasetNotFound)
        assert "refcat with name=gaia" in str(done.exception)
        assert "apstream repo ingest" in str(done.exception)
        assert not Repository(root / "rerun" / which).own.registry.find("calexp")


def test_products_have_one_place(root: Path):
    done = CliRunner().invoke(app, ["coadd", str(root), "--rerun", "a", "--output", "b"])
    assert "one place for the products" in str(done.exception)
