"""The index of a repository: which datasets exist, where, and where on the sky."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from apstream.errors import DatabaseUnavailable
from apstream.model.products import SkyCircle
from apstream.model.wcs import separation

__all__ = ["Entry", "Registry"]

_METADATA = sa.MetaData()
_DATASETS = sa.Table(
    "datasets",
    _METADATA,
    sa.Column("type", sa.String(64), primary_key=True),
    sa.Column("data_id", sa.String(512), primary_key=True),
    sa.Column("visit", sa.BigInteger),
    sa.Column("detector", sa.Integer),
    sa.Column("band", sa.String(16)),
    sa.Column("path", sa.String(1024), nullable=False),
    sa.Column("ra", sa.Float),
    sa.Column("dec", sa.Float),
    sa.Column("radius", sa.Float),
    sa.Index("datasets_visit", "type", "visit", "detector"),
    sa.Index("datasets_band", "type", "band"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset of the registry; `path` is below the repository's root."""

    type: str
    data_id: Mapping[str, Any]
    path: str
    region: SkyCircle | None = None


class Registry:
    """The registry of one repository in SQLite.

    Raises
    ------
    DatabaseUnavailable
        By every method, if the file is locked too long, damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sa.event.listen(self._engine, "connect", _write_ahead)
        with self._errors():
            _METADATA.create_all(self._engine)

    def add(self, entry: Entry) -> None:
        """Add a dataset, replacing the row with the same type and data id."""
        region = entry.region
        row = {
            "type": entry.type,
            "data_id": _canonical(entry.data_id),
            "visit": entry.data_id.get("visit"),
            "detector": entry.data_id.get("detector"),
            "band": entry.data_id.get("band"),
            "path": entry.path,
            "ra": region.ra if region else None,
            "dec": region.dec if region else None,
            "radius": region.radius if region else None,
        }
        with self._errors(), self._engine.begin() as connection:
            connection.execute(sa.insert(_DATASETS).prefix_with("OR REPLACE"), row)

    def find(self, dataset_type: str, **known: Any) -> list[Entry]:
        """Return the datasets of a type whose data id agrees with `known`, in order of data id."""
        query = sa.select(_DATASETS).where(_DATASETS.c.type == dataset_type)
        for key in ("visit", "detector", "band"):
            if key in known:
                query = query.where(_DATASETS.c[key] == known[key])
        with self._errors(), self._engine.connect() as connection:
            entries = [_entry(row) for row in connection.execute(query)]
        chosen = [e for e in entries if all(e.data_id.get(k) == v for k, v in known.items())]
        return sorted(chosen, key=lambda e: (tuple(str(type(v)) for v in e.data_id.values()), _order(e)))

    def overlapping(self, dataset_type: str, region: SkyCircle, **known: Any) -> list[Entry]:
        """Return the datasets of a type whose circle meets `region`, nearest first."""
        placed = [(e, e.region) for e in self.find(dataset_type, **known) if e.region is not None]
        near = [
            (float(separation(region.ra, region.dec, circle.ra, circle.dec)), e)
            for e, circle in placed
            if separation(region.ra, region.dec, circle.ra, circle.dec) <= region.radius + circle.radius
        ]
        return [e for _, e in sorted(near, key=lambda pair: (pair[0], pair[1].path))]

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise DatabaseUnavailable(
                f"the registry does not answer: {error.orig}",
                where=str(self._path),
                remedy="check the disk and who else writes",
            ) from error


def _write_ahead(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _canonical(data_id: Mapping[str, Any]) -> str:
    return json.dumps(dict(sorted(data_id.items())))


def _entry(row: Any) -> Entry:
    region = SkyCircle(row.ra, row.dec, row.radius) if row.radius is not None else None
    return Entry(row.type, json.loads(row.data_id), row.path, region)


def _order(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry.data_id.values())
