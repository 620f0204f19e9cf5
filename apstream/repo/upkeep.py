"""Looking after a repository: files without rows, rows without files, contents that have changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Formatter

from apstream.errors import ApstreamError, BadFile
from apstream.repo.checksums import checksum_of
from apstream.repo.dataset_types import AggregateType, AnyType, StoredType, data_id_text
from apstream.repo.entries import Entry
from apstream.repo.place import CONFIG, Place
from apstream.repo.repository import Repository

__all__ = ["CheckReport", "check_repository"]

_KEPT = (CONFIG, "policy.yaml", "registry.sqlite3")
_FOLDERS = ("rerun/", "runs/")


@dataclass(slots=True)
class CheckReport:
    """What a check found.

    Parameters
    ----------
    datasets
        How many were looked at.
    damaged
        Missing or changed files, as errors that say what to do.
    orphans
        Paths of files that lie where datasets lie but that none names: what a killed writer left.
    """

    datasets: int = 0
    damaged: list[ApstreamError] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def check_repository(
    repository: Repository, *, contents: bool = False, remove_orphans: bool = False, before: float = 0.0
) -> CheckReport:
    """Compare the files of a repository (not its parents) with its registry.

    Parameters
    ----------
    contents
        Also read every file and compare its checksum.
    remove_orphans
        Remove files that no dataset names; only while nobody writes.
    before
        POSIX time: temporary files of killed writers count as orphans if they are older.
    """
    report, named = CheckReport(), set[str]()
    place = repository.own
    for kind in place.registry.types():  # not the policy's: one may have been taken out of it
        for entry in place.registry.find(kind):
            report.datasets += 1
            named.add(entry.path)
            name = f"{place.store.location(entry.path)} ({kind} {data_id_text(entry.data_id)})"
            try:
                _look_at(place, entry, contents=contents)
            except ApstreamError as error:
                report.damaged.append(type(error)(error.message, where=name, remedy=error.remedy))
    files = list(place.store.walk())
    named |= {path.removesuffix(f"/{CONFIG}") for path in files if path.endswith(f"/{CONFIG}")}
    places = [_pattern(kind.template) for kind in _with_files(repository.policy.types.values())]
    report.orphans = [
        path
        for path in files
        if _may_be_orphan(path) and not _is_named(path, named) and any(place.fullmatch(path) for place in places)
    ]
    report.orphans += place.store.leftovers(before)
    for path in report.orphans if remove_orphans else ():
        place.store.remove(path)
    return report


def _look_at(place: Place, entry: Entry, *, contents: bool) -> None:
    """Raise an error of ours if what an entry names is gone or, with `contents`, has changed."""
    path, folder = entry.path, False
    if not place.store.exists(path):
        folder = next(place.store.walk(path), None) is not None  # as a HATS catalogue is
        if not folder:
            raise BadFile("the file of a dataset is gone", remedy="make or ingest it again")
    if contents and folder:
        if entry.checksum and checksum_of(Path(place.store.location(path))) != entry.checksum:
            raise BadFile("the content has changed", remedy="make or ingest it again")
    elif contents:
        with place.fetch(entry):
            pass


def _with_files(kinds: Iterable[AnyType]) -> Iterator[StoredType]:
    for kind in kinds:
        stored = kind.stored if isinstance(kind, AggregateType) else kind
        if isinstance(stored, StoredType):
            yield stored


def _pattern(template: str) -> re.Pattern[str]:
    """What the paths of a type look like; files of a user's own elsewhere in the folder are none of ours."""
    parts = [(re.escape(text), "" if field is None else "[^/]*") for text, field, *_ in Formatter().parse(template)]
    stem, dot, suffix = "".join(text + field for text, field in parts).rpartition("\\.")
    return re.compile(f"{stem}(~[^/]*)?{dot}{suffix}" if dot else f"{suffix}")


def _may_be_orphan(path: str) -> bool:
    return not path.startswith(_FOLDERS) and not path.startswith(_KEPT)


def _is_named(path: str, named: set[str]) -> bool:
    """Whether a path is a dataset, or lies in one that is a folder or in another repository."""
    return path in named or any(str(folder) in named for folder in PurePosixPath(path).parents)
