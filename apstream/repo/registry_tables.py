"""The tables of the registry, and what stands in their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import hpgeom
import numpy as np
import sqlalchemy as sa

from apstream.model.products import SkyCircle
from apstream.repo.entries import Entry, Input, as_json, canonical
from apstream.repo.selection import NUMBER_KEYS, TEXT_KEYS, as_number

__all__ = [
    "DATASETS",
    "INPUTS",
    "METADATA",
    "NSIDE",
    "RUNS",
    "SCHEMA",
    "TYPES",
    "VERSION",
    "entry_of",
    "input_of",
    "input_rows",
    "rows_of",
]

VERSION = 1
NSIDE = 1 << 10  # 3.4 arcmin, far below a detector; what covers a circle is a few ranges in nested order

METADATA = sa.MetaData()
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts in a column called INTEGER only

SCHEMA = sa.Table("registry_schema", METADATA, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

#: A type of a repository is one number in the other tables: their indexes stay small.
TYPES = sa.Table(
    "registry_types",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.UniqueConstraint("repository", "name"),
)

DATASETS = sa.Table(
    "registry_datasets",
    METADATA,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("type", sa.BigInteger, nullable=False),
    sa.Column("key", sa.String, nullable=False),
    *(sa.Column(key, sa.BigInteger) for key in NUMBER_KEYS),
    *(sa.Column(key, sa.String) for key in TEXT_KEYS),
    sa.Column("extra", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("checksum", sa.String, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("ra", sa.Double),
    sa.Column("dec", sa.Double),
    sa.Column("radius", sa.Double),
    sa.Column("pixel", sa.BigInteger),
    sa.Column("valid_from", sa.Double),
    sa.Column("valid_to", sa.Double),
    sa.Column("run", sa.String, nullable=False),
    sa.UniqueConstraint("type", "key"),
    sa.Index("registry_visit", "type", "visit", "detector"),
    sa.Index("registry_day", "type", "day", "detector"),
    sa.Index("registry_tract", "type", "tract", "patch", "band"),
    sa.Index("registry_patch", "type", "patch"),
    sa.Index("registry_name", "type", "name"),
    sa.Index("registry_detector", "type", "detector", "band"),
    sa.Index("registry_band", "type", "band"),
    sa.Index("registry_pixel", "type", "pixel"),
    sa.Index("registry_radius", "type", "radius"),
)

INPUTS = sa.Table(
    "registry_inputs",
    METADATA,
    sa.Column("dataset", _ID, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("checksum", sa.String, nullable=False),
    sa.Column("root", sa.String, nullable=False),
    sa.Index("registry_users", "type", "key"),
)

RUNS = sa.Table(
    "registry_runs",
    METADATA,
    sa.Column("repository", sa.String, primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("record", sa.String, nullable=False),
)


def rows_of(entries: Mapping[tuple[str, str], Entry], types: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the rows of entries by type and canonical identity, `types` giving the number of each type."""
    pixels = _pixels([entry.region for entry in entries.values()])
    placed = zip(entries.items(), pixels, strict=True)
    return [_row(entry, key, types[type], pixel) for ((type, key), entry), pixel in placed]


def entry_of(row: Any, type: str) -> Entry:
    """Return the entry that stands in a row of `DATASETS`."""
    return Entry(
        type=type,
        identity=json.loads(row.key),
        path=row.path,
        extra=json.loads(row.extra),
        region=None if row.radius is None else SkyCircle(row.ra, row.dec, row.radius),
        checksum=row.checksum,
        size=row.size,
        valid=None if row.valid_from is None else (row.valid_from, row.valid_to),
        run=row.run,
    )


def input_of(row: Any) -> Input:
    """Return the input that stands in a row of `INPUTS`."""
    return Input(row.type, json.loads(row.key), row.checksum, row.root)


def input_rows(dataset: int, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """Return the rows of the inputs of a dataset."""
    return [
        {
            "dataset": dataset,
            "position": position,
            "type": made_from.type,
            "key": canonical(made_from.data_id),
            "checksum": made_from.checksum,
            "root": made_from.root,
        }
        for position, made_from in enumerate(inputs)
    ]


def _row(entry: Entry, key: str, type: int, pixel: int | None) -> dict[str, Any]:
    data_id, circle, valid = entry.data_id, entry.region, entry.valid
    return {
        "type": type,
        "key": key,
        **{name: as_number(name, data_id.get(name)) for name in NUMBER_KEYS},
        **{name: None if data_id.get(name) is None else str(data_id[name]) for name in TEXT_KEYS},
        "extra": as_json(entry.extra),
        "path": entry.path,
        "checksum": entry.checksum,
        "size": int(entry.size),
        "ra": None if circle is None else float(circle.ra),
        "dec": None if circle is None else float(circle.dec),
        "radius": None if circle is None else float(circle.radius),
        "pixel": pixel,
        "valid_from": None if valid is None else float(valid[0]),
        "valid_to": None if valid is None else float(valid[1]),
        "run": entry.run,
    }


def _pixels(circles: Sequence[SkyCircle | None]) -> list[int | None]:
    placed = [circle for circle in circles if circle is not None]
    ra, dec = (np.array([getattr(circle, name) for circle in placed], float) for name in ("ra", "dec"))
    found = iter(np.atleast_1d(hpgeom.angle_to_pixel(NSIDE, ra % 360, dec)).tolist() if placed else [])
    return [None if circle is None else int(next(found)) for circle in circles]
