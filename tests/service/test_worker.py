"""One event start to finish, and every way it can fail; real children, a real database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import synthetic_night as night
from helpers.waiting import until

from apstream.alerts.codec import decode
from apstream.apdb import create_apdb, open_apdb
from apstream.errors import BadSettings, BrokerUnavailable
from apstream.model.ids import VisitDetector
from apstream.model.products import Alert, CatalogProducts, History, PixelProducts
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts
from apstream.ports import Message, SinkStatus
from apstream.service.alert_files import AlertFiles
from apstream.service.clock import now_mjd_tai
from apstream.service.pool import PoolSettings, WorkerPool
from apstream.service.relay import Relay
from apstream.service.settings import RetrySettings, ServiceSettings
from apstream.service.telemetry import Telemetry
from apstream.service.worker import EventWorker, Tools


class MemorySink:
    """An `AlertSink` that keeps what it gets, and fails as often as told."""

    def __init__(self) -> None:
        self.status = SinkStatus()
        self.alerts: list[Alert] = []
        self.dead: list[tuple[Message, str, str]] = []
        self.failures: list[Exception] = []

    async def start(self) -> None: ...

    def check(self, alerts: Sequence[Alert]) -> None: ...

    async def publish(self, alerts: Sequence[Alert]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.alerts.extend(alerts)

    async def dead_letter(self, message: Message, *, reason: str, error_class: str) -> None:
        if self.failures:
            raise self.failures.pop()
        self.dead.append((message, reason, error_class))

    async def close(self) -> None: ...


class Bench:
    """A worker with everything it needs."""

    def __init__(self, folder: Path, tools: Tools, settings: ServiceSettings, sink: MemorySink) -> None:
        self.folder = folder
        self.tools = tools
        self.settings = settings
        self.sink = sink
        self.worker = EventWorker(tools, settings)

    async def send(self, visit: int, **extra: Any) -> Any:
        event = night.write_exposure(self.folder / "raw", visit, **extra)
        return await self.worker.handle(Message(event.to_json(), topic="events", offset=visit))


def settings_of(folder: Path, **changes: Any) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "roots": [folder / "raw"],
            "alert_dir": folder / "alerts",
            "pixel_job": night.PIXEL_JOB,
            "identify_job": night.IDENTIFY,
            "retry": RetrySettings(first_s=0.05, longest_s=0.1, deaths=2),
            **changes,
        }
    )


def default_make_alerts(products: PixelProducts, history: History, now: float) -> CatalogProducts:
    return make_alerts(products, history, now, CatalogsConfig())


@contextlib.asynccontextmanager
async def bench(
    folder: Path, *, job_timeout_s: float = 300.0, lock_s: float = 5.0, **changes: Any
) -> AsyncIterator[Bench]:
    url = f"sqlite:///{folder}/apdb.sqlite"
    await create_apdb(url)
    settings, sink = settings_of(folder, **changes), MemorySink()
    async with contextlib.AsyncExitStack() as stack:
        apdb = await open_apdb(url, lock_timeout_s=lock_s)
        stack.push_async_callback(apdb.close)
        pool = WorkerPool(PoolSettings(job_timeout_s=job_timeout_s))
        stack.push_async_callback(pool.close)
        await pool.start()
        tools = Tools(
            apdb=apdb,
            sink=sink,
            pool=pool,
            files=AlertFiles(settings.alert_dir, CatalogsConfig().pack.schema_id),
            make_alerts=default_make_alerts,
            pixels=None,
            clock=now_mjd_tai,
        )
        yield Bench(folder, tools, settings, sink)


async def test_exposures_become_rows_and_alerts(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        outcomes = [await b.send(visit) for visit in (1, 2, 3)]
        assert [o.name for o in outcomes] == ["processed"] * 3
        assert sum(o.n_alerts for o in outcomes) == len(b.sink.alerts) == 24
        assert {"parse", "identify", "known", "pixels", "commit", "publish", "pixels.measure"} <= set(
            outcomes[0].timings_s
        )
        assert outcomes[0].shutter_to_alert_s > 0
        assert outcomes[0].quality == {"calibrate.depth_mag": 24.5}
        entry = await b.tools.apdb.ledger(VisitDetector("simcam", 2, 1))
        assert entry is not None
        assert (entry.outcome, entry.n_alerts) == ("processed", outcomes[1].n_alerts)
        assert await b.tools.apdb.unsent() == []
        known = await b.tools.apdb.known_objects(night.REGION)
        assert len(known.ids) == night.N_STARS
        last = decode(b.sink.alerts[-1].payload)
        assert last["prvDiaSources"]


async def test_an_event_that_comes_again_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.send(1)
        before = list(b.sink.alerts)
        again = await b.send(1)
        assert (again.name, again.n_alerts) == ("repeated", 0)
        assert b.sink.alerts == before


async def test_a_minimal_event_gets_its_identity_from_the_file(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        event = night.write_exposure(tmp_path / "raw", 7)
        message = Message(json.dumps({"uri": f"file://{event.uris[0]}"}).encode())
        outcome = await b.worker.handle(message)
        assert (outcome.name, outcome.id) == ("processed", VisitDetector("simcam", 7, 1))
        assert (await b.worker.handle(message)).name == "repeated"


async def test_alerts_left_unsent_go_out_byte_for_byte(tmp_path: Path) -> None:
    """A crash between commit and acknowledgement: the event comes again, or the relay finds the row."""
    async with bench(tmp_path, retry=RetrySettings(first_s=60, longest_s=60)) as b:
        b.sink.failures = [BrokerUnavailable("gone"), BrokerUnavailable("gone")]
        for visit in (1, 2):
            crashed = asyncio.create_task(b.send(visit))
            await until(lambda: [f.attempts for f in b.worker.flights] == [2])
            crashed.cancel()
            await asyncio.wait([crashed])
        committed = [a for entry in await b.tools.apdb.unsent() for a in b.tools.files.read(entry)]
        again = await b.send(1)
        assert again.name == "repeated"
        relay = Relay(b.tools.apdb, b.worker, Telemetry(), 60)
        assert await relay.look() == 1
        assert await relay.look() == 0
        assert b.sink.alerts == committed


async def test_a_corrupt_alert_file_is_never_sent(tmp_path: Path) -> None:
    async with bench(tmp_path, retry=RetrySettings(first_s=60, longest_s=60)) as b:
        b.sink.failures = [BrokerUnavailable("gone")]
        crashed = asyncio.create_task(b.send(1))
        await until(lambda: not b.sink.failures)
        crashed.cancel()
        await asyncio.wait([crashed])
        (path,) = (tmp_path / "alerts").rglob("*.avro")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        relay = Relay(b.tools.apdb, b.worker, Telemetry(), 60)
        assert [await relay.look(), await relay.look()] == [1, 1]
        assert b.sink.alerts == []


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"\xff\x00 not json", "MalformedEvent"),
        (b'{"schema": "other.v7", "uri": "/x"}', "UnknownEvent"),
        (b'{"instrument": "othercam", "uri": "/x"}', "UnknownEvent"),
        (b'{"uri": "/x", "pad": "' + b"x" * 3000 + b'"}', "OversizedEvent"),
        (b'{"uri": "/etc/passwd"}', "ForbiddenUri"),
        (b'{"uri": "file:///RAW/../../../../etc/passwd"}', "ForbiddenUri"),
        (b'{"uri": "/RAW/link.fits"}', "ForbiddenUri"),
        (b'{"uri": "raw.fits"}', "ForbiddenUri"),
        (b'{"uri": "https://example.org/a.fits"}', "ForbiddenUri"),
        (b'{"uri": "file://elsewhere/RAW/a.fits"}', "ForbiddenUri"),
    ],
)
async def test_bad_events_go_to_the_dead_letters(tmp_path: Path, payload: bytes, kind: str) -> None:
    async with bench(tmp_path, instruments=["simcam"], max_event_bytes=2000) as b:
        raw = tmp_path / "raw"
        raw.mkdir()
        (raw / "link.fits").symlink_to("/etc/passwd")
        message = Message(payload.replace(b"/RAW", str(raw).encode()), b"key", "events", 3, 99)
        b.sink.failures = [BrokerUnavailable("a moment, please")]
        outcome = await b.worker.handle(message)
        assert (outcome.name, outcome.error_class) == ("dead-letter", kind)
        ((dead, reason, error_class),) = b.sink.dead
        assert dead is message
        assert error_class == kind
        assert reason


async def test_an_event_that_contradicts_its_file_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        event = night.write_exposure(tmp_path / "raw", 7)
        lie = event.model_copy(update={"visit": 8})
        assert (await b.worker.handle(Message(lie.to_json()))).error_class == "MalformedEvent"
        assert await b.tools.apdb.ledger(VisitDetector("simcam", 8, 1)) is None


@pytest.mark.parametrize(
    ("extra", "name", "reason"),
    [
        ({"behave": "no template"}, "skipped", "NoTemplateOverlap"),
        ({"behave": "stumble"}, "unfit", "unexpected ZeroDivisionError"),
        ({"behave": "vanish"}, "failed", "WorkerDied"),
    ],
)
async def test_failures_are_recorded_and_the_next_event_works(
    tmp_path: Path, extra: dict[str, Any], name: str, reason: str
) -> None:
    async with bench(tmp_path) as b:
        outcome = await b.send(1, **extra)
        assert outcome.name == name
        entry = await b.tools.apdb.ledger(VisitDetector("simcam", 1, 1))
        assert entry is not None
        assert entry.outcome == name
        assert reason in entry.reason
        assert (await b.send(2)).name == "processed"


async def test_a_truncated_file_and_a_missing_one_are_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        event = night.write_exposure(tmp_path / "raw", 1)
        (tmp_path / "raw" / "raw-0001-1.fits").write_text('{"visit"')
        assert (await b.worker.handle(Message(event.to_json()))).error_class == "BadFile"
        event = night.write_exposure(tmp_path / "raw", 2)
        (tmp_path / "raw" / "raw-0002-1.fits").unlink()
        assert (await b.worker.handle(Message(event.to_json()))).error_class == "FileMissing"
        assert (await b.send(3)).name == "processed"


async def test_a_job_that_hangs_is_recorded_as_failed(tmp_path: Path) -> None:
    async with bench(tmp_path, job_timeout_s=0.6) as b:
        outcome = await b.send(1, behave="hang")
        assert (outcome.name, outcome.attempts) == ("failed", 2)
        assert "no result after" in outcome.reason


async def test_a_child_that_died_once_is_no_loss(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        outcome = await b.send(1, behave="die once", marker=str(tmp_path / "died"))
        assert (outcome.name, outcome.attempts) == ("processed", 2)


async def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path, lock_s=0.2) as b:
        holder = sqlite3.connect(tmp_path / "apdb.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        work = asyncio.create_task(b.send(1))
        await until(lambda: any(flight.attempts > 2 for flight in b.worker.flights))
        holder.execute("ROLLBACK")
        holder.close()
        outcome = await work
        assert outcome.name == "processed"
        assert outcome.attempts > 2
        assert outcome.timings_s["pixels"] < 5  # the pixels were not computed again


async def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        (tmp_path / "alerts").write_text("in the way of the folder")
        work = asyncio.create_task(b.send(1))
        await until(lambda: any(flight.attempts > 2 for flight in b.worker.flights))
        (tmp_path / "alerts").unlink()
        assert (await work).name == "processed"


async def test_retries_may_be_limited(tmp_path: Path) -> None:
    retry = RetrySettings(first_s=0.01, longest_s=0.01, limit=2)
    async with bench(tmp_path, retry=retry) as b:
        b.sink.failures = [BrokerUnavailable("gone")] * 10
        outcome = await b.send(1)
        assert (outcome.name, outcome.attempts) == ("failed", 3)
        assert len(await b.tools.apdb.unsent()) == 1  # committed: the relay's business now


async def test_a_fatal_error_stops_the_service_and_leaves_the_event(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.sink.failures = [BadSettings("the topic refuses")]
        with pytest.raises(BadSettings):
            await b.send(1)
        assert (await b.send(1)).n_alerts > 0  # after the remedy


async def test_a_defect_in_association_is_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:

        def broken(products: PixelProducts, history: History, now: float) -> CatalogProducts:
            raise KeyError("diaObjectId")

        worker = EventWorker(replace(b.tools, make_alerts=broken), b.settings)
        event = night.write_exposure(tmp_path / "raw", 1)
        outcome = await worker.handle(Message(event.to_json()))
        assert outcome.name == "unfit"
        assert "unexpected KeyError" in outcome.reason
