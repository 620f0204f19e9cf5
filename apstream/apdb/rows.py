"""Rows of the registry in and out of the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from apstream.apdb.tables import TABLE_OF
from apstream.arrays.types import Records
from apstream.errors import UnfitImage
from apstream.model.columns import TableSpec

__all__ = ["insert_rows", "require_complete", "select_rows"]


def require_complete(spec: TableSpec, rows: Records) -> None:
    """Raise UnfitImage if a column that may not be null is not finite somewhere."""
    for column in spec.columns:
        if column.kind == "f" and not column.nullable and not np.isfinite(rows[column.name]).all():
            raise UnfitImage(
                f"rows of {spec.name} have no {column.name}",
                remedy="an APDB needs a WCS and complete measurements",
            )


async def insert_rows(
    connection: AsyncConnection, spec: TableSpec, rows: Records, extra: Mapping[str, Sequence[Any]]
) -> None:
    """Insert rows with values for the columns that only the database has.

    One prepared statement and a list of tuples: SQLAlchemy would spend most of the time on single values.
    """
    if len(rows) == 0:
        return
    columns = {**spec.columns_of(rows), **extra}
    statement = sa.insert(TABLE_OF[spec.name]).values(dict.fromkeys(columns))
    compiled = statement.compile(dialect=connection.dialect)
    order = compiled.positiontup or list(columns)
    await connection.exec_driver_sql(str(compiled), list(zip(*(columns[name] for name in order), strict=True)))


async def select_rows(connection: AsyncConnection, spec: TableSpec, *where: sa.ColumnElement[bool]) -> Records:
    """Return the rows of a table that fulfil all conditions, ordered by its key."""
    table = TABLE_OF[spec.name]
    statement = sa.select(*(table.c[name] for name in spec.names)).where(*where)
    found = (await connection.execute(statement)).all()
    return _records(spec, found)


def _records(spec: TableSpec, found: Sequence[Iterable[Any]]) -> Records:
    if not found:
        return spec.empty(0)
    rows = spec.from_columns(dict(zip(spec.names, zip(*found, strict=True), strict=True)), len(found))
    return rows[np.argsort(rows[spec.key[0]], kind="stable")]
