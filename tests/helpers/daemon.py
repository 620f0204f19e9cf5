"""The daemon as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import yaml
from aiokafka import AIOKafkaConsumer
from confluent_kafka.admin import AdminClient, NewTopic
from helpers import synthetic_night as night
from helpers.waiting import until
from sqlalchemy.ext.asyncio import create_async_engine

from apstream.apdb.engine import parse_url
from apstream.apdb.tables import LEDGER, OUTBOX, TABLE_OF
from apstream.model.events import ExposureEvent
from apstream.transports.kafka import KafkaSink
from apstream.transports.settings import KafkaSettings

ROOT = Path(__file__).parents[2]


#: Written when a row is made, so it differs from night to night.
CLOCKED = {"timeProcessedMjdTai", "validityStartMjdTai", "validityEndMjdTai"}


def settings_tree(folder: Path, apdb_url: str, transport: dict[str, Any], **service: Any) -> dict[str, Any]:
    """Settings of a daemon; with the synthetic pixel job unless `service` names another."""
    return {
        "transport": transport,
        "apdb": {"url": apdb_url, "lock_timeout_s": 10},
        "service": {
            "roots": [str(folder / "raw")],
            "alert_dir": str(folder / "alerts"),
            "pixel_job": night.PIXEL_JOB,
            "identify_job": night.IDENTIFY,
            "warm_up": night.WARM_UP,
            "relay_s": 2.0,
            "drain_s": 120,
            "retry": {"first_s": 0.2, "longest_s": 2.0},
            **service,
        },
        "workers": {"count": 2},
        "health": {"host": "127.0.0.1", "port": 0, "cache_s": 0.2},
        "log_level": "info",
    }


def kafka_transport(bootstrap: str, prefix: str) -> dict[str, Any]:
    return {
        "kind": "kafka",
        "bootstrap_servers": bootstrap,
        "events_topic": f"{prefix}-events",
        "alerts_topic": f"{prefix}-alerts",
        "dead_letter_topic": f"{prefix}-dead",
        "consumer": {
            "group_id": prefix,
            "instance_id": "worker-0",
            "session_timeout_s": 6,
            "probe_s": 0.5,
        },
        "producer": {"publish_timeout_s": 10, "request_timeout_s": 3},
    }


def make_topics(transport: dict[str, Any], partitions: int = 4) -> None:
    admin = AdminClient({"bootstrap.servers": transport["bootstrap_servers"], "log_level": 0})
    names = [transport[f"{kind}_topic"] for kind in ("events", "alerts", "dead_letter")]
    topics = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names]
    for future in admin.create_topics(topics).values():
        future.result(timeout=60)


async def send(transport: dict[str, Any], events: Sequence[ExposureEvent]) -> None:
    sink = KafkaSink(KafkaSettings.model_validate(transport))
    await sink.send_events([(event.key, event.to_json()) for event in events])
    await sink.close()


async def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Return all records of a topic, partition by partition."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",  # the first look-up of a position may end after our own seek
        max_partition_fetch_bytes=10 << 20,
    )
    await consumer.start()
    try:
        await until(consumer.assignment)
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        records: list[Any] = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                batch = await consumer.getmany(partition, timeout_ms=1000)
                records += [record for found in batch.values() for record in found]
        return records
    finally:
        await consumer.stop()


async def contents_of(bootstrap: str, topic: str) -> dict[int, set[bytes]]:
    """Return the payloads found under every alert id."""
    from apstream.alerts.codec import decode

    found: dict[int, set[bytes]] = defaultdict(set)
    for record in await read_topic(bootstrap, topic):
        found[decode(record.value)["diaSourceId"]].add(record.value)
    return found


async def stored(url: str) -> dict[str, list[Any]]:
    """Return what the APDB holds: ledger, unsent outbox rows, (source, object) pairs, object ids."""
    engine = create_async_engine(parse_url(url))
    sources, objects = TABLE_OF["DiaSource"], TABLE_OF["DiaObject"]
    queries = {
        "ledger": sa.select(LEDGER.c.visit, LEDGER.c.detector, LEDGER.c.outcome),
        "unsent": sa.select(OUTBOX.c.path).where(OUTBOX.c.sent.is_(sa.false())),
        "sources": sa.select(sources.c.diaSourceId, sources.c.diaObjectId),
        "objects": sa.select(objects.c.diaObjectId).distinct(),
    }
    async with engine.connect() as connection:
        found = {name: (await connection.execute(query)).all() for name, query in queries.items()}
    await engine.dispose()
    return {name: sorted(tuple(row) for row in rows) for name, rows in found.items()}


async def rows_of(url: str, table: str) -> dict[int, tuple[Any, ...]]:
    """Return the rows of an APDB table by their first column, without what the clock wrote; of objects the latest."""
    known = TABLE_OF[table]
    query = sa.select(*(column for column in known.c if column.name not in CLOCKED))
    if "validityEndMjdTai" in known.c:
        query = query.where(known.c.validityEndMjdTai.is_(None))
    engine = create_async_engine(parse_url(url))
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    await engine.dispose()
    return {row[0]: tuple(row) for row in rows}


class Daemon:
    """`services/alert_producer/main.py` in a process of its own."""

    def __init__(self, folder: Path, tree: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "settings.yaml"
        self._settings.write_text(yaml.safe_dump(tree))
        self._log = folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0

    def start(self, *arguments: str) -> None:
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        command = [sys.executable, "-m", "services.alert_producer.main", "-c", str(self._settings), *arguments]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def log(self) -> list[dict[str, Any]]:
        """Return the log records since the last start; other lines as {"event": line}."""
        records = []
        with self._log.open("rb") as file:
            file.seek(self._begin)
            for line in file.read().decode(errors="replace").splitlines():
                try:
                    records.append(dict(json.loads(line)))
                except ValueError:
                    records.append({"event": line})
        return records

    def said(self, event: str) -> bool:
        return any(record.get("event") == event for record in self.log())

    async def wait_for(self, event: str, timeout_s: float = 120.0) -> None:
        """Wait for a log record; fails when the process ends without it."""
        deadline = time.monotonic() + timeout_s
        while not self.said(event):
            if not self.alive or time.monotonic() > deadline:
                raise AssertionError(f"no {event!r} in:\n" + "\n".join(str(r) for r in self.log()[-30:]))
            await asyncio.sleep(0.05)

    async def port(self) -> int:
        await self.wait_for("health.listening")
        return int(next(r["port"] for r in self.log() if r["event"] == "health.listening"))

    async def end(self, timeout_s: float = 240.0) -> int:
        """Wait until the process ends by itself and return its status."""
        return await asyncio.to_thread(self.process.wait, timeout_s)

    async def status(self) -> dict[str, Any]:
        """Return the status page."""
        async with httpx.AsyncClient() as client:
            page = await client.get(f"http://127.0.0.1:{await self.port()}/status", timeout=30)
        return dict(page.json())

    async def wait_for_work(self, *stages: str, timeout_s: float = 240.0) -> str:
        """Wait until an event is in one of these stages (any when none is given) and return the stage."""
        async with asyncio.timeout(timeout_s):
            while True:
                for flight in (await self.status())["in_flight"]:
                    if not stages or flight["stage"] in stages:
                        return str(flight["stage"])
                await asyncio.sleep(0.02)

    def children(self) -> list[int]:
        """Return the process ids of the pool's children."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"spawn_main" in path.with_name("cmdline").read_bytes():
                    found.append(int(path.parent.name))
        return sorted(found)

    def kill(self) -> None:
        if self._process is not None and self.alive:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)
