"""How a table is described: columns with wire name, type, unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from apstream.arrays.types import BoolArray, Records

__all__ = ["Column", "TableSpec", "null_value"]

_KINDS = "fiubU"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table and, under the same name, one field of an alert.

    Parameters
    ----------
    name
        Name on the wire and in the database, camelCase.
    dtype
        numpy type: ``f4 f8 i2 i4 i8 ? U<n>``.
    unit
        Unit in FITS style; empty where there is none.
    doc
        What the value means, one sentence.
    nullable
        Whether null is allowed outside numpy. In arrays null is NaN (floats), 0 (integers) or an empty
        string; a boolean array has no null, so an unknown flag is False.
    default
        Value in an empty row; None stands for null, or zero where null is not allowed.
    """

    name: str
    dtype: str
    unit: str
    doc: str
    nullable: bool = True
    default: float | int | bool | str | None = None

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in _KINDS:
            raise ValueError(f"column {self.name}: type {self.dtype} has no place in a table")

    @property
    def kind(self) -> str:
        """Kind of the numpy type: f, i, b or U."""
        return np.dtype(self.dtype).kind

    @property
    def empty(self) -> float | int | bool | str:
        """Value of the column in an empty row."""
        return null_value(self.kind) if self.default is None else self.default


def null_value(kind: str) -> float | int | bool | str:
    """Return what stands for null in an array of this kind."""
    values: dict[str, float | int | bool | str] = {"f": float("nan"), "i": 0, "u": 0, "b": False, "U": ""}
    return values[kind]


@dataclass(frozen=True, eq=False)
class TableSpec:
    """A table: its columns in order and the columns of its primary key."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.columns):
            raise ValueError(f"table {self.name} has a column twice")
        missing = [name for name in self.key if name not in self.names]
        if missing:
            raise ValueError(f"table {self.name}: key columns {missing} do not exist")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Structured numpy type of a row, packed."""
        return np.dtype([(column.name, column.dtype) for column in self.columns])

    def __getitem__(self, name: str) -> Column:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> Mapping[str, Column]:
        return {column.name: column for column in self.columns}

    def empty(self, n: int) -> Records:
        """Return `n` rows with every column at its empty value."""
        rows = np.zeros(n, self.dtype)
        for column in self.columns:
            if column.kind == "f" or column.default is not None:
                rows[column.name] = column.empty
        return rows

    def require(self, rows: Records) -> Records:
        """Return `rows` unchanged if they are rows of this table; ValueError otherwise."""
        if rows.dtype != self.dtype or rows.ndim != 1:
            raise ValueError(f"rows are not of table {self.name}")
        return rows

    def nulls(self, rows: Records, name: str) -> BoolArray:
        """Tell which values of a column stand for null."""
        column, values = self[name], rows[name]
        if not column.nullable or column.kind == "b":
            return np.zeros(len(rows), bool)
        return np.asarray(np.isnan(values) if column.kind == "f" else values == null_value(column.kind))

    def columns_of(self, rows: Records) -> dict[str, list[Any]]:
        """Return the rows as lists of plain Python values by column, None for null."""
        self.require(rows)
        return {column.name: self._plain(rows, column) for column in self.columns}

    def from_columns(self, values: Mapping[str, Iterable[Any]], n: int) -> Records:
        """Return rows from columns of plain values; absent columns stay empty, None becomes null."""
        rows = self.empty(n)
        for name, column_values in values.items():
            if name in self:
                rows[name] = _filled(list(column_values), self[name])
        return rows

    def _plain(self, rows: Records, column: Column) -> list[Any]:
        values, null = rows[column.name], self.nulls(rows, column.name)
        if not null.any():
            return list(values.tolist())
        plain = values.astype(object)
        plain[null] = None
        return list(plain.tolist())


def _filled(values: list[Any], column: Column) -> np.ndarray[Any, Any]:
    null = null_value(column.kind)
    if column.kind == "f":  # numpy takes None for NaN
        return np.array(values, column.dtype)
    return np.array([null if value is None else value for value in values], column.dtype)
