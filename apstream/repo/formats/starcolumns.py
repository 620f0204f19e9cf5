"""Which column of a table of stars means what, and its values under one name and in one unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.types import F64
from apstream.errors import ApstreamError, BadCatalog
from apstream.model.photocalib import AB_ZEROPOINT_NJY

__all__ = ["Magnitude", "StarColumns", "TableSchema", "find_columns", "magnitude_column", "missing_column"]

_RA = ("ra", "ra_deg", "raj2000", "ra_icrs", "coord_ra", "alpha_j2000", "_raj2000", "raj2000_deg")
_DEC = ("dec", "dec_deg", "decj2000", "dej2000", "de_icrs", "dec_icrs", "coord_dec", "delta_j2000", "_dej2000")
_PM_RA, _PM_DEC = ("pmra", "pm_ra", "pm_ra_masyr"), ("pmdec", "pmde", "pm_dec", "pm_dec_masyr")
_PM_ERR = ("pm_err", "pmra_error", "pm_ra_err", "pmraerr", "e_pmra")
_POSITION_ERR = ("pos_err", "ra_error", "ra_err", "raerr", "e_ra_icrs", "e_raj2000", "coord_raerr")
_PARALLAX = ("parallax", "plx")
_EPOCH = ("epoch", "ref_epoch", "epochyr", "mean_epoch")
_ID = ("id", "source_id", "sourceid", "object_id", "objectid", "objid", "obj_id")
#: Names of magnitude columns; the group is the band. The first that finds a band has it.
_MAGNITUDES = (
    r"mag_(.+)",
    r"([ugrizyjhk])",
    r"(phot_.+_mean)_mag",
    r"(.+?)meanpsfmag",
    r"(.*?)_?mag(?:nitude)?",
    r"([a-z])_psf",
)
_NO_MAGNITUDE = re.compile(r"(?:e|q|f|n|o|err)_.*|mag_err.*|.*(?:err|error|sigma)")
_FLUX = re.compile(r"(.+?)(?:_mag)?_(?:psf)?flux")
_ANY = ("", "phot_g_mean", "g", "r", "i")

_DEFAULT_MAG_ERR = 0.02
_FAINTEST = 50.0  # beyond it stand codes for "not measured": 99, -999
_RADIAN = 180 / np.pi
_MAS = {"rad/yr": _RADIAN * 3.6e6, "arcsec/yr": 1e3, "deg/yr": 3.6e6, "mas/yr": 1.0}
_SMALL_ANGLES = {"mas": 1.0, "arcsec": 1e3, "deg": 3.6e6, "rad": _RADIAN * 3.6e6, "uas": 1e-3}
_NJY = {"njy": 1.0, "ujy": 1e3, "mjy": 1e6, "jy": 1e9}
#: No star moves faster than 5e-5 rad/yr (Barnard's); a larger number without a unit is arcsec/yr.
_FASTEST = 1e-4
#: Half of a catalogue's stars are fainter than 1.4 mag and brighter than 24: more is nJy, less is Jy.
_JY_OR_NJY = 1e3

#: Numbers from, to; the one of J2000; units per day: MJD, JD, Unix seconds.
_CLOCKS = ((1e4, 1e5, 51544.5, 1.0), (2.3e6, 2.6e6, 2451545.0, 1.0), (1e8, 1e10, 946728000.0, 86400.0))

Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TableSchema:
    """What a table says of itself.

    Parameters
    ----------
    where
        Its file.
    units
        Unit of each column of numbers, empty where it tells none.
    others
        Names of columns of text.
    lsst
        Whether it is a shard as LSST's pipelines write it: radians, fluxes, rad/yr.
    version
        ``REFCAT_FORMAT_VERSION`` of such a shard; fluxes are nJy from 1 on.
    positions
        Names of the right ascension and the declination, if the catalogue tells them.
    """

    where: str
    units: Mapping[str, str]
    others: tuple[str, ...] = ()
    lsst: bool = False
    version: int = 0
    positions: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Brightness in one band: its column, that of its error, and what kind of numbers they are."""

    band: str
    column: str
    error: str | None = None
    kind: Literal["mag", "flux"] = "mag"
    error_kind: Literal["same", "snr"] = "same"


