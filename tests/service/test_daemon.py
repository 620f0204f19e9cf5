"""The daemon as a process: probes, drain, signals, and what it does when others are away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import daemon as outside
from helpers import synthetic_night as night
from helpers.daemon import Daemon
from helpers.waiting import until

from apstream.alerts.codec import read_ocf
from apstream.apdb import create_apdb

NOWHERE = {"kind": "kafka", "bootstrap_servers": "127.0.0.1:1"}


@pytest.fixture
def running() -> Iterator[list[Daemon]]:
    """Daemons that are killed when the test ends."""
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        daemon.kill()


async def make(folder: Path, transport: dict[str, Any], running: list[Daemon], **service: Any) -> Daemon:
    url = f"sqlite:///{folder}/apdb.sqlite"
    await create_apdb(url)
    daemon = Daemon(folder, outside.settings_tree(folder, url, transport, **service))
    running.append(daemon)
    return daemon


def embedded(folder: Path) -> dict[str, Any]:
    return {"kind": "embedded", "address_file": str(folder / "address")}


async def send(folder: Path, *events: Any) -> None:
    bootstrap = (folder / "address").read_text()
    await outside.send({"kind": "kafka", "bootstrap_servers": bootstrap}, events)


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{port}{path}", timeout=10)


async def test_a_folder_of_exposures_becomes_alert_files(tmp_path: Path, running: list[Daemon]) -> None:
    for visit in (1, 2, 3):
        night.write_exposure(tmp_path / "raw", visit)
    (tmp_path / "raw" / "junk.fits").write_text("no exposure")
    (tmp_path / "raw" / "link.fits").symlink_to("/etc/passwd")
    transport = {"kind": "files", "events": str(tmp_path / "raw"), "alerts": str(tmp_path / "out")}
    daemon = await make(tmp_path, transport, running)
    daemon.start()
    assert await daemon.end() == 0
    found = [read_ocf(path.read_bytes()) for path in sorted((tmp_path / "out").glob("*.avro"))]
    assert len(found) == 3
    stored = await outside.stored(f"sqlite:///{tmp_path}/apdb.sqlite")
    assert sorted(alert.id for alerts in found for alert in alerts) == [s for s, _ in stored["sources"]]
    (dead,) = (tmp_path / "out" / "dead").glob("*.json")
    assert json.loads(dead.read_text())["error_class"] == "ForbiddenUri"
    ended = [r for r in daemon.log() if r["event"] == "event.ended"]
    assert sorted(r["outcome"] for r in ended) == ["dead-letter", "processed", "processed", "processed", "unfit"]


async def test_probes_metrics_and_status(tmp_path: Path, running: list[Daemon]) -> None:
    daemon = await make(tmp_path, embedded(tmp_path), running)
    daemon.start()
    port = await daemon.port()
    assert (await get(port, "/livez")).status_code == 200
    await daemon.wait_for("kafka.assigned")
    await send(tmp_path, night.write_exposure(tmp_path / "raw", 1))
    await daemon.wait_for("event.ended")
    ready = await get(port, "/readyz")
    assert ready.json()["ready"], ready.text
    assert (await get(port, "/startupz")).status_code == 200
    metrics = (await get(port, "/metrics")).text
    assert 'apstream_visit_outcome_total{error_class="",instrument="simcam",outcome="processed"} 1.0' in metrics
    assert "apstream_shutter_to_alert_seconds_bucket" in metrics
    status = (await get(port, "/status")).json()
    assert status["phase"] == "running"
    assert status["recent"][0]["id"] == "simcam visit=1 detector=1"
    assert (await get(port, "/version")).json()["name"] == "apstream"
    (ended,) = [r for r in daemon.log() if r["event"] == "event.ended"]
    assert (ended["instrument"], ended["visit"], ended["detector"]) == ("simcam", 1, 1)
    assert ended["timings_s"]["pixels"] > 0


async def test_sigterm_lets_work_in_flight_end(tmp_path: Path, running: list[Daemon]) -> None:
    daemon = await make(tmp_path, embedded(tmp_path), running)
    daemon.start()
    port = await daemon.port()
    await daemon.wait_for("kafka.assigned")
    events = [night.write_exposure(tmp_path / "raw", visit, seconds=2.0) for visit in (1, 2)]
    await send(tmp_path, *events)
    await until(lambda: in_pixels(port), timeout_s=200)
    daemon.terminate()
    await daemon.wait_for("service.stop")
    assert (await get(port, "/readyz")).json()["checks"]["phase"] == "draining"
    assert await daemon.end() == 0
    stored = await outside.stored(f"sqlite:///{tmp_path}/apdb.sqlite")
    assert stored["ledger"] == [(1, 1, "processed")]  # the second was never begun
    assert stored["unsent"] == []


@pytest.mark.parametrize(("drain_s", "signals"), [(1, 1), (600, 2)])
async def test_nobody_waits_for_work_that_does_not_end(
    tmp_path: Path, running: list[Daemon], drain_s: int, signals: int
) -> None:
    daemon = await make(tmp_path, embedded(tmp_path), running, drain_s=drain_s)
    daemon.start()
    port = await daemon.port()
    await daemon.wait_for("kafka.assigned")
    await send(tmp_path, night.write_exposure(tmp_path / "raw", 1, behave="hang"))
    await until(lambda: in_pixels(port), timeout_s=200)
    for _ in range(signals):
        daemon.terminate()
        await asyncio.sleep(0.3)
    assert await daemon.end(120) == 0
    assert (await outside.stored(f"sqlite:///{tmp_path}/apdb.sqlite"))["ledger"] == []


async def in_pixels(port: int) -> bool:
    flights = (await get(port, "/status")).json()["in_flight"]
    return any(flight["stage"] == "pixels" for flight in flights)


async def test_without_broker_it_lives_and_says_what_is_wrong(tmp_path: Path, running: list[Daemon]) -> None:
    daemon = await make(tmp_path, NOWHERE, running)
    daemon.start()
    port = await daemon.port()
    await daemon.wait_for("kafka.consumer.lost")
    assert (await get(port, "/livez")).status_code == 200
    ready = await get(port, "/readyz")
    assert ready.status_code == 503
    assert "Connection" in ready.json()["checks"]["events"]
    daemon.terminate()
    assert await daemon.end(120) == 0


async def test_without_database_it_waits(tmp_path: Path, running: list[Daemon]) -> None:
    tree = outside.settings_tree(tmp_path, "postgresql://nobody@127.0.0.1:1/none", embedded(tmp_path))
    daemon = Daemon(tmp_path, tree)
    running.append(daemon)
    daemon.start()
    port = await daemon.port()
    await daemon.wait_for("apdb.waiting")
    assert (await get(port, "/livez")).status_code == 200
    assert (await get(port, "/startupz")).status_code == 503
    assert (await get(port, "/readyz")).json()["checks"]["apdb"] != "ok"
    daemon.terminate()
    assert await daemon.end(120) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"services": {}}, "no setting 'services'"),
        ({"apdb": {"url": "sqlite:///NOWHERE/apdb.sqlite"}}, "apstream apdb create"),
        ({"transport": {"kind": "pigeon"}}, "pigeon"),
    ],
)
async def test_wrong_settings_are_one_line(
    tmp_path: Path, running: list[Daemon], change: dict[str, Any], words: str
) -> None:
    tree = outside.settings_tree(tmp_path, f"sqlite:///{tmp_path}/apdb.sqlite", embedded(tmp_path))
    daemon = Daemon(tmp_path, {**tree, **change})
    running.append(daemon)
    daemon.start()
    assert await daemon.end(120) == 1
    line = daemon.log()[-1]["event"]
    assert line.startswith("alert_producer: ")
    assert words in line
