"""What the registry knows of a dataset, and the one way to write a data id down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apstream.model.products import SkyCircle
from apstream.repo.selection import as_number

__all__ = ["Entry", "Input", "as_json", "canonical", "order_of"]

_FIRST = ("visit", "detector", "tract", "patch", "band", "day", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One dataset of a repository.

    Parameters
    ----------
    type
        Name of the dataset type.
    identity
        The key fields of the type, no more and no less. Numbers written as text (``"007"`` for a visit) are stored as
        numbers.
    path
        Where the file lies, below the repository's root.
    extra
        What else is known, by data-id key.
    region
        Where on the sky, None if nowhere.
    checksum, size
        SHA-256 in hexadecimal and bytes of the file; empty and -1 if not known.
    valid
        First and last moment of validity, MJD TAI, half open; None: always.
    run
        The run that made it.
    root
        The repository's root; the registry does not store it.
    """

    type: str
    identity: Mapping[str, Any]
    path: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    region: SkyCircle | None = None
    checksum: str = ""
    size: int = -1
    valid: tuple[float, float] | None = None
    run: str = ""
    root: str = ""

    @property
    def data_id(self) -> dict[str, Any]:
        """The key fields and what else is known."""
        return {**self.identity, **self.extra}


@dataclass(frozen=True, slots=True)
class Input:
    """A dataset that another one was made from; `data_id` is its identity, `root` where it was read."""

    type: str
    data_id: Mapping[str, Any]
    checksum: str
    root: str = ""


def canonical(identity: Mapping[str, Any]) -> str:
    """Return the one JSON text of an identity."""
    return as_json(_in_order(identity))


def as_json(value: Mapping[str, Any]) -> str:
    """Return JSON text; values of numpy become plain ones, what JSON does not know becomes text."""
    return _ENCODER.encode(value)


def order_of(entry: Entry) -> tuple[tuple[int, Any], ...]:
    """Return what sorts the entries of a type by data id, numbers as numbers."""
    return tuple((0, value) if isinstance(value, int | float) else (1, str(value)) for value in entry.identity.values())


def _in_order(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with its keys in the order of the house and numbers as numbers."""
    keys = [key for key in _FIRST if key in identity] + sorted(key for key in identity if key not in _FIRST)
    numbers = {key: as_number(key, identity[key]) for key in keys}
    return {key: identity[key] if numbers[key] is None else numbers[key] for key in keys}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)  # json.dumps would make one for every text
