"""The time of an exposure: from header strings to the MJD TAI of its middle."""

from __future__ import annotations

import math
import re

from apstream.cameras.headers import Header, text
from apstream.cameras.schema import TimeSpec
from apstream.errors import BadHeader

__all__ = ["mid_mjd_tai"]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ZONE = re.compile(r"(?<=\d)([+-])(\d\d):?(\d\d)$")


def mid_mjd_tai(header: Header, spec: TimeSpec, exposure_s: float, *, where: str = "") -> float:
    """Return the MJD TAI of the middle of the exposure.

    Raises
    ------
    BadHeader
        If there is no time, it cannot be read, or date and MJD contradict each other.
    """
    scale = text(header, spec.scale, what="time scale", where=where).lower()
    if scale not in ("utc", "tai"):
        raise BadHeader(f"time scale {scale!r} is not UTC or TAI", where=where, remedy="set `scale` in the camera file")
    date, mjd = _from_date(header, spec, scale, where), _from_mjd(header, spec, scale, where)
    if date is None and mjd is None:
        keys = " or ".join((*spec.date, *spec.mjd))
        raise BadHeader(f"no time of observation: {keys} missing", where=where, remedy="add the keyword")
    if spec.tolerance_s and date is not None and mjd is not None and abs(date - mjd) * 86400 > spec.tolerance_s:
        raise BadHeader(
            f"{spec.date[0]} and {spec.mjd[0]} differ by {(date - mjd) * 86400:.1f} s",
            where=where,
            remedy="correct the header, or raise `tolerance_s` or drop one of them in the camera file",
        )
    stamp = date if date is not None else mjd
    assert stamp is not None
    half = {"start": 0.5, "mid": 0.0, "end": -0.5}[spec.refers_to]
    return stamp + half * exposure_s / 86400


def _from_date(header: Header, spec: TimeSpec, scale: str, where: str) -> float | None:
    from astropy.time import Time

    value = next((str(header[k]).strip() for k in spec.date if header.get(k) not in (None, "")), None)
    if value is None:
        return None
    clock = str(header.get(spec.clock) or "").strip() if spec.clock else ""
    if _DAY.fullmatch(value):
        if not clock:
            return None  # a bare date says nothing about the time; the MJD has to
        value = f"{value}T{clock}"
    zone = _ZONE.search(value)
    if zone:  # civil time with its offset from UTC: strings such as 2017-12-19T18:33:43.317-0700
        value, scale = value[: zone.start()], "utc"
    try:
        return float(Time(value.rstrip("Z"), format="isot", scale=scale).tai.mjd) - _zone_days(zone)
    except ValueError as error:
        raise BadHeader(f"{spec.date[0]} = {value!r} is no ISO date", where=where, remedy=str(error)) from None


def _zone_days(zone: re.Match[str] | None) -> float:
    if zone is None:
        return 0.0
    minutes = int(zone[2]) * 60 + int(zone[3])
    return (-minutes if zone[1] == "-" else minutes) / 1440


def _from_mjd(header: Header, spec: TimeSpec, scale: str, where: str) -> float | None:
    from astropy.time import Time

    value = next((header[k] for k in spec.mjd if header.get(k) not in (None, "")), None)
    if value is None:
        return None
    try:
        mjd = float(value)
    except (TypeError, ValueError):
        mjd = math.nan
    if not 15000 < mjd < 100000:
        raise BadHeader(
            f"{spec.mjd[0]} = {value!r} is no modified Julian date", where=where, remedy="correct the header"
        )
    return float(Time(mjd, format="mjd", scale=scale).tai.mjd)
