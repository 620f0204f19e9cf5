"""The batch run: selected raws of a repository through the daemon's own worker, to an APDB and alert files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apstream.cameras import load_camera
from apstream.errors import BadSettings, DatasetNotFound
from apstream.model.events import ExposureEvent
from apstream.model.ids import VisitDetector
from apstream.repo.data_ids import check_keys
from apstream.repo.entries import Entry
from apstream.repo.repository import Repository
from apstream.service.outputs import BatchPlaces, keep_record
from apstream.service.pixel_settings import RepositorySettings
from apstream.settings import load_settings

if TYPE_CHECKING:  # what only a run needs is imported by it, and not by others who choose raws here
    from apstream.apdb import SqlApdb
    from apstream.service.flight import Outcome
    from apstream.service.run_settings import RunSettings
    from apstream.service.settings import DaemonSettings

__all__ = ["Batch", "BatchJob", "BatchResult", "prepare_batch", "run_batch", "select_raws"]

_DONE_BEFORE = "done before"
_KIND, _CALIBRATION = "observation_type", ("bias", "dark", "flat")
_PRODUCTS = RepositorySettings().save
_GOOD = ("processed", _DONE_BEFORE)


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One selected raw frame."""

    id: VisitDetector
    path: str

    @property
    def event(self) -> ExposureEvent:
        """The event that announces it; its key puts each detector's frames in a partition of their own."""
        return ExposureEvent(
            uris=(self.path,), instrument=self.id.instrument, visit=self.id.visit, detector=self.id.detector
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """How one frame ended: ``processed``, ``done before``, ``skipped``, ``unfit``, ``failed`` or ``not done``.

    `notes` say what is to be known of its inputs.
    """

    id: VisitDetector
    outcome: str
    reason: str = ""
    n_sources: int = 0
    n_alerts: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether its products are there."""
        return self.outcome in _GOOD


def select_raws(repository: Repository, words: Sequence[str]) -> list[BatchJob]:
    """Return the raws that a selection names, in order of visit and detector.

    Calibration frames are left out unless the selection names an ``observation_type``.

    Raises
    ------
    DatasetNotFound
        If it names none, or a key that raws do not have.
    """
    selection = repository.select(words)
    check_keys(selection.choices, repository.policy.keys("raw"), "raw")
    entries = repository.find("raw", selection)
    if _KIND not in selection.choices:
        entries = [entry for entry in entries if entry.data_id.get(_KIND) not in _CALIBRATION]
    if not entries:
        raise DatasetNotFound(
            f"no location for raw with {' '.join(words) or 'any id'}",
            where=repository.root,
            remedy="apstream repo ls shows what there is, apstream repo ingest brings raws in",
        )
    instrument = load_camera(repository.camera).name
    return sorted((_job(repository, entry, instrument) for entry in entries), key=lambda job: job.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch run, ready to go.

    Parameters
    ----------
    jobs
        The frames.
    settings
        The daemon's settings for them.
    output
        Root of the repository that the products go to.
    """

    jobs: list[BatchJob]
    settings: DaemonSettings
    output: str


def prepare_batch(
    places: BatchPlaces,
    words: Sequence[str],
    chosen: RunSettings,
    *,
    alerts: Path | None,
    jobs: int,
    replace_run: bool,
) -> Batch:
    """Select the frames, open the output repository, keep the record of the run there.

    Raises
    ------
    BadSettings
        If APDB or alerts have no place.
    DatasetNotFound
        If the selection names no raw.
    Conflict
        If the output repository was begun with other settings, versions or schemas.
    """
    if not chosen.apdb.url:
        raise BadSettings("no APDB location", where="--apdb", remedy="give e.g. --apdb sqlite:///apdb.sqlite")
    if alerts is None:
        raise BadSettings("no folder for the alerts", where="--alerts", remedy="give e.g. --alerts alerts/")
    repository, choices = Repository(places.root), places.choices()
    selected = select_raws(repository, words)
    output = places.open_output()
    run = keep_record(output, "run", chosen, choices, replace=replace_run)
    where = {"root": repository.root, "output_root": output.root, "save": chosen.save, "run": run, **choices}
    return Batch(jobs=selected, settings=_daemon_settings(chosen, where, alerts=alerts, jobs=jobs), output=output.root)


def _daemon_settings(chosen: RunSettings, where: Mapping[str, Any], *, alerts: Path, jobs: int) -> DaemonSettings:
    from apstream.service.settings import DaemonSettings

    tree = {
        "apdb": chosen.apdb.model_dump(mode="json"),
        "pixels": {"repository": where, "stages": chosen.stages.model_dump(mode="json")},
        "catalogs": chosen.catalogs.model_dump(mode="json"),
        "service": {
            "roots": ["/", *_stores(where)],
            "alert_dir": str(alerts / "committed"),
            "retry": {"limit": 5},
            "warm_up": "",
        },
        "workers": {**chosen.workers.model_dump(mode="json"), "count": jobs},
        "health": None,
        "log_level": "error",
        "log_format": "text",
        "transport": {"kind": "files", "events": str(alerts), "alerts": str(alerts)},
    }
    return load_settings(DaemonSettings, base=tree)


async def run_batch(batch: Batch, on_end: Callable[[BatchResult], None]) -> list[BatchResult]:
    """Make the APDB if it is not there and run all jobs; returns how each ended, in their order.

    A job that the ledger has as processed is not run again; one that failed before is. `on_end` is called as
    each one ends.
    """
    from apstream.apdb import create_apdb
    from apstream.service.daemon import serve
    from apstream.service.telemetry import configure_logging

    settings = batch.settings
    configure_logging(settings.log_level, settings.log_format)
    await create_apdb(settings.apdb.url, isolation_level=settings.apdb.isolation_level)
    results = await _done_before(batch)
    for result in results.values():
        on_end(result)

    def ended(outcome: Outcome) -> None:
        if outcome.id is not None:
            results[outcome.id] = _result(outcome)
            on_end(results[outcome.id])

    left = [job for job in batch.jobs if job.id not in results]
    if left:
        with tempfile.TemporaryDirectory() as folder:
            await serve(_reading(left, Path(folder) / "events.jsonl", settings), on_end=ended)
    undone = {job.id: BatchResult(id=job.id, outcome="not done", reason="interrupted") for job in batch.jobs}
    return list((undone | results).values())


async def _done_before(batch: Batch) -> dict[VisitDetector, BatchResult]:
    output, apdb = Repository(batch.output), await _open(batch.settings)
    try:
        found = [await _look(apdb, job.id, output) for job in batch.jobs]
    finally:
        await apdb.close()
        output.close()
    return {result.id: result for result in found if result is not None}


async def _open(settings: DaemonSettings) -> SqlApdb:
    from apstream.apdb import open_apdb

    return await open_apdb(settings.apdb.url, isolation_level=settings.apdb.isolation_level)


async def _look(apdb: SqlApdb, id: VisitDetector, output: Repository) -> BatchResult | None:
    entry = await apdb.ledger(id)
    if entry is None or await apdb.forget_failure(id):
        return None
    found = [output.own.registry.find(name, visit=id.visit, detector=id.detector) for name in _PRODUCTS]
    reason = "" if any(found) else f"its products are not in {output.root}: for another run take another --apdb"
    return BatchResult(id=id, outcome=_DONE_BEFORE, reason=reason, n_sources=entry.n_sources, n_alerts=entry.n_alerts)


def _stores(where: Mapping[str, Any]) -> list[str]:
    return [str(root) for root in where.values() if isinstance(root, str) and "://" in root]


def _result(outcome: Outcome) -> BatchResult:
    assert outcome.id is not None
    name = {"repeated": _DONE_BEFORE, "dead-letter": "failed"}.get(outcome.name, outcome.name)
    reason = f"{outcome.error_class}: {outcome.reason}" if outcome.error_class else outcome.reason
    return BatchResult(
        id=outcome.id,
        outcome=name,
        reason=reason,
        n_sources=outcome.n_sources,
        n_alerts=outcome.n_alerts,
        seconds=outcome.total_s,
        notes=outcome.notes,
    )


def _reading(jobs: Sequence[BatchJob], events: Path, settings: DaemonSettings) -> DaemonSettings:
    """Return the settings of a daemon that reads the jobs' events from a file."""
    events.write_bytes(b"".join(job.event.to_json() + b"\n" for job in jobs))
    transport = {**settings.transport.model_dump(), "events": events}
    return settings.model_copy(update={"transport": type(settings.transport).model_validate(transport)})


def _job(repository: Repository, entry: Entry, instrument: str) -> BatchJob:
    id = VisitDetector(instrument, entry.data_id["visit"], entry.data_id["detector"])
    location = repository.location(entry)
    return BatchJob(id, location if "://" in location else str(Path(location).resolve()))
