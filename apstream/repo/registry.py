"""The registry of a repository: which datasets exist, where their files lie, where on the sky, made from what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from apstream.model.products import SkyCircle
from apstream.model.wcs import separation
from apstream.repo.entries import Entry, Input, as_json, canonical, order_of
from apstream.repo.registry_engine import Database
from apstream.repo.registry_query import covering, lookup
from apstream.repo.registry_tables import DATASETS, INPUTS, RUNS, TYPES, entry_of, input_of, rows_of
from apstream.repo.registry_write import insert_absent, store, superseded, take
from apstream.repo.selection import Selection

__all__ = ["Entry", "Input", "Registry", "nearest_first"]

_PAGE = 10_000


class Registry:
    """The registry of one repository; it may be shared by threads, carried over a fork and pickled.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql://...``; the tables are made if there are none.
    repository
        Which repository of the database; several may share a server.
    lock_timeout_s
        How long the lock of another writer is waited for.

    Raises
    ------
    BadSettings
        If the URL is none, or the server refuses us.
    SchemaMismatch
        If the tables are of another version.
    DatabaseUnavailable
        By every method, if the database is locked too long, damaged, cannot be written or does not answer.
    """

    def __init__(self, url: str, repository: str = "", *, lock_timeout_s: float = 60.0) -> None:
        self.repository = repository
        self._database = Database(url, lock_timeout_s=lock_timeout_s)
        self._sqlite = self._database.file is not None
        self._types: dict[str, int] = {}
        self._database.prepare()

    def add(self, entries: Sequence[Entry], inputs: Sequence[Input] = ()) -> list[Entry]:
        """Add datasets in one transaction; one with the type and identity of another replaces it.

        Parameters
        ----------
        entries
            The datasets. Of two with the same type and identity the later one stays.
        inputs
            What each of them was made from; these replace the inputs known before.

        Returns
        -------
        replaced
            What is not there any more: each row is returned to exactly one writer, who may remove its file. A row
            that was replaced by one with the same path is not returned.
        """
        latest: dict[tuple[str, str], Entry] = {}
        replaced: list[Entry] = []
        for entry in entries:
            place = entry.type, canonical(entry.identity)
            replaced += superseded(latest.get(place), entry.path)
            latest[place] = entry
        if not latest:
            return []
        types = {type: self._number(type, create=True) or 0 for type in {entry.type for entry in latest.values()}}
        rows = rows_of(latest, types)
        names = {number: type for type, number in types.items()}
        return replaced + self._database.write(lambda connection: store(connection, rows, names, inputs))

    def get(self, type: str, identity: Mapping[str, Any]) -> Entry | None:
        """Return the dataset with exactly this identity, None if there is none."""
        number = self._number(type)
        if number is None:
            return None
        query = sa.select(DATASETS).where(DATASETS.c.type == number, DATASETS.c.key == canonical(identity))
        row = self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else entry_of(row, type)

    def find(self, type: str, selection: Selection | None = None, /, **known: Any) -> list[Entry]:
        """Return the datasets of a type that are selected and agree with `known`, in order of data id.

        A value of None is not known. Values compare as in a selection.
        """
        wanted = _wanted(selection, known)
        return sorted(self._select(type, wanted), key=order_of)

    def overlapping(self, type: str, region: SkyCircle, **known: Any) -> list[Entry]:
        """Return the datasets of a type whose circle meets `region`, nearest first."""
        number = self._number(type)
        if number is None:
            return []
        near = covering(region, self._largest_radius(number))
        return nearest_first(self._select(type, _wanted(None, known), near=near), region)

    def valid_at(self, type: str, mjd: float, **known: Any) -> list[Entry]:
        """Return the datasets of a type that are valid at a moment (MJD TAI), in order of data id.

        A dataset without limits is valid always.
        """
        since, until = DATASETS.c.valid_from, DATASETS.c.valid_to
        holds = sa.or_(since.is_(None), sa.and_(since <= float(mjd), until > float(mjd)))
        return sorted(self._select(type, _wanted(None, known), also=[holds]), key=order_of)

    def inputs(self, type: str, identity: Mapping[str, Any]) -> tuple[Input, ...]:
        """Return what a dataset was made from, in the order it was given."""
        query = (
            sa.select(INPUTS)
            .join(DATASETS, DATASETS.c.id == INPUTS.c.dataset)
            .where(DATASETS.c.type == self._number(type), DATASETS.c.key == canonical(identity))
            .order_by(INPUTS.c.position)
        )
        return tuple(input_of(row) for row in self._all(query))

    def users(self, type: str, identity: Mapping[str, Any]) -> list[Entry]:
        """Return the datasets of this repository that were made from one, in order of type and data id."""
        mine = sa.select(TYPES.c.id, TYPES.c.name).where(TYPES.c.repository == self.repository)
        names = {row.id: row.name for row in self._all(mine)}
        made = sa.select(INPUTS.c.dataset).where(INPUTS.c.type == type, INPUTS.c.key == canonical(identity))
        rows = self._all(sa.select(DATASETS).where(DATASETS.c.id.in_(made)))
        entries = [entry_of(row, names[row.type]) for row in rows if row.type in names]
        return sorted(entries, key=lambda entry: (entry.type, order_of(entry)))

    def remove(self, type: str, identity: Mapping[str, Any]) -> Entry | None:
        """Remove a dataset and return it, None if there was none; one remover gets it."""
        number = self._number(type)
        if number is None:
            return None
        key = canonical(identity)
        row = self._database.write(lambda connection: take(connection, number, key))
        return None if row is None else entry_of(row, type)

    def types(self) -> dict[str, int]:
        """Return how many datasets of each type there are, by name."""
        query = (
            sa.select(TYPES.c.name, sa.func.count())
            .join(DATASETS, DATASETS.c.type == TYPES.c.id)
            .where(TYPES.c.repository == self.repository)
            .group_by(TYPES.c.name)
            .order_by(TYPES.c.name)
        )
        rows = self._all(query)
        return {str(name): int(count) for name, count in rows}

    def add_run(self, id: str, record: Mapping[str, Any]) -> None:
        """Record a run unless there is a record of it."""
        row = {"repository": self.repository, "id": id, "record": as_json(record)}
        self._database.write(lambda connection: insert_absent(connection, RUNS, row))

    def run(self, id: str) -> Mapping[str, Any] | None:
        """Return the record of a run, None if there is none."""
        query = sa.select(RUNS.c.record).where(RUNS.c.repository == self.repository, RUNS.c.id == id)
        text = self._database.read(lambda connection: connection.scalar(query))
        return None if text is None else dict(json.loads(text))

    def has_products(self, run: str) -> bool:
        """Whether a dataset was stored under a run."""
        mine = sa.select(DATASETS.c.id).join(TYPES, TYPES.c.id == DATASETS.c.type)
        query = mine.where(TYPES.c.repository == self.repository, DATASETS.c.run == run).limit(1)
        return self._database.read(lambda connection: connection.scalar(query)) is not None

    def paths(self) -> Iterator[str]:
        """Return the paths of all datasets; what is added meanwhile may be missing."""
        columns = sa.select(DATASETS.c.id, DATASETS.c.path).join(TYPES, TYPES.c.id == DATASETS.c.type)
        mine = columns.where(TYPES.c.repository == self.repository).order_by(DATASETS.c.id).limit(_PAGE)
        last = -1
        while page := self._all(mine.where(DATASETS.c.id > last)):
            yield from (row.path for row in page)
            last = page[-1].id

    def close(self) -> None:
        """Close the connections of this process."""
        self._database.close()

    def _all(self, query: sa.Select[Any]) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(query).all())

    def _select(self, type: str, wanted: Sequence[Selection], **conditions: Sequence[Any]) -> list[Entry]:
        number = self._number(type)
        if number is None:
            return []
        entries = [entry_of(row, type) for row in self._all(lookup(number, wanted, sqlite=self._sqlite, **conditions))]
        return [entry for entry in entries if all(selection.matches(entry.data_id) for selection in wanted)]

    def _largest_radius(self, number: int) -> float:
        radius = DATASETS.c.radius
        query = sa.select(radius).where(DATASETS.c.type == number, radius.is_not(None)).order_by(radius.desc()).limit(1)
        return float(self._database.read(lambda connection: connection.scalar(query)) or 0.0)

    def _number(self, type: str, *, create: bool = False) -> int | None:
        """Return the number of a type; it never changes, so it is kept."""
        if type in self._types:
            return self._types[type]
        query = sa.select(TYPES.c.id).where(TYPES.c.repository == self.repository, TYPES.c.name == type)
        number = self._database.read(lambda connection: connection.scalar(query))
        if number is None and create:
            row = {"repository": self.repository, "name": type}
            self._database.write(lambda connection: insert_absent(connection, TYPES, row))
            number = self._database.read(lambda connection: connection.scalar(query))
        if number is not None:
            self._types[type] = int(number)
        return number


def _wanted(selection: Selection | None, known: Mapping[str, Any]) -> list[Selection]:
    return [wanted for wanted in (selection, Selection.exactly(known)) if wanted]


def nearest_first(entries: Sequence[Entry], region: SkyCircle) -> list[Entry]:
    """Return those of the entries whose circle meets `region`, nearest first."""
    placed = [(entry, entry.region) for entry in entries if entry.region is not None]
    ra, dec, radius = (np.array([getattr(c, name) for _, c in placed], float) for name in ("ra", "dec", "radius"))
    apart = separation(region.ra, region.dec, ra, dec)
    near = [(float(apart[i]), placed[i][0]) for i in np.flatnonzero(apart <= region.radius + radius)]
    return [entry for _, entry in sorted(near, key=lambda pair: (pair[0], pair[1].path))]
