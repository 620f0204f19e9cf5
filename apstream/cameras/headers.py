"""Look values up in FITS headers (or dicts); a missing one is a `BadHeader` that names keyword and remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from astropy.io.fits.card import Undefined

from apstream.cameras.schema import FromHeader
from apstream.errors import BadHeader

__all__ = ["Header", "angle_degrees", "find", "header_shape", "number", "text"]

Header = Mapping[str, Any]
_REMEDY = "add the keyword, or change the camera file or its options"


def find(header: Header, spec: FromHeader) -> Any:
    """Return the first usable value of `spec`, its default, or None."""
    for key in spec.keyword:
        value = header.get(key)
        if value is None or isinstance(value, Undefined) or (isinstance(value, str) and not value.strip()):
            continue
        if value in spec.sentinels or str(value).strip() in {str(s) for s in spec.sentinels}:
            continue
        return spec.map.get(str(value).strip(), value) if spec.map else value
    return spec.default


def number(header: Header, spec: float | FromHeader, *, what: str, where: str = "") -> float:
    """Return a number; BadHeader if it is missing or none."""
    if not isinstance(spec, FromHeader):
        return float(spec)
    value = find(header, spec)
    if value is None:
        raise BadHeader(f"no keyword {' or '.join(spec.keyword)} for the {what}", where=where, remedy=_REMEDY)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadHeader(
            f"{spec.keyword[0]} = {value!r} is no number for the {what}", where=where, remedy=_REMEDY
        ) from None


def text(header: Header, spec: str | FromHeader, *, what: str, where: str = "") -> str:
    """Return a text; BadHeader if it is missing."""
    if not isinstance(spec, FromHeader):
        return spec
    value = find(header, spec)
    if value is None:
        raise BadHeader(f"no keyword {' or '.join(spec.keyword)} for the {what}", where=where, remedy=_REMEDY)
    return str(value).strip()


def angle_degrees(value: Any, unit: str) -> float:
    """Read an angle: sexagesimal text or a number; `unit` is hour, degree or auto; ValueError if it is none.

    With ``auto`` sexagesimal text counts hours and a plain number degrees.
    """
    from astropy import units
    from astropy.coordinates import Angle

    sexagesimal = isinstance(value, str) and bool(re.search(r"[:hd\s]", value.strip()))
    if not sexagesimal:
        return float(value) * (15.0 if unit == "hour" else 1.0)
    hours = unit in ("hour", "auto")
    return float(Angle(value.strip(), unit=units.hourangle if hours else units.deg).deg)


def header_shape(header: Header) -> tuple[int, int] | None:
    """Return (rows, columns) of the image a header describes, compressed or not; None if it does not say."""
    prefix = "Z" if "ZNAXIS1" in header else ""
    try:
        return int(header[f"{prefix}NAXIS2"]), int(header[f"{prefix}NAXIS1"])
    except (KeyError, TypeError, ValueError):
        return None
