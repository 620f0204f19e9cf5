"""Datasets for people: a description in words, and files outside the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from apstream.errors import BadSettings
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.registry import FORMATS

__all__ = ["describe", "export"]

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


def export(value: Any, path: Path) -> None:
    """Write a dataset to a file in the format that holds its class.

    Raises
    ------
    BadSettings
        If no format does.
    """
    for storage in FORMATS.values():
        if storage.type not in (object, Path) and isinstance(value, storage.type):
            with atomic_path(path) as temporary:
                storage.write(temporary, value)
            return
    raise BadSettings(
        f"no storage format holds a {type(value).__name__}", where=str(path), remedy="read it without --out"
    )


def _lines(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"  {name}: {describe(value).replace(chr(10), chr(10) + '  ')}" for name, value in fields.items())