@dataclass(frozen=True, slots=True)
class StarColumns:
    """The columns of a table that matter for a reference catalogue."""

    schema: TableSchema
    ra: str
    dec: str
    pm_ra: str | None
    pm_dec: str | None
    epoch: str | None
    id: str | None
    magnitudes: tuple[Magnitude, ...]
    parallax: str | None = None
    pos_err: str | None = None
    pm_err: str | None = None

    def needed(self, magnitudes: Iterable[Magnitude], *, with_id: bool = False) -> list[str]:
        """Return the names of the columns to read for these magnitudes."""
        names = [self.ra, self.dec, self.pm_ra, self.pm_dec, self.epoch, self.id if with_id else None]
        names += [self.parallax, self.pos_err, self.pm_err]
        names += [name for m in magnitudes for name in (m.column, m.error)]
        return list(dict.fromkeys(name for name in names if name))

    def choose(self, band: str = "", magnitude: str | None = None) -> Magnitude:
        """Return the magnitude called `magnitude` (a column or a band), else that of `band`, else any.

        Raises
        ------
        BadCatalog
            If there is no magnitude of that name, or none at all.
        """
        if magnitude:
            return self.exactly(magnitude)
        if of_band := self.of_band(band):
            return of_band
        for wanted in _ANY:
            if found := next((m for m in self.magnitudes if m.band == wanted), None):
                return found
        if not self.magnitudes:
            raise missing_column(self.schema, f"a magnitude in band {band!r}" if band else "a magnitude")
        return self.magnitudes[0]

    def of_band(self, band: str) -> Magnitude | None:
        """Return the magnitude of a band, None if there is none."""
        lower = {name.lower(): name for name in self.schema.units}
        band = band.lower()
        tests = [
            lambda m: m.band == band,
            lambda m: m.band == f"phot_{band}_mean",
            lambda m: m.band.endswith(f"_{band}"),
            lambda m: m.column.lower() == band,
        ]
        for test in tests if band else []:
            if found := next(filter(test, self.magnitudes), None):
                return found
        return self._named(band, lower, band) if band and band in lower else None

    def exactly(self, name: str) -> Magnitude:
        """Return the magnitude of a band or a column of that name, and never another.

        Raises
        ------
        BadCatalog
            If there is none.
        """
        wanted = {name.lower(), f"phot_{name.lower()}_mean"}
        if found := next((m for m in self.magnitudes if m.band in wanted or m.column.lower() in wanted), None):
            return found
        return self._named(name.lower(), {n.lower(): n for n in self.schema.units}, f"the magnitude {name!r}")

    def _named(self, name: str, lower: Mapping[str, str], what: str) -> Magnitude:
        for known in self.magnitudes:
            if known.column.lower() == name:
                return known
        if name not in lower:
            raise missing_column(self.schema, what)
        return _magnitude(name, name, lower)

    def positions(self, data: Mapping[str, Values]) -> tuple[F64, F64]:
        """Return right ascension in [0, 360) and declination in degrees; NaN where there is none."""
        ra = _floats(data[self.ra]) * self._angle(self.ra)
        dec = _floats(data[self.dec]) * self._angle(self.dec)
        good = np.isfinite(ra) & (np.abs(ra) <= 1e4) & (np.abs(dec) <= 90)
        return np.where(good, ra % 360, np.nan), np.where(good, dec, np.nan)

    @property
    def in_degrees(self) -> bool:
        """Whether the positions are stored as degrees."""
        return self._angle(self.ra) == self._angle(self.dec) == 1

    def _angle(self, name: str) -> float:
        unit = self.schema.units[name].lower()
        return _RADIAN if unit.startswith("rad") or (not unit and self.schema.lsst) else 1.0

    def motion(self, data: Mapping[str, Values], name: str | None, rows: int) -> F64:
        """Return a proper motion in mas/yr, NaN where there is none."""
        if name is None:
            return np.full(rows, np.nan)
        values = _floats(data[name])
        unit = re.sub(r"year|\ba\b", "yr", self.schema.units[name].lower().replace(" ", "").replace("yr-1", "/yr"))
        unit = unit.replace("./", "/").replace("*/", "/")
        if unit not in _MAS:
            fast = bool(np.any(np.abs(values) > _FASTEST))
            unit = "mas/yr" if not self.schema.lsst else "arcsec/yr" if fast else "rad/yr"
        return values * _MAS[unit]

    def angle_mas(self, data: Mapping[str, Values], name: str | None, rows: int) -> F64:
        """Return a parallax or the error of a position in mas, NaN where there is none or its unit is not known."""
        if name is None:
            return np.full(rows, np.nan)
        unit = self.schema.units[name].lower().replace(" ", "").removesuffix("onds").removesuffix("ond")
        unit = {"": "rad" if self.schema.lsst else "mas", "milliarcsec": "mas"}.get(unit, unit)
        return _floats(data[name]) * _SMALL_ANGLES.get(unit, np.nan)

    def epochs(self, data: Mapping[str, Values], rows: int) -> F64:
        """Return the epochs as Julian years, from years, MJD, JD or Unix seconds; NaN where there is none."""
        if self.epoch is None:
            return np.full(rows, np.nan)
        values = _floats(data[self.epoch])
        years = np.where((values > 1800) & (values < 2200), values, np.nan)
        for low, high, zero, day in _CLOCKS:
            years = np.where((values > low) & (values < high), 2000 + (values - zero) / day / 365.25, years)
        return years

    def brightness(self, data: Mapping[str, Values], magnitude: Magnitude) -> tuple[F64, F64]:
        """Return magnitude and error, NaN where it was not measured; without an error column 0.02 mag."""
        values = _floats(data[magnitude.column])
        errors = np.full(len(values), _DEFAULT_MAG_ERR) if magnitude.error is None else _floats(data[magnitude.error])
        with np.errstate(divide="ignore", invalid="ignore"):
            if magnitude.kind == "flux":
                errors = 2.5 / np.log(10) * errors / values if magnitude.error else errors
                njy = np.where(values > 0, values, np.nan) * self._njy(magnitude, values)
                values = AB_ZEROPOINT_NJY - 2.5 * np.log10(njy)
            elif magnitude.error_kind == "snr":
                errors = 2.5 / np.log(10) / errors
        good = np.abs(values) < _FAINTEST
        return np.where(good, values, np.nan), np.where(good & (errors >= 0) & (errors < _FAINTEST), errors, np.nan)

    def _njy(self, magnitude: Magnitude, values: F64) -> float:
        unit = self.schema.units[magnitude.column].lower().replace("µ", "u").replace("μ", "u")
        if unit in _NJY:
            return _NJY[unit]
        if not self.schema.lsst or self.schema.version >= 1:
            return 1.0
        known = values[values > 0]
        return 1e9 if len(known) and np.median(known) < _JY_OR_NJY else 1.0


