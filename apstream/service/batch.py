"""The batch run: selected raws of a repository through the daemon's own worker, to an APDB and alert files."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apstream.apdb import open_apdb
from apstream.errors import BadSettings, DatasetNotFound
from apstream.model.events import ExposureEvent
from apstream.model.ids import VisitDetector
from apstream.ports import Apdb, LedgerEntry
from apstream.repo.entries import Entry
from apstream.repo.repository import FileRepository
from apstream.service.daemon import serve
from apstream.service.settings import DaemonSettings
from apstream.service.telemetry import configure_logging
from apstream.settings import load_settings, merge

__all__ = ["BatchJob", "batch_settings", "run_batch", "select_raws"]

_LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One selected raw frame."""

    id: VisitDetector
    path: Path

    @property
    def event(self) -> ExposureEvent:
        """The event that announces it; its key puts each detector's frames in a partition of their own."""
        return ExposureEvent(
            uris=(str(self.path),), instrument=self.id.instrument, visit=self.id.visit, detector=self.id.detector
        )


def select_raws(repository: FileRepository, words: Sequence[str]) -> list[BatchJob]:
    """Return the raws that a selection names, in order of visit and detector.

    Raises
    ------
    DatasetNotFound
        If it names none.
    """
    entries = repository.find("raw", repository.select(words))
    if not entries:
        raise DatasetNotFound(
            f"no location for raw with {' '.join(words) or 'any id'}",
            where=str(repository.root),
            remedy="apstream repo ls shows what there is, apstream repo ingest brings raws in",
        )
    instrument = _instrument(repository)
    return sorted((_job(repository, entry, instrument) for entry in entries), key=lambda job: job.id)


def batch_settings(
    repository: FileRepository,
    *,
    apdb: str,
    alerts: Path,
    jobs: int,
    stages: Mapping[str, Any],
    places: Mapping[str, Any],
) -> DaemonSettings:
    """Return the daemon's settings for a batch run over `repository`.

    `stages` are the pixel stages' settings, `places` those of `RepositorySettings`.
    """
    if not apdb:
        raise BadSettings("no APDB location", where="--apdb", remedy="give e.g. --apdb sqlite:///apdb.sqlite")
    tree = {
        "apdb": {"url": apdb},
        "pixels": {"repository": merge({"root": str(repository.root)}, places), "stages": dict(stages)},
        "service": {"roots": ["/"], "alert_dir": str(alerts / "committed"), "retry": {"limit": 5}, "warm_up": ""},
        "workers": {"count": jobs},
        "health": None,
        "log_level": "error",
        "log_format": "text",
        "transport": {"kind": "files", "events": str(alerts), "alerts": str(alerts)},
    }
    return load_settings(DaemonSettings, base=tree)


async def run_batch(
    jobs: Sequence[BatchJob], settings: DaemonSettings, on_end: Callable[[LedgerEntry], None]
) -> list[LedgerEntry | None]:
    """Run all jobs; returns how each ended, None where it left no trace.

    Jobs whose ledger row exists already are not run again. `on_end` is called as each one ends.
    """
    configure_logging(settings.log_level, settings.log_format)
    apdb = await open_apdb(settings.apdb.url)
    try:
        with tempfile.TemporaryDirectory() as folder:
            events = Path(folder) / "events.jsonl"
            events.write_bytes(b"".join(job.event.to_json() + b"\n" for job in jobs))
            transport = {**settings.transport.model_dump(), "events": events}
            tree = settings.model_copy(update={"transport": type(settings.transport).model_validate(transport)})
            work = asyncio.create_task(serve(tree))
            pending = {job.id for job in jobs}
            while not work.done():
                await asyncio.wait({work}, timeout=_LOOK_S)
                pending -= await _report(apdb, pending, on_end)
            work.result()
            await _report(apdb, pending, on_end)
        return [await apdb.ledger(job.id) for job in jobs]
    finally:
        await apdb.close()


async def _report(apdb: Apdb, pending: set[VisitDetector], on_end: Callable[[LedgerEntry], None]) -> set[VisitDetector]:
    ended = set()
    for id in sorted(pending):
        if (entry := await apdb.ledger(id)) is not None:
            ended.add(id)
            on_end(entry)
    return ended


def _instrument(repository: FileRepository) -> str:
    from apstream.cameras import load_camera

    return load_camera(repository.camera).name


def _job(repository: FileRepository, entry: Entry, instrument: str) -> BatchJob:
    id = VisitDetector(instrument, entry.data_id["visit"], entry.data_id["detector"])
    return BatchJob(id, Path(repository.location(entry)).resolve())
