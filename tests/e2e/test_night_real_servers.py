"""A simulated night on real Kafka and PostgreSQL: undisturbed, and with processes killed and the broker restarted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import daemon as outside
from helpers.daemon import Daemon
from helpers.waiting import until
from kafka_server import KafkaServer
from postgres_server import PostgresServer

from apstream.alerts.codec import decode
from apstream.apdb import create_apdb
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.demo import prepare_night
from apstream.service.settings import ServiceSettings
from apstream.simulate.config import NightConfig, OpticsConfig

KILLS, CHILD_KILLS, BROKER_RESTART = 10, (1, 3, 6, 8), 5
#: The detectors' fields stay apart: whichever is done first, the other's objects are the same.
NIGHT = NightConfig(visits=12, size=384, detectors=2, seed=7, optics=OpticsConfig(dither_px=6.0))
REAL = ServiceSettings()

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]


class Night:
    """Topics, database, products and daemon of one night over the exposures of `folder`."""

    def __init__(self, folder: Path, name: str, kafka: KafkaServer, postgres: PostgresServer) -> None:
        self.bootstrap = kafka.bootstrap
        self.transport = outside.kafka_transport(kafka.bootstrap, name)
        self.url = postgres.url(postgres.create_database())
        self.products = Repository.create(folder / name / "products", camera="simcam")
        service = {"pixel_job": REAL.pixel_job, "identify_job": REAL.identify_job, "warm_up": REAL.warm_up}
        tree = outside.settings_tree(folder / name, self.url, self.transport, **service, roots=[str(folder / "night")])
        where = {"root": str(folder / "repo"), "output_root": str(self.products.root)}
        self.daemon = Daemon(folder / name, tree | {"pixels": {"repository": where}})

    async def begin(self) -> None:
        await create_apdb(self.url)
        await asyncio.to_thread(outside.make_topics, self.transport)

    async def send(self, jobs: Sequence[BatchJob]) -> None:
        await outside.send(self.transport, [job.event for job in jobs])

    async def finish(self, exposures: int) -> None:
        """Let the daemon work off what is left, then stop it."""

        async def done() -> bool:
            await asyncio.sleep(0.5)
            assert self.daemon.alive, self.daemon.log()[-20:]
            now = await outside.stored(self.url)
            return len(now["ledger"]) >= exposures and not now["unsent"]

        self.daemon.start()
        await until(done, timeout_s=600)
        self.daemon.terminate()
        assert await self.daemon.end() == 0

    async def alerts(self) -> dict[int, set[bytes]]:
        return await outside.contents_of(self.bootstrap, self.transport["alerts_topic"])


async def require_complete(night: Night, jobs: Sequence[BatchJob]) -> None:
    """Every exposure has one ledger row and its images, every source its alert, no id two contents."""
    stored, alerts = await outside.stored(night.url), await night.alerts()
    assert stored["ledger"] == sorted((job.id.visit, job.id.detector, "processed") for job in jobs)
    assert stored["unsent"] == []
    assert sorted(alerts) == [source for source, _ in stored["sources"]]
    assert all(len(contents) == 1 for contents in alerts.values())
    assert not await outside.read_topic(night.bootstrap, night.transport["dead_letter_topic"])
    for job in jobs:
        for kind in ("calexp", "deepDiff_differenceExp"):
            assert night.products.locate(kind, visit=job.id.visit, detector=job.id.detector)


async def require_same(one: Night, other: Night) -> None:
    """Ids, positions, fluxes, objects, light curves and alerts agree, but for the time at which they were made."""
    for table in ("DiaSource", "DiaObject", "DiaForcedSource"):
        assert await outside.rows_of(other.url, table) == await outside.rows_of(one.url, table), table
    assert unclocked(await other.alerts()) == unclocked(await one.alerts())


def unclocked(alerts: dict[int, set[bytes]]) -> dict[int, Any]:
    return {id: _without_clock(decode(next(iter(contents)))) for id, contents in alerts.items()}


def _without_clock(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_clock(item) for name, item in value.items() if name not in outside.CLOCKED}
        case list() | tuple():
            return [_without_clock(item) for item in value]
        case float() if value != value:
            return "nan"
    return value


async def test_a_night_and_the_same_night_with_crashes(
    tmp_path: Path, own_kafka: KafkaServer, postgres_server: PostgresServer
) -> None:
    jobs = await asyncio.to_thread(prepare_night, tmp_path, NIGHT, lambda *_: None)
    assert len(jobs) == 24
    quiet = Night(tmp_path, "quiet", own_kafka, postgres_server)
    await quiet.begin()
    await quiet.send(jobs)
    await quiet.finish(len(jobs))
    await require_complete(quiet, jobs)
    assert len(await quiet.alerts()) > 100
    ended = [record for record in quiet.daemon.log() if record["event"] == "event.ended"]
    print("quiet: s per exposure", statistics.median(record["total_s"] for record in ended))

    stormy = Night(tmp_path, "stormy", own_kafka, postgres_server)
    await stormy.begin()
    try:
        lost = await storm(stormy, own_kafka, jobs, work_s=statistics.median(r["total_s"] for r in ended))
        await stormy.finish(len(jobs))
    finally:
        stormy.daemon.kill()
    assert lost > 0
    await require_complete(stormy, jobs)
    await require_same(quiet, stormy)


async def storm(stormy: Night, kafka: KafkaServer, jobs: Sequence[BatchJob], *, work_s: float) -> int:
    """Let the night's visits come one by one; kill the daemon, and children of it, at random moments of their work.

    Returns how many children were lost at work.
    """
    moments, lost, daemon = random.Random(20260224), 0, stormy.daemon
    for number in range(KILLS):
        last = number == KILLS - 1
        await stormy.send(jobs[2 * number :] if last else jobs[2 * number : 2 * number + 2])
        daemon.start("-c", f"workers.count={1 + number % 2}")
        stage = await daemon.wait_for_work()
        if number in CHILD_KILLS:
            lost += await kill_child(daemon, moments)
        if number == BROKER_RESTART:
            await asyncio.to_thread(kafka.restart)
            assert daemon.alive
        await asyncio.sleep(moments.uniform(0.0, 1.5 * work_s))
        stages = [flight["stage"] for flight in (await daemon.status())["in_flight"]]
        daemon.kill()
        done = len((await outside.stored(stormy.url))["ledger"])
        print(f"kill {number}: first seen in {stage}, killed in {stages}, {done} ledger rows, {lost} children lost")
    return lost


async def kill_child(daemon: Daemon, moments: random.Random) -> bool:
    """Kill one of the children while there is pixel work; returns whether it was the one at work."""
    await daemon.wait_for_work("identify", "pixels")
    os.kill(moments.choice(daemon.children()), signal.SIGKILL)
    try:
        await until(lambda: daemon.said("pool.child.lost"), timeout_s=10)
    except TimeoutError:
        return False
    return True
