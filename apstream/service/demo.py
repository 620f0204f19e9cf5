"""The demonstration: a small simulated night from raw frames to alerts, judged against its truth."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import yaml

from apstream.alerts.codec import decode
from apstream.apdb import create_apdb
from apstream.errors import FatalError
from apstream.repo.ingest import ingest_sources
from apstream.repo.repository import Repository
from apstream.service.alert_page import render_page
from apstream.service.batch import BatchJob, select_raws
from apstream.service.calexps import Making
from apstream.service.coadd import make_coadds
from apstream.service.coadd_settings import CoaddSettings
from apstream.service.sending import send_events
from apstream.simulate.config import NightConfig
from apstream.simulate.night import FIRST_SCIENCE_VISIT, simulate_night
from apstream.transports.embedded import EmbeddedBroker
from apstream.transports.kafka import read_topic
from apstream.transports.settings import KafkaSettings

__all__ = ["DEMO_COLUMNS", "DemoExposure", "DemoReport", "prepare_night", "run_demo"]

_EVENTS, _ALERTS, _DEAD = "apstream-exposures", "apstream-alerts", "apstream-exposures-dead"
_IDLE_S = 12
_MATCH_DEG = 1.0 / 3600
_SURE_SNR = 10.0
_SHOWN = 60

#: Called with what is being done, how much of it is done, and how much there is.
Tell = Callable[[str, int, int], None]


class DemoExposure(NamedTuple):
    """What was found in one exposure."""

    visit: int
    detector: int
    injected: int
    recovered: int
    alerts: int
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Return the row of a table; `DEMO_COLUMNS` heads it."""
        return (*(str(value) for value in self[:5]), f"{self.seconds:.1f}")


#: Heads of the columns of a `DemoExposure`.
DEMO_COLUMNS = ("visit", "detector", f"injected S/N > {_SURE_SNR:.0f}", "recovered", "alerts", "event to alerts, s")


@dataclass(slots=True)
class DemoReport:
    """What the demonstration found."""

    exposures: list[DemoExposure] = field(default_factory=list)
    alerts: int = 0
    page: Path = Path()

    @property
    def injected(self) -> int:
        """Transients brighter than S/N 10, summed over the exposures."""
        return sum(row.injected for row in self.exposures)

    @property
    def recovered(self) -> int:
        """How many of them have an alert within 1 arcsec."""
        return sum(row.recovered for row in self.exposures)


