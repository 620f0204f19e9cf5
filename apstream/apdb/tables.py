"""The tables of the APDB, generated from the column registry, and the few that are the service's own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from apstream.model.columns import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    SS_OBJECT,
    SS_SOURCE,
    Column,
    TableSpec,
)

__all__ = ["LEDGER", "METADATA_TABLE", "OUTBOX", "SCHEMA_VERSION", "TABLE_OF", "metadata"]

#: Number of the newest migration; a database of another version is not opened.
SCHEMA_VERSION = "0001"

metadata = sa.MetaData()

_TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "f4": sa.REAL,
    "f8": sa.Double,
    "i2": sa.SmallInteger,
    "i4": sa.Integer,
    "i8": sa.BigInteger,
    "?": sa.Boolean,
}


def _column(column: Column, key: tuple[str, ...]) -> sa.Column[object]:
    text = column.kind == "U"
    kind = sa.String(int(column.dtype[1:])) if text else _TYPES[column.dtype]()
    primary = column.name in key
    return sa.Column(
        column.name, kind, primary_key=primary, nullable=column.nullable and not primary, autoincrement=False
    )


def _table(spec: TableSpec, *extra: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(spec.name, metadata, *(_column(column, spec.key) for column in spec.columns), *extra)


def _pixel() -> sa.Column[int]:
    return sa.Column("pixelId", sa.BigInteger, nullable=False)


def _exposure_key() -> tuple[sa.Column[str], sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("instrument", sa.String(64), nullable=False),
        sa.Column("visit", sa.BigInteger, nullable=False),
        sa.Column("detector", sa.SmallInteger, nullable=False),
    )


_object = _table(DIA_OBJECT, _pixel(), sa.Column("validityEndMjdTai", sa.Double, nullable=True))
_latest = _object.c.validityEndMjdTai.is_(None)
_LATEST: dict[str, Any] = {"sqlite_where": _latest, "postgresql_where": _latest}
sa.Index("DiaObject_latest", _object.c.diaObjectId, unique=True, **_LATEST)  # one valid version per object
sa.Index("DiaObject_latest_pixel", _object.c.pixelId, **_LATEST)

_source = _table(DIA_SOURCE, _pixel())
sa.Index("DiaSource_object", _source.c.diaObjectId, _source.c.midpointMjdTai)
sa.Index("DiaSource_pixel", _source.c.pixelId)

_forced = _table(DIA_FORCED_SOURCE)
sa.Index("DiaForcedSource_object", _forced.c.diaObjectId, _forced.c.midpointMjdTai)

#: Tables of the registry by name.
TABLE_OF = {
    DIA_OBJECT.name: _object,
    DIA_SOURCE.name: _source,
    DIA_FORCED_SOURCE.name: _forced,
    SS_OBJECT.name: _table(SS_OBJECT),
    SS_SOURCE.name: _table(SS_SOURCE),
}

#: How each visit and detector ended; its key makes a commit happen once.
LEDGER = sa.Table(
    "Ledger",
    metadata,
    *_exposure_key(),
    sa.Column("outcome", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("nSources", sa.Integer, nullable=False),
    sa.Column("nAlerts", sa.Integer, nullable=False),
    sa.Column("recordedAt", sa.DateTime, nullable=False, server_default=sa.func.now()),
    sa.PrimaryKeyConstraint("instrument", "visit", "detector"),
)

#: Alert files that are committed, and whether all their alerts were acknowledged.
OUTBOX = sa.Table(
    "Outbox",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    *_exposure_key(),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.Column("nAlerts", sa.Integer, nullable=False),
    sa.Column("sent", sa.Boolean, nullable=False),
    sa.UniqueConstraint("instrument", "visit", "detector", name="Outbox_exposure"),
)
_unsent = sa.not_(OUTBOX.c.sent)
sa.Index("Outbox_unsent", OUTBOX.c.number, sqlite_where=_unsent, postgresql_where=_unsent)

#: What a reader must know of this database, such as its pixelization.
METADATA_TABLE = sa.Table(
    "Metadata",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