def magnitude_column(band: str, *, error: bool = False) -> str:
    """Return the name of the column in our own catalogues: ``mag_r``, ``mag_err_r``."""
    return ("mag_err_" if error else "mag_") + band if band else ("mag_err" if error else "mag")


def find_columns(schema: TableSchema) -> StarColumns:
    """Find the columns that matter among those of a table, whatever case they are in.

    Raises
    ------
    BadCatalog
        If no column is known as right ascension or declination.
    """
    lower = {name.lower(): name for name in schema.units}
    columns = {"pm_ra": _PM_RA, "pm_dec": _PM_DEC, "pm_err": _PM_ERR, "epoch": _EPOCH}
    columns |= {"parallax": _PARALLAX, "pos_err": _POSITION_ERR}
    found = {key: next((lower[n] for n in names if n in lower), None) for key, names in columns.items()}
    everything = lower | {name.lower(): name for name in schema.others}
    return StarColumns(
        schema=schema,
        ra=schema.positions[0] if schema.positions else _required(schema, lower, _RA, "right ascension"),
        dec=schema.positions[1] if schema.positions else _required(schema, lower, _DEC, "declination"),
        id=next((everything[n] for n in _ID if n in everything), None),
        magnitudes=tuple(_magnitudes(schema, lower)),
        **found,
    )


def missing_column(schema: TableSchema, what: str) -> ApstreamError:
    """Return the error that says which columns there are."""
    there = ", ".join(sorted(n.lower() for n in schema.units)[:20])
    return BadCatalog(
        f"no column of numbers for {what}; there are {there or 'none'}",
        where=schema.where,
        remedy="name the columns ra, dec and mag (or the band), degrees and magnitudes",
    )


def _required(schema: TableSchema, lower: Mapping[str, str], names: Sequence[str], what: str) -> str:
    for name in names:
        if name in lower:
            return lower[name]
    raise missing_column(schema, what)


def _magnitudes(schema: TableSchema, lower: Mapping[str, str]) -> list[Magnitude]:
    found: dict[str, Magnitude] = {}
    candidates = [n for n in lower if not _NO_MAGNITUDE.fullmatch(n) and not (n == "y" and "x" in lower)]
    for pattern in _MAGNITUDES:
        for name in candidates:
            if match := re.fullmatch(pattern, name):
                found.setdefault(match[1], _magnitude(match[1], name, lower))
    for name in candidates:
        match = _FLUX.fullmatch(name)
        if match and (schema.lsst or name.endswith("psfflux") or schema.units[lower[name]].lower() in _NJY):
            found.setdefault(match[1], _flux(match[1], name, lower))
    order = list(lower)
    return sorted(found.values(), key=lambda m: order.index(m.column.lower()))


def _magnitude(band: str, name: str, lower: Mapping[str, str]) -> Magnitude:
    errors = (f"{name}_err", f"e_{name}", f"{name}err", f"{name}_error", f"mag_err_{band}", f"{band}_err")
    for error in (*errors, "mag_err", "e_mag"):
        if error in lower:
            return Magnitude(band, lower[name], lower[error])
    ratio = lower.get(name.removesuffix("_mag") + "_flux_over_error")
    return Magnitude(band, lower[name], ratio, error_kind="snr" if ratio else "same")


def _flux(band: str, name: str, lower: Mapping[str, str]) -> Magnitude:
    error = next((lower[e] for e in (f"{name}err", f"{name}sigma", f"{name}_err") if e in lower), None)
    return Magnitude(band, lower[name], error, kind="flux")


def _floats(values: Values) -> F64:
    return np.asarray(values, float)