async def run_demo(out: Path, config: NightConfig, tell: Tell) -> DemoReport:
    """Simulate a night under `out`, make templates, run the daemon on an embedded broker, judge the alerts.

    Raises
    ------
    FatalError
        If the daemon ends with an error; names its log.
    """
    science = prepare_night(out, config, tell)
    url = _apdb_url(out)
    await create_apdb(url)
    async with EmbeddedBroker(topics=[_EVENTS, _ALERTS, _DEAD]) as broker:
        settings = _write_settings(out, url, broker.bootstrap_servers)
        await send_events([job.event for job in science], bootstrap=broker.bootstrap_servers, topic=_EVENTS)
        records = await _serve(out, settings, len(science), tell)
        messages = await read_topic(_ALERTS, KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    alerts = [decode(message.value) for message in messages]
    report = _judge(out, records, alerts)
    report.page = _write_page(out, report, alerts)
    tell("done", config.visits, config.visits)
    return report


def prepare_night(out: Path, config: NightConfig, tell: Tell) -> list[BatchJob]:
    """Simulate a night in `out`/night, ingest it into `out`/repo and make its templates.

    Returns
    -------
    list of BatchJob
        The science exposures, in order of visit and detector.
    """
    simulate_night(out / "night", config, lambda done, total, what: tell("simulate the night", done, total))
    repository = Repository.create(out / "repo", camera="simcam")
    ingest_sources(repository, [out / "night"])
    jobs = select_raws(repository, [])
    _make_templates(repository, [job for job in jobs if job.id.visit < FIRST_SCIENCE_VISIT], tell)
    return [job for job in jobs if job.id.visit >= FIRST_SCIENCE_VISIT]


def _apdb_url(out: Path) -> str:
    return f"sqlite:///{out.absolute() / 'apdb.sqlite'}"


def _make_templates(repository: Repository, jobs: Sequence[BatchJob], tell: Tell) -> None:
    made = make_coadds(repository, jobs, CoaddSettings(), Making(processes=2, progress=tell))
    if made.problems:
        raise made.problems[0]


def _write_settings(out: Path, apdb: str, bootstrap: str) -> Path:
    place = out.absolute()
    tree = {
        "transport": {
            "kind": "kafka",
            "bootstrap_servers": bootstrap,
            "events_topic": _EVENTS,
            "alerts_topic": _ALERTS,
            "dead_letter_topic": _DEAD,
            "consumer": {"session_timeout_s": 10},
        },
        "apdb": {"url": apdb},
        "pixels": {"repository": {"root": str(place / "repo")}},
        "service": {"roots": [str(place)], "alert_dir": str(place / "alerts")},
        "workers": {"count": 2},
        "health": {"port": 0},
    }
    path = out / "daemon.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


async def _serve(out: Path, settings: Path, exposures: int, tell: Tell) -> list[dict[str, Any]]:
    """Run the daemon as a process of its own until all events are done; return its outcome records."""
    log = out / "daemon.log"
    command = ["-m", "apstream", "serve", "-c", str(settings), "--idle-exit", str(_IDLE_S)]
    with log.open("wb") as stream:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=stream, stderr=asyncio.subprocess.STDOUT
        )
        ended = asyncio.create_task(daemon.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=0.5)
                tell("difference, associate, alert", len(_outcomes(log)), exposures)
        finally:
            if not ended.done():
                daemon.kill()
    if daemon.returncode != 0:
        raise FatalError(f"the daemon ended with {daemon.returncode}", where=str(log), remedy="read its log")
    return _outcomes(log)


def _outcomes(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and '"event.ended"' in line]


def _judge(out: Path, records: Sequence[Mapping[str, Any]], alerts: Sequence[Mapping[str, Any]]) -> DemoReport:
    truth = pq.read_table(out / "night" / "truth" / "sources.parquet").to_pylist()
    report = DemoReport(alerts=len(alerts))
    for record in sorted(records, key=lambda r: (r.get("visit", 0), r.get("detector", 0))):
        key = (record.get("visit"), record.get("detector"))
        sources = [a["diaSource"] for a in alerts if (a["diaSource"]["visit"], a["diaSource"]["detector"]) == key]
        true = [t for t in truth if (t["visit"], t["detector"]) == key and _is_sure(t)]
        found = sum(_has_alert(t, sources) for t in true)
        visit, detector = (value or 0 for value in key)
        report.exposures.append(
            DemoExposure(visit, detector, len(true), found, len(sources), record["total_s"])
        )
    return report


def _is_sure(row: Mapping[str, Any]) -> bool:
    return bool(row["kind"] != "variable" and abs(row["sn_local"]) > _SURE_SNR)


def _has_alert(true: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> bool:
    cosine = np.cos(np.deg2rad(true["dec"]))
    return any(np.hypot((s["ra"] - true["ra"]) * cosine, s["dec"] - true["dec"]) < _MATCH_DEG for s in sources)


def _write_page(out: Path, report: DemoReport, alerts: Sequence[Mapping[str, Any]]) -> Path:
    rows = [DEMO_COLUMNS, *(exposure.cells() for exposure in report.exposures)]
    ordered = sorted(alerts, key=lambda alert: -abs(alert["diaSource"].get("snr") or 0))
    best = [a for a in ordered if not a["diaSource"].get("isDipole") and not a["diaSource"].get("isNegative")]
    page = out / "alerts.html"
    note = f"The most significant of {len(alerts)}, dipoles and negative ones left out."
    tables = {"Injected and recovered": rows}
    page.write_text(render_page(best[:_SHOWN], title="A simulated night", tables=tables, note=note))
    return page
