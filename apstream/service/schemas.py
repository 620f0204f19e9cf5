"""The columns of all tables that a run writes, known before there are any data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from apstream.model.columns import TABLES
from apstream.model.sources import INSTRUMENTAL_SOURCE, SOURCE
from apstream.model.tablespec import Column, TableSpec

__all__ = ["schema_lines", "schema_record", "schema_tables"]

_WORDS = {"f4": "float", "f8": "double", "i2": "short", "i4": "int", "i8": "long", "b1": "boolean"}


def schema_tables() -> tuple[TableSpec, ...]:
    """Return the tables: the source lists of an image, then those of the APDB and of alerts."""
    return (INSTRUMENTAL_SOURCE, SOURCE, *TABLES.values())


def schema_record() -> dict[str, dict[str, str]]:
    """Return ``{table: {column: "type unit"}}``, what the record of a run keeps."""
    return {table.name: {column.name: _kind(column) for column in table.columns} for table in schema_tables()}


def schema_lines() -> Iterator[str]:
    """Yield the tables as text: name, type, unit and meaning of each column."""
    for table in schema_tables():
        yield f"{table.name}: {table.doc}"
        for column in table.columns:
            kind = np.dtype(column.dtype).str[1:]
            yield f"  {column.name:30} {_WORDS.get(kind, f'text {kind[1:]}'):8} {column.unit or '-':14} {column.doc}"
        yield ""


def _kind(column: Column) -> str:
    return f"{np.dtype(column.dtype).str[1:]} {column.unit}".strip()
