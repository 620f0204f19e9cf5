"""The selection grammar of the command line: ``visit=1^2 detector=3^6..12 filter=g``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from apstream.errors import BadSettings

__all__ = ["matches", "parse_selection"]

_RANGE = re.compile(r"^(\d+)\.\.(\d+)(?::(\d+))?$")
_ALIASES = {"filter": "band", "ccd": "detector", "ccdnum": "detector"}


def parse_selection(words: Sequence[str]) -> dict[str, frozenset[str]]:
    """Parse selection words into the allowed values of each key.

    ``^`` separates alternatives, ``a..b`` is an inclusive range, ``a..b:s`` one with a step. An empty
    selection allows everything.

    Raises
    ------
    BadSettings
        If a word is not ``key=value``.
    """
    allowed: dict[str, frozenset[str]] = {}
    for word in " ".join(words).split():
        key, equals, text = word.partition("=")
        if not (key and equals and text):
            raise BadSettings(f"{word!r} is not key=value", where="--id", remedy="write e.g. visit=1^2 detector=3..6")
        values = [value for part in text.split("^") for value in _expand(part)]
        key = _ALIASES.get(key, key)
        allowed[key] = allowed.get(key, frozenset()) | frozenset(values)
    return allowed


def matches(data_id: Mapping[str, Any], allowed: Mapping[str, frozenset[str]]) -> bool:
    """Tell whether a data id is selected; a key that the data id lacks does not match."""
    return all(key in data_id and str(data_id[key]) in values for key, values in allowed.items())


def _expand(part: str) -> list[str]:
    found = _RANGE.match(part)
    if not found:
        return [part]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if last < first or step < 1 or (last - first) // step > 10_000_000:
        raise BadSettings(f"impossible range {part!r}", where="--id", remedy="write first..last")
    return [str(value) for value in range(first, last + 1, step)]
