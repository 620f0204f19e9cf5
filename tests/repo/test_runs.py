"""The record of a run is kept once, refuses what differs, and survives many writers."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from apstream.errors import BadFile, Conflict
from apstream.repo.runs import RunRecord, differences, read_run, record_run, software_versions
from apstream.repo.store import Store, open_store

RECORD = RunRecord(
    command="run",
    settings={"detect": {"threshold_sigma": 5.0, "planes": ["BAD"]}, "subtract": {"whiten": None}},
    versions={"python": "3.11.2", "numpy": "2.1.0"},
    schemas={"DiaSource": {"ra": "f8 deg"}},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "repo")


def with_threshold(value: float) -> RunRecord:
    return replace(RECORD, settings={**RECORD.settings, "detect": {"threshold_sigma": value, "planes": ["BAD"]}})


def test_the_same_record_may_come_again(store: Store) -> None:
    assert read_run(store, "run") is None
    record_run(store, RECORD)
    record_run(store, RECORD)
    assert read_run(store, "run") == RECORD
    assert list(store.walk("runs")) == ["runs/run.yaml"]


def test_another_record_is_refused_with_what_differs(store: Store) -> None:
    record_run(store, RECORD)
    other = replace(
        RECORD,
        settings={"detect": {"threshold_sigma": 5.5, "planes": ["BAD"]}, "subtract": {"whiten": {"cells": 6}}},
        versions={"python": "3.11.2", "numpy": "2.2.0"},
        schemas={"DiaSource": {"ra": "f8 deg", "dec": "f8 deg"}},
    )
    with pytest.raises(Conflict) as refused:
        record_run(store, other)
    assert str(refused.value).splitlines()[1:] == [
        "  detect.threshold_sigma: 5.0 -> 5.5",
        "  subtract.whiten: None -> {'cells': 6}",
        "  version of numpy: 2.1.0 -> 2.2.0",
        "  column DiaSource.dec: nothing -> f8 deg",
        " (choose another --rerun NAME, or --replace-run to go on with the new ones and keep the old record)",
    ]
    assert read_run(store, "run") == RECORD


def test_a_long_difference_is_cut(store: Store) -> None:
    record_run(store, RECORD)
    many = replace(RECORD, settings={f"stage{n}": n for n in range(40)})
    with pytest.raises(Conflict, match="and 22 more") as refused:
        record_run(store, many)
    assert len(str(refused.value).splitlines()) == 23


def test_a_replaced_record_is_kept_under_a_number(store: Store) -> None:
    for value in (1.0, 2.0, 2.0, 3.0, 1.0):
        record_run(store, with_threshold(value), replace=True)
    assert read_run(store, "run") == with_threshold(1.0)
    kept = {path: thresholds(store.read_text(path)) for path in store.walk("runs")}
    assert kept == {"runs/run.yaml": 1.0, "runs/run.yaml~1": 1.0, "runs/run.yaml~2": 2.0, "runs/run.yaml~3": 3.0}


def test_a_record_that_was_never_whole_is_named(store: Store) -> None:
    store.write_text("runs/run.yaml", "command: run\nsettings: [", exclusive=True)
    with pytest.raises(BadFile, match=r"run\.yaml"):
        record_run(store, RECORD)
    record_run(store, RECORD, replace=True)
    assert read_run(store, "run") == RECORD


def test_versions_name_what_computes() -> None:
    assert {"python", "apstream", "numpy", "scipy", "astropy", "numba", "sep"} <= software_versions().keys()
    assert not differences(RECORD, RECORD)


def thresholds(text: str | None) -> float:
    assert text is not None
    return float(yaml.safe_load(text)["settings"]["detect"]["threshold_sigma"])


def attempt(arguments: tuple[str, float, bool]) -> str:
    root, value, replacing = arguments
    try:
        record_run(open_store(root), with_threshold(value), replace=replacing)
    except Conflict:
        return "refused"
    return "fine"


@pytest.fixture(scope="module")
def pool() -> Any:
    with multiprocessing.get_context("spawn").Pool(8) as processes:
        yield processes


def test_eight_equal_records_at_once_are_all_fine(tmp_path: Path, pool: Any) -> None:
    for trial in range(5):
        root = str(tmp_path / str(trial))
        assert pool.map(attempt, [(root, 5.0, False)] * 8, chunksize=1) == ["fine"] * 8
        assert list(open_store(root).walk("runs")) == ["runs/run.yaml"]


def test_of_eight_different_records_at_once_one_wins(tmp_path: Path, pool: Any) -> None:
    for trial in range(5):
        root = str(tmp_path / str(trial))
        ended = pool.map(attempt, [(root, float(value), False) for value in range(8)], chunksize=1)
        assert sorted(ended) == ["fine"] + ["refused"] * 7
        assert thresholds(open_store(root).read_text("runs/run.yaml")) == ended.index("fine")


def test_eight_replacements_at_once_lose_no_record(tmp_path: Path, pool: Any) -> None:
    for trial in range(5):
        root = str(tmp_path / str(trial))
        record_run(open_store(root), with_threshold(99.0))
        assert pool.map(attempt, [(root, float(v), True) for v in range(8)], chunksize=1) == ["fine"] * 8
        store = open_store(root)
        assert sorted(thresholds(store.read_text(p)) for p in store.walk("runs")) == [*map(float, range(8)), 99.0]
