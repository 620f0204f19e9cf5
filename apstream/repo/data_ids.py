"""Data ids: a camera's own words become ours, numbers become numbers, contradictions are refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from apstream.errors import BadSettings, DatasetNotFound

__all__ = ["NOT_KEPT", "check_keys", "normal_data_id", "parse_date", "since_text"]

_INTEGERS = {"visit", "detector", "tract", "patch", "day"}
#: Smaller numbers are years or mistakes, not MJD.
_FIRST_MJD = 15000.0

#: Words of a data id that say how to find or store a dataset, not which one it is.
NOT_KEPT = ("suffix", "mjd", "valid", "region")
#: Keys that any type may be asked with, beside its own.
_ALWAYS = {"visit", "detector", "band", "day", "tract", "patch", "mjd", "suffix", "observation_type"}


def normal_data_id(data_id: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return a data id in our words (visit, detector, band, day, ...) with integers as integers.

    Raises
    ------
    DatasetNotFound
        If two words for one key contradict each other, or a number is none.
    """
    normal: dict[str, Any] = {}
    for word, value in data_id.items():
        key = aliases.get(word, word)
        value = _number(word, value) if key in _INTEGERS else value
        if key in normal and normal[key] != value:
            raise DatasetNotFound(
                f"conflicting data id: {key}={normal[key]} and {word}={value}", remedy="give one of them"
            )
        normal[key] = value
    return normal


def check_keys(data_id: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuse keys that neither `known` nor any data id has; DatasetNotFound names the nearest."""
    names = sorted({*known, *_ALWAYS})
    for key in data_id:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=3) or sorted(known)
            raise DatasetNotFound(f"{what} has no key {key!r}", remedy=f"did you mean {', '.join(near)}?")


def parse_date(text: str | float) -> float:
    """Return MJD TAI of an ISO date or date-time in UTC; numbers are MJD TAI already.

    Raises
    ------
    BadSettings
        If it is neither.
    """
    from astropy.time import Time

    try:
        number = float(text)
    except ValueError:
        number = -math.inf
    if number > _FIRST_MJD:
        return number
    try:
        return float(Time(str(text), scale="utc").tai.mjd)
    except ValueError as error:
        raise BadSettings(f"{text!r} is no date", remedy="write 2025-01-31 or an MJD (TAI)") from error


def since_text(begin_mjd: float) -> str:
    """Return the begin of a validity span as users read it: a date, a date-time, or ``always``."""
    from astropy.time import Time

    if begin_mjd == float("-inf"):
        return "always"
    utc = Time(begin_mjd, format="mjd", scale="tai").utc.to_datetime(timezone=UTC)
    utc = datetime.min.replace(tzinfo=UTC) if utc is None else utc + timedelta(milliseconds=0.5)
    return utc.strftime("%Y-%m-%d") if _at_midnight(utc) else utc.strftime("%Y-%m-%dT%H%M%S")


def _at_midnight(moment: datetime) -> bool:
    return (moment.hour, moment.minute, moment.second) == (0, 0, 0)


def _number(word: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise DatasetNotFound(f"{word}={value} is no whole number", remedy=f"write {word}=NUMBER") from None
