"""Making prepared files visible: exclusive creation, one registry transaction, then the old files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath

from apstream.errors import Conflict
from apstream.repo.dataset_types import data_id_text
from apstream.repo.entries import Entry, Input
from apstream.repo.place import Place

__all__ = ["Pending", "claim", "commit"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A dataset whose file is written but not yet visible."""

    entry: Entry
    temporary: Path
    shared: bool = False


def commit(place: Place, pending: Sequence[Pending], inputs: Sequence[Input], run: str) -> list[str]:
    """Make all pending datasets visible in one transaction; return their locations.

    A file is never changed once it is visible: what replaces a dataset gets a path of its own. So a process that
    is killed at any moment leaves either the old dataset or the new one, and at worst a file that no row names.

    Raises
    ------
    Conflict
        If a shared dataset exists and differs; nothing is stored.
    """
    locations, fresh = [], []
    known = [_recognised(place, one, inputs, run) for one in pending]  # refuses before any file is created
    for one, present in zip(pending, known, strict=True):
        if present is not None:
            locations.append(place.store.location(present.path))
            continue
        path = claim(place, one.entry.path, one.temporary, one.entry.checksum)
        fresh.append(replace(one.entry, path=path, run=run))
        locations.append(place.store.location(path))
    shared = {one.entry.type for one in pending if one.shared}
    replaced = place.registry.add(fresh, inputs)
    _restore_shared(place, replaced, fresh, shared)
    for old in replaced:
        place.store.remove(old.path)
    return locations


def claim(place: Place, path: str, source: Path, checksum: str, *, link: bool = False) -> str:
    """Create a file at a path that nobody else has, `path` itself if it is free; return the path taken."""
    create = place.store.link if link else place.store.create
    for attempt in count():
        taken = path if attempt == 0 else _beside(path, checksum, attempt)
        if create(taken, source):
            return taken
    raise AssertionError("unreachable")


def _beside(path: str, checksum: str, attempt: int) -> str:
    whole = PurePosixPath(path)
    stem, dot, suffixes = whole.name.partition(".")
    number = "" if attempt == 1 else f"-{attempt}"
    return str(whole.with_name(f"{stem}~{checksum[:8]}{number}{dot}{suffixes}"))


def _recognised(place: Place, one: Pending, inputs: Sequence[Input], run: str) -> Entry | None:
    """Return the entry that has the same content and history already, if there is; refuse another shared one."""
    present = place.registry.get(one.entry.type, one.entry.identity)
    if present is None:
        return None
    if present.checksum != one.entry.checksum:
        if one.shared:
            raise _unequal(place, present)
        return None
    if one.shared:
        return present
    same = present.run == run and place.registry.inputs(present.type, present.identity) == tuple(inputs)
    same = same and dict(present.extra) == dict(one.entry.extra) and place.store.exists(present.path)
    return present if same else None


def _restore_shared(place: Place, replaced: list[Entry], fresh: list[Entry], shared: set[str]) -> None:
    """Undo what replaced another shared dataset that was stored in the meantime."""
    for old in [entry for entry in replaced if entry.type in shared]:
        new = next(e for e in fresh if e.type == old.type and dict(e.identity) == dict(old.identity))
        if new.checksum == old.checksum:
            continue
        for mine in place.registry.add([old]):
            place.store.remove(mine.path)
        replaced.remove(old)
        raise _unequal(place, old)


def _unequal(place: Place, present: Entry) -> Conflict:
    return Conflict(
        f"another {present.type} with {data_id_text(present.identity)} is stored and shared",
        where=place.store.location(present.path),
        remedy="remove it, or store yours under another id",
    )
