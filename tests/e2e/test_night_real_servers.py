"""A night on real Kafka and PostgreSQL: undisturbed, and with the worker killed and the broker restarted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import daemon as outside
from helpers import synthetic_night as night
from helpers.daemon import Daemon
from kafka_server import KafkaServer
from postgres_server import PostgresServer

from apstream.apdb import create_apdb

VISITS, DETECTORS = range(1, 13), (1, 2)
KILLS = 10

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1200)]


class Night:
    """Topics, database and daemon of one night."""

    def __init__(self, folder: Path, name: str, kafka: KafkaServer, postgres: PostgresServer) -> None:
        self.name = f"{name}-{folder.name}"
        self.bootstrap = kafka.bootstrap
        self.transport = outside.kafka_transport(kafka.bootstrap, self.name)
        self.url = postgres.url(postgres.create_database())
        self.raw = folder / name / "raw"
        self.daemon = Daemon(folder / name, outside.settings_tree(folder / name, self.url, self.transport))

    async def begin(self, *, seconds: float) -> None:
        """Make database and topics, send the events."""
        await create_apdb(self.url)
        await asyncio.to_thread(outside.make_topics, self.transport)
        pairs = [(visit, detector) for visit in VISITS for detector in DETECTORS]
        events = [night.write_exposure(self.raw, *pair, seconds=seconds) for pair in pairs]
        await outside.send(self.transport, events)

    async def finish(self) -> None:
        """Let the daemon work off what is left."""
        self.daemon.start("--idle-exit", "4")
        assert await self.daemon.end() == 0

    async def results(self) -> tuple[dict[str, list[Any]], dict[int, set[bytes]]]:
        return await outside.stored(self.url), await outside.contents_of(self.bootstrap, self.transport["alerts_topic"])


def require_complete(stored: dict[str, list[Any]], alerts: dict[int, set[bytes]]) -> None:
    """Every exposure has one ledger row, every source its alert, no id two contents."""
    wanted = sorted((visit, detector, "processed") for visit in VISITS for detector in DETECTORS)
    assert stored["ledger"] == wanted
    assert stored["unsent"] == []
    assert sorted(alerts) == [source for source, _ in stored["sources"]]
    assert all(len(contents) == 1 for contents in alerts.values())


async def test_a_night_and_the_same_night_with_crashes(
    tmp_path: Path, own_kafka: KafkaServer, postgres_server: PostgresServer
) -> None:
    quiet = Night(tmp_path, "quiet", own_kafka, postgres_server)
    await quiet.begin(seconds=0.0)
    await quiet.finish()
    stored, alerts = await quiet.results()
    require_complete(stored, alerts)
    assert len(alerts) > 100

    stormy = Night(tmp_path, "stormy", own_kafka, postgres_server)
    await stormy.begin(seconds=0.8)
    try:
        await storm(stormy, own_kafka)
        await stormy.finish()
    finally:
        stormy.daemon.kill()
    again, alerts_again = await stormy.results()
    require_complete(again, alerts_again)
    assert again["sources"] == stored["sources"]
    assert again["objects"] == stored["objects"]
    assert sorted(alerts_again) == sorted(alerts)


async def storm(stormy: Night, kafka: KafkaServer) -> None:
    """Kill the daemon at random moments of its work; once restart the broker under it."""
    moments = random.Random(20260224)
    for number in range(KILLS):
        stormy.daemon.start()
        await stormy.daemon.wait_for("kafka.assigned")
        if number == KILLS // 2:
            await asyncio.to_thread(kafka.restart)
            assert stormy.daemon.alive
        await asyncio.sleep(moments.uniform(0.0, 2.5))
        stormy.daemon.kill()
