"""`apstream run --to-kafka` hands a selection to the service, on a real Kafka."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from helpers.daemon import kafka_transport, make_topics, read_topic
from typer.testing import CliRunner

from apstream.cli.main import app, register
from apstream.errors import BadSettings
from apstream.repo.ingest import ingest_sources
from apstream.repo.repository import Repository
from apstream.simulate.config import NightConfig
from apstream.simulate.night import simulate_night

register()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    simulate_night(folder / "night", NightConfig(visits=3, template_visits=0, size=128))
    ingest_sources(Repository.create(folder / "repo", camera="simcam"), [folder / "night"])
    return folder / "repo"


@pytest.mark.kafka
def test_the_selection_arrives_as_events(root: Path, kafka_bootstrap: str, topic_prefix: str) -> None:
    transport = kafka_transport(kafka_bootstrap, topic_prefix)
    make_topics(transport)
    words = ["run", root, "--id", "visit=1001^1003", "--to-kafka", kafka_bootstrap]
    sent = CliRunner().invoke(app, [*map(str, words), "--topic", transport["events_topic"]])
    assert sent.exit_code == 0, sent.output
    assert "2 events sent" in sent.output
    records = asyncio.run(read_topic(kafka_bootstrap, transport["events_topic"]))
    events = [json.loads(record.value) for record in records]
    assert sorted(event["visit"] for event in events) == [1001, 1003]
    assert all(Path(event["uris"][0]).is_file() for event in events)
    assert not Repository(root).find("calexp")


@pytest.mark.parametrize(
    "words", [["--apdb", "sqlite:///a"], ["--alerts", "a"], ["-c", "isr.bias=false"], ["--rerun", "r"], ["-j", "2"]]
)
def test_what_the_service_decides_is_refused(root: Path, words: list[str]) -> None:
    error = CliRunner().invoke(app, ["run", str(root), "--to-kafka", "localhost:1", *words]).exception
    assert isinstance(error, BadSettings)
    assert words[0] in str(error)
    assert "apstream serve" in str(error)
