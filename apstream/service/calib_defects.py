"""Defects from master darks and flats: of files, or of a repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from apstream.arrays.types import F32
from apstream.errors import ApstreamError, DatasetNotFound
from apstream.repo.atomic import atomic_path
from apstream.repo.data_ids import check_keys
from apstream.repo.entries import Entry
from apstream.repo.formats.calibs import write_defects
from apstream.repo.formats.registry import YAML
from apstream.repo.repository import Repository
from apstream.service.calib import CalibOutcome, Product, report_values
from apstream.service.calib_files import read_calibs, read_stored
from apstream.service.calib_settings import CalibSettings
from apstream.service.targets import require_distinct, require_ending, spare_inputs
from apstream.tasks.make_defects import DefectsResult, make_defects

__all__ = ["defects_of_files", "defects_of_masters"]


def defects_of_files(dark: Path | None, flats: Sequence[Path], out: Path, settings: CalibSettings) -> CalibOutcome:
    """Find the defects in master files and write them to `out`, as boxes.

    Raises
    ------
    BadSettings
        If `out` is one of the masters or does not end like YAML, or a master is given twice.
    """
    paths = [*([dark] if dark else []), *flats]
    spare_inputs([out], paths)
    require_ending(out, YAML, "the product of apstream calib defects")
    require_distinct(paths)
    used = [str(path) for path in paths]
    masters = [read_calibs({"flat": path})["flat"] for path in flats]
    made = make_defects(read_calibs({"dark": dark})["dark"] if dark else None, masters, settings.defects, used=used)
    with atomic_path(out) as temporary:
        write_defects(temporary, made.defects)
    return _outcome("defects", made, str(out))


def defects_of_masters(
    repository: Repository,
    words: Sequence[str],
    *,
    settings: CalibSettings,
    valid: tuple[float, float],
    run: str = "",
) -> Iterator[CalibOutcome]:
    """Find the defects of each detector selected in the darks and flats that hold at the begin of a span.

    Raises
    ------
    DatasetNotFound
        If no selected detector has a master.
    """
    selection = repository.select(words)
    check_keys(selection.choices, ("detector",), "defects")
    entries = [entry for kind in ("dark", "flat") for entry in repository.find(kind, selection)]
    numbers = sorted({int(entry.identity["detector"]) for entry in entries})
    if not numbers:
        raise DatasetNotFound(
            f"no master dark or flat with {' '.join(words) or 'any id'}",
            where=repository.root,
            remedy="make them with apstream calib dark and apstream calib flat",
        )
    for number in numbers:
        own = [entry for entry in entries if int(entry.identity["detector"]) == number and _holds(entry, valid[0])]
        try:
            yield _store(repository, number, own, settings=settings, valid=valid, run=run)
        except ApstreamError as error:
            yield CalibOutcome(what=f"defects detector={number}", error=error)


def _holds(entry: Entry, mjd: float) -> bool:
    """Whether an entry is valid at a moment; at the begin of all times every one that begins there is."""
    begin, end = entry.valid or (mjd, float("inf"))
    return begin <= mjd < end or mjd == float("-inf")


def _store(
    repository: Repository,
    number: int,
    entries: Sequence[Entry],
    *,
    settings: CalibSettings,
    valid: tuple[float, float],
    run: str,
) -> CalibOutcome:
    latest: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.valid or valid)[0]):
        latest[entry.type, str(entry.identity.get("band", ""))] = entry
    used = [repository.location(entry) for entry in latest.values()]
    masters: dict[str, list[F32]] = {"dark": [], "flat": []}
    with repository.tracking() as read:
        for (kind, _), entry in latest.items():
            masters[kind].append(read_stored(repository, entry))
    dark = masters["dark"][0] if masters["dark"] else None
    made = make_defects(dark, masters["flat"], settings.defects, used=used)
    put = partial(repository.put, run=run, valid=valid, inputs=tuple(read), detector=number)
    location = put(made.defects, "defects", suffix=".yaml")
    put(report_values(made.report), "calib_report", name="defects")
    return _outcome(f"defects detector={number}", made, location)


def _outcome(what: str, made: DefectsResult, location: str) -> CalibOutcome:
    product = Product(type="defects", value=made.defects, report=made.report)
    return CalibOutcome(what=what, products=(product,), locations=(location,))
