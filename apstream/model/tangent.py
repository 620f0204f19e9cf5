"""Gnomonic coordinates, with SIP distortion or without, by their numbers: astropy's need a quarter of a second."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from apstream.arrays.sip import bent, deproject, project, unbent
from apstream.arrays.types import F64, FloatArray

__all__ = ["TangentWcs"]

_SIP_NAMES = ("A", "B", "AP", "BP")
_TERM = re.compile(r"(A|B|AP|BP)_(\d)_(\d)$")
_TYPES = ("RA---TAN", "DEC--TAN")
#: What else a header must say, and with which comment.
_FIXED = {
    "WCSAXES": (2, "Number of coordinate axes"),
    "CUNIT1": ("deg", "Units of coordinate increment and value"),
    "CUNIT2": ("deg", "Units of coordinate increment and value"),
    "LONPOLE": (180.0, ""),
    "MJDREF": (0.0, "[d] MJD of fiducial time"),
    "RADESYS": ("ICRS", "Equatorial coordinate system"),
}
_NUMBERS = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "LATPOLE", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
_KEYS = {"CTYPE1", "CTYPE2", *_FIXED, *_NUMBERS, *(f"{name}_ORDER" for name in _SIP_NAMES)}
_PLAIN_COMMENTS = ("Right ascension, gnomonic projection", "Declination, gnomonic projection")
_SIP_COMMENT = "TAN (gnomonic) projection + SIP distortions"


@dataclass(frozen=True, slots=True, eq=False)
class TangentWcs:
    """Numbers of a TAN or TAN-SIP in ICRS.

    Parameters
    ----------
    crval
        (ra, dec) of the reference pixel, degrees.
    crpix
        Its (x, y) as FITS counts, from one.
    cd : ndarray, shape (2, 2)
        Degrees per pixel; rows xi, eta, columns x, y.
    sip : ndarrays, shape (order + 1, order + 1)
        Terms [p, q] of x^p y^q: A and B, and perhaps AP and BP, which are kept for other software; nothing for TAN.
    """

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: F64
    sip: tuple[F64, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TangentWcs | None:
        """Take the values of a header of `SkyWcs.to_header`; None if it says more than this class holds."""
        suffix = "-SIP" if "A_ORDER" in values else ""
        types = tuple(values.get(f"CTYPE{axis}") for axis in (1, 2))
        if types != tuple(name + suffix for name in _TYPES) or not all(key in values for key in _NUMBERS):
            return None
        if any(values.get(key) != known for key, (known, _) in _FIXED.items()):
            return None
        if not all(isinstance(values[key], float) and np.isfinite(values[key]) for key in _NUMBERS):
            return None
        sip = _sip(values) if suffix else ()
        cd = np.array([[values[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
        if sip is None or values["LATPOLE"] != values["CRVAL2"] or not np.linalg.det(cd):
            return None
        if not all(key in _KEYS or (suffix and _TERM.match(key)) for key in values):
            return None
        return cls((values["CRVAL1"], values["CRVAL2"]), (values["CRPIX1"], values["CRPIX2"]), cd, sip)

    def cards(self) -> Iterator[tuple[str, Any, str]]:
        """Return key, value and comment of the header's cards in astropy's order; `of` makes the same of them."""
        comments = (_SIP_COMMENT,) * 2 if self.sip else _PLAIN_COMMENTS
        yield _fixed("WCSAXES")
        yield from ((f"CRPIX{axis}", value, "") for axis, value in enumerate(self.crpix, start=1))
        yield from (_fixed(key) for key in ("CUNIT1", "CUNIT2"))
        for axis, (kind, comment) in enumerate(zip(_TYPES, comments, strict=True), start=1):
            yield f"CTYPE{axis}", kind + ("-SIP" if self.sip else ""), comment
        yield from ((f"CRVAL{axis}", value, "") for axis, value in enumerate(self.crval, start=1))
        yield _fixed("LONPOLE")
        yield "LATPOLE", self.crval[1], ""
        yield from (_fixed(key) for key in ("MJDREF", "RADESYS"))
        for number, (name, terms) in enumerate(zip(_SIP_NAMES, self.sip, strict=False)):
            way = "sky to detector" if number > 1 else "detector to sky"
            yield f"{name}_ORDER", len(terms) - 1, f"SIP polynomial order, axis {number % 2}, {way}"
            for p, q in np.argwhere(terms != 0):
                yield f"{name}_{p}_{q}", float(terms[p, q]), "SIP distortion coefficient"
        yield from ((f"CD{i}_{j}", float(self.cd[i - 1, j - 1]), "") for i in (1, 2) for j in (1, 2))

    def pixel_to_sky(self, y: F64, x: F64) -> tuple[F64, F64]:
        """Return (ra, dec) in degrees of 0-based pixel positions."""
        u, v = x - (self.crpix[0] - 1), y - (self.crpix[1] - 1)
        if self.sip:
            u, v = bent(u, v, *self.sip[:2])
        (a, b), (c, d) = self.cd
        return deproject(a * u + b * v, c * u + d * v, *self.crval)

    def sky_to_pixel(self, ra: FloatArray, dec: FloatArray) -> tuple[F64, F64]:
        """Return 0-based (y, x) of sky positions in degrees; NaN beyond the horizon, and where SIP has no inverse."""
        xi, eta = project(ra, dec, *self.crval)
        (a, b), (c, d) = np.linalg.inv(self.cd)
        u, v = a * xi + b * eta, c * xi + d * eta
        if self.sip:
            u, v = unbent(u, v, *self.sip[:2])
        return v + (self.crpix[1] - 1), u + (self.crpix[0] - 1)


def _fixed(key: str) -> tuple[str, Any, str]:
    return key, *_FIXED[key]


def _sip(values: Mapping[str, Any]) -> tuple[F64, ...] | None:
    """Return the matrices that there are; None where they are not as SIP has them."""
    orders = [values.get(f"{name}_ORDER") for name in _SIP_NAMES]
    there = [order for order in orders if order is not None]
    if orders[: len(there)] != there or len(there) not in (2, 4) or not all(isinstance(n, int) for n in there):
        return None
    found = {name: np.zeros((order + 1, order + 1)) for name, order in zip(_SIP_NAMES, there, strict=False)}
    for key, value in values.items():
        if term := _TERM.match(key):
            name, p, q = term[1], int(term[2]), int(term[3])
            if name not in found or p + q >= len(found[name]) or not np.isfinite(value):
                return None
            found[name][p, q] = value
    return tuple(found.values())
