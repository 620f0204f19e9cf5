"""The batch pipeline as an astronomer types it, on a small simulated night: reruns, resume, failures, provenance."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.commands import here

from apstream.model.exposures import CalExp
from apstream.repo.ingest import ingest_sources
from apstream.repo.repository import Repository

R1, R2, G = 1001, 1002, 1003  # two visits in r, for which there are coadds, and one in g, for which there are none
PRODUCTS = ("calexp", "src", "deepDiff_differenceExp", "deepDiff_diaSrc", "processing_metadata")


def apstream(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apstream", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def ledger(apdb: Path) -> dict[int, str]:
    with sqlite3.connect(apdb) as rows:
        return dict(rows.execute('SELECT visit, outcome FROM "Ledger"'))


def count(apdb: Path, table: str) -> int:
    with sqlite3.connect(apdb) as rows:
        return int(rows.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])


class Night:
    """A repository with raws, calibrations, catalogue, and coadds in r only."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "repo"
        shape = ("--visits", 3, "--template-visits", 2, "--filters", "rg", "--size", 384, "--seed", 5)
        here("simulate", folder / "night", *shape)
        here("repo", "create", self.root, "--camera", "simcam")
        here("repo", "ingest", self.root, folder / "night")
        here("coadd", self.root, "--id", "visit=1..100 filter=r")

    def run(self, name: str, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        return apstream("run", self.root, *self.places(name), *words, status=status)

    def places(self, name: str) -> tuple[object, ...]:
        return "--apdb", f"sqlite:///{self.apdb(name)}", "--alerts", self.folder / f"{name}-alerts"

    def apdb(self, name: str) -> Path:
        return self.folder / f"{name}.sqlite"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return Night(tmp_path_factory.mktemp("batch"))


@pytest.fixture(scope="module")
def first(night: Night) -> subprocess.CompletedProcess[str]:
    """All three visits into a rerun; the one in g lacks its template."""
    return night.run("first", "--id", f"visit={R1}..{G}", "--rerun", "first", "-j", 2, status=1)


def test_a_missing_template_is_named_and_the_other_visits_go_on(night: Night, first: subprocess.CompletedProcess[str]):
    assert ledger(night.apdb("first")) == {R1: "processed", R2: "processed", G: "skipped"}
    failure = next(line for line in first.stderr.splitlines() if f"visit={G}" in line)
    assert "no location for deepCoadd" in failure
    assert "apstream coadd" in failure
    assert "2 of 3 exposures processed" in first.stdout
    rows = [line.split() for line in first.stdout.splitlines() if line.split()[:1] in ([str(R1)], [str(G)])]
    assert [(row[0], row[2]) for row in rows] == [(str(R1), "processed"), (str(G), "skipped")]


def test_products_are_in_the_rerun_and_found_from_python_and_shell(night: Night, first: object):
    rerun = Repository(night.root / "rerun" / "first")
    for name in PRODUCTS:
        assert [entry.data_id["visit"] for entry in rerun.own.registry.find(name)] == [R1, R2], name
        assert not Repository(night.root).find(name, visit=R1), name
    calexp = rerun.get("calexp", visit=R1, detector=0)
    assert isinstance(calexp, CalExp)
    assert len(rerun.get("src", visit=R1, detector=0)) == len(calexp.stars)
    listed = here("repo", "ls", rerun.root, "deepDiff_diaSrc", "--id", f"visit={R1}").stdout
    assert str(Path("rerun") / "first" / "deepDiff") in listed
    assert rerun.locate("deepCoadd", band="r", tract=0, patch=rerun.find("deepCoadd")[0].data_id["patch"])


def test_a_catalogue_without_the_band_is_named_once(night: Night, first: subprocess.CompletedProcess[str]):
    table = pq.read_table(night.folder / "night" / "refcat.parquet").drop_columns(["r", "r_err"])
    pq.write_table(table, night.folder / "blue.parquet")
    Repository(night.root).ingest_refcat([night.folder / "blue.parquet"], name="blue")
    words = ("--id", f"visit={R1}..{R2}", "--rerun", "blue", "-c", "calibrate.photometry_refcat=blue", "-j", 2)
    said = night.run("blue", *words).stderr
    assert [line for line in said.splitlines() if "no magnitude" in line] == [
        f"apstream: {night.root}/refcat/blue: no magnitude of band r; "
        "mag_g is used instead, and zero points refer to it"
    ]
    assert "no magnitude" not in first.stderr


def test_every_stage_says_what_it_did(night: Night, first: object):
    rerun = Repository(night.root / "rerun" / "first")
    said = rerun.get("processing_metadata", visit=R1, detector=0)
    stages = {"isr", "characterize", "calibrate", "template", "subtract", "detect", "measure", "forced", "cutouts"}
    assert stages <= said.keys()
    assert all(said[stage]["seconds"] > 0 for stage in stages)
    assert said["measure"]["n"] == len(rerun.get("deepDiff_diaSrc", visit=R1, detector=0))


def test_a_product_tells_what_it_was_made_from_down_to_the_raw_file(night: Night, first: object):
    rerun = night.root / "rerun" / "first"
    tree = here("repo", "why", rerun, "deepDiff_diaSrc", f"visit={R1}", "detector=0", "--settings").stdout
    raw = Repository(night.root).entry("raw", visit=R1, detector=0)
    assert raw is not None
    checksum = hashlib.sha256(Path(Repository(night.root).location(raw)).read_bytes()).hexdigest()
    assert f"sha256 {checksum[:12]}" in tree
    for name in ("deepDiff_differenceExp", "calexp", "raw", "bias", "flat", "refcat", "deepCoadd"):
        assert any(line.split()[0] == name for line in tree.splitlines() if line.strip()), name
    assert "threshold_sigma: 5.0" in tree
    assert "numpy:" in tree


def test_another_setting_is_refused_unless_it_is_to_replace(night: Night, first: object):
    words = ("--id", f"visit={R1}", "--rerun", "first", "-c", "detect.threshold_sigma=6")
    refused = night.run("first", *words, status=1)
    assert "detect.threshold_sigma: 5.0 -> 6.0" in refused.stderr
    assert "--replace-run" in refused.stderr
    assert "Traceback" not in refused.stderr
    night.run("second", *words[:2], "--rerun", "second")
    night.run("second", *words[:2], "--rerun", "second", *words[4:], "--replace-run")
    runs = night.root / "rerun" / "second" / "runs"
    assert "threshold_sigma: 6.0" in (runs / "run.yaml").read_text()
    assert "threshold_sigma: 5.0" in (runs / "run.yaml~1").read_text()


def test_what_is_done_is_not_done_again_and_what_failed_is(night: Night, first: object):
    words = ("--id", f"visit={R1}..{G}", "--rerun", "first")
    before = count(night.apdb("first"), "DiaSource")
    again = night.run("first", *words, status=1)
    assert again.stdout.count("done before") == 2
    assert "2 of 3 exposures processed (2 of them before)" in again.stdout
    assert night.run("first", *words, "--no-exit").returncode == 0
    assert count(night.apdb("first"), "DiaSource") == before
    here("coadd", night.root, "--id", "visit=1..100 filter=g")
    assert "3 of 3 exposures" in night.run("first", *words).stdout
    assert ledger(night.apdb("first"))[G] == "processed"
    elsewhere = night.run("first", *words[:2], "--rerun", "third")
    assert "another --apdb" in elsewhere.stdout


def test_a_killed_run_goes_on_where_it_was(night: Night):
    words = ["run", night.root, *night.places("killed"), "--id", f"visit={R1}^{R2}", "--rerun", "killed"]
    process = subprocess.Popen([sys.executable, "-m", "apstream", *map(str, words)], start_new_session=True)
    deadline = time.monotonic() + 300
    while not (night.apdb("killed").is_file() and _processed(night.apdb("killed"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = apstream(*words)
    assert "2 of 2 exposures processed" in done.stdout
    assert "done before" in done.stdout
    assert ledger(night.apdb("killed")) == {R1: "processed", R2: "processed"}
    rerun = Repository(night.root / "rerun" / "killed")
    n_sources = sum(len(rerun.get("deepDiff_diaSrc", visit=visit, detector=0)) for visit in (R1, R2))
    assert count(night.apdb("killed"), "DiaSource") == n_sources


def _processed(apdb: Path) -> int:
    try:
        return len(ledger(apdb))
    except sqlite3.OperationalError:
        return 0


def test_calexps_of_another_repository_are_templates(night: Night, first: object):
    elsewhere = night.folder / "elsewhere"
    done = night.run(
        "calexp",
        *("--id", f"visit={R2}", "--output", elsewhere, "--template", night.root / "rerun" / "first"),
        *("--template-id", f"visit={R1}", "-C", "@calexp-template"),
    )
    assert "1 of 1 exposures processed" in done.stdout
    repository = Repository(elsewhere)
    inputs = {(one.type, one.data_id["visit"]) for one in repository.precursors("deepDiff_differenceExp", visit=R2)}
    assert inputs == {("calexp", R1), ("calexp", R2)}
    said = repository.get("processing_metadata", visit=R2, detector=0)
    assert said["template"]["n_inputs"] == 1
    missing = night.run("none", "--id", f"visit={R2}", "--rerun", "none", "--template-id", "visit=77", status=1)
    assert "no location for calexp" in missing.stderr


def test_coadds_of_another_repository_are_templates(night: Night):
    bare = Repository.create(night.folder / "bare", camera="simcam")
    assert not ingest_sources(bare, [night.folder / "night"]).problems
    words = ("--id", f"visit={R1}", *night.places("bare"))
    assert "no location for deepCoadd" in apstream("run", bare.root, *words, "--rerun", "none", status=1).stderr
    apstream("run", bare.root, *words, "--rerun", "some", "--template", night.root)
    used = bare.rerun("some").precursors("deepDiff_differenceExp", visit=R1, detector=0)
    assert {one.root for one in used if one.type == "deepCoadd"} == {str(night.root)}


def test_the_stages_one_by_one_make_what_the_run_makes(night: Night, first: object):
    words = ("--id", f"visit={R1}^77", "--rerun", "stages")
    early = here("calibrate", night.root, *words, status=1)
    assert "apstream characterize" in early.stderr
    for stage in ("isr", "characterize", "calibrate"):
        assert "1 of 1 exposures processed" in here(stage, night.root, *words).stdout
    stages, run = (Repository(night.root / "rerun" / name) for name in ("stages", "first"))
    assert {"postISRCCD", "icExp", "icSrc", "calexp", "src"} <= {n for n in stages.policy.types if stages.find(n)}
    alone, whole = (repository.get("calexp", visit=R1, detector=0) for repository in (stages, run))
    np.testing.assert_array_equal(alone.image.image, whole.image.image)
    np.testing.assert_array_equal(alone.image.mask, whole.image.mask)
    np.testing.assert_array_equal(alone.image.variance, whole.image.variance)
    assert alone.stars.tobytes() == whole.stars.tobytes()
    assert alone.photo_calib == whole.photo_calib
    assert stages.get("icExpBackground", visit=R1, detector=0).mesh.size
    tree = here("repo", "why", stages.root, "calexp", f"visit={R1}", "detector=0").stdout
    assert [name for name in ("icExp", "postISRCCD", "raw", "flat", "refcat") if f"{name} " not in tree] == []


def test_the_record_of_a_run_is_readable(night: Night, first: object):
    run = Repository(night.root / "rerun" / "first").entry("calexp", visit=R1, detector=0)
    assert run is not None
    record = Repository(night.root / "rerun" / "first").own.registry.run(run.run)
    assert record is not None
    assert json.loads(json.dumps(record["settings"]))["detect"]["threshold_sigma"] == 5.0
    assert record["versions"]["numpy"] == np.__version__
    assert record["schemas"]["DiaSource"]["ra"].endswith("deg")
