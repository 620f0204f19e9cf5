"""Events name their detector wherever it can be known, so that detectors are worked on beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from apstream.repo.ingest import ingest_sources
from apstream.repo.repository import Repository
from apstream.service.sending import events_of
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    simulate_night(folder / "night", NightConfig(visits=2, template_visits=1, size=128, detectors=2))
    ingest_sources(Repository.create(folder / "repo", camera="simcam"), [folder / "night"])
    return folder


def test_events_of_a_repository_name_visit_and_detector(night: Path) -> None:
    events = events_of([night / "repo"], selection=["visit=1001..1002"])
    assert [(e.visit, e.detector) for e in events] == [(1001, 0), (1001, 1), (1002, 0), (1002, 1)]
    assert {e.key for e in events} == {b"simcam/0", b"simcam/1"}
    assert all(Path(e.uris[0]).is_file() for e in events)


def test_a_camera_reads_the_headers_of_files(night: Path) -> None:
    from_repository = {(e.visit, e.detector) for e in events_of([night / "repo"])}
    from_headers = {(e.visit, e.detector) for e in events_of([night / "night" / "raw"], camera="simcam")}
    assert from_headers == from_repository


def test_without_a_camera_events_say_what_was_given(night: Path) -> None:
    events = events_of([night / "night" / "raw"], instrument="simcam", detector=1)
    assert {(e.instrument, e.visit, e.detector) for e in events} == {("simcam", None, 1)}
