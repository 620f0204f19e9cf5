"""Datasets for people: a description in words, and files outside the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apstream.errors import BadSettings
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.parquet import read_table, write_table
from apstream.repo.formats.registry import FORMATS, Format
from apstream.repo.formats.tables import TABLE_WRITERS

__all__ = ["describe", "export"]

#: The ending of tables in a repository.
_TABLE = ".parquet"
_PLAIN = (str, int, float, bool, type(None))


def describe(value: Any) -> str:
    """Return what a dataset is, a line a field."""
    if isinstance(value, _PLAIN):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype if value.dtype.names is None else list(value.dtype.names)}"
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__name__}\n" + _lines(fields)
    if isinstance(value, Mapping):
        return _lines(value)
    return f"{type(value).__name__}\n{value}"


def export(value: Any, path: Path, storage: Format | None = None) -> None:
    """Write a dataset to a file of the form that its ending names.

    Parameters
    ----------
    storage
        The format that a repository keeps it in; None: one that holds its class.

    Raises
    ------
    BadSettings
        If no format holds it, or none with this ending; names those that there are.
    """
    known = ([storage] if storage is not None else []) + _holders(value)
    if not known:
        remedy = "read it without --out"
        raise BadSettings(f"no storage format holds a {type(value).__name__}", where=str(path), remedy=remedy)
    ending = path.suffix.lower()
    chosen = next((one for one in known if ending in _endings(one) or not one.endings), None)
    if chosen is None:
        endings = dict.fromkeys(ending for one in known for ending in _endings(one))
        raise BadSettings(
            f"a {_kind(value)} cannot be written to a file ending in {ending or 'nothing'!r}",
            where=str(path),
            remedy=f"end its name in {', '.join(endings)}",
        )
    try:
        with atomic_path(path) as temporary:
            _write(value, temporary, chosen, ending)
    except (TypeError, pa.ArrowException) as error:
        raise BadSettings(str(error), where=str(path), remedy="read it from Python") from error


def _write(value: Any, path: Path, storage: Format, ending: str) -> None:
    storage.write(path, value)
    if ending != _TABLE and _TABLE in storage.endings:  # the table as a repository keeps it, in another form
        TABLE_WRITERS[ending](path, read_table(path))


def _endings(storage: Format) -> tuple[str, ...]:
    return tuple(TABLE_WRITERS) if _TABLE in storage.endings else storage.endings


def _holders(value: Any) -> list[Format]:
    """Return the formats that hold a value which was not stored on its own."""
    if isinstance(value, np.ndarray):
        rows = Format(type=np.ndarray, read=read_table, write=_write_rows, endings=(_TABLE,))
        names = {(2, np.dtype(np.int32)): "mask", (3, np.dtype(np.uint32)): "bits"}
        return [rows if value.dtype.names else FORMATS[names.get((value.ndim, value.dtype), "array")]]
    formats = (one for one in FORMATS.values() if one.type not in (object, Path))
    return [one for one in formats if isinstance(value, one.type)]


def _write_rows(path: Path, rows: Any) -> None:
    write_table(path, pa.table({name: rows[name] for name in rows.dtype.names}))


def _kind(value: Any) -> str:
    return "table" if isinstance(value, np.ndarray) and value.dtype.names else type(value).__name__


def _lines(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"  {name}:{_after(value)}" for name, value in fields.items())


def _after(value: Any) -> str:
    text = describe(value).replace("\n", "\n  ")
    return f"\n  {text}" if isinstance(value, Mapping) and value else f" {text}"
