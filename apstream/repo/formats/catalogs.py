"""Reference catalogues as users have them: FITS, CSV or Parquet tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from astropy.io import fits

from apstream.arrays.types import F64
from apstream.errors import ApstreamError, BadCatalog, FileMissing
from apstream.model.refcat import REFCAT_DTYPE, RefCat
from apstream.repo.formats.hdus import open_fits

__all__ = ["read_refcat"]

_RA = ("ra", "ra_deg", "raj2000", "ra_icrs", "coord_ra", "alpha_j2000", "_raj2000", "raj2000_deg")
_DEC = ("dec", "dec_deg", "decj2000", "dej2000", "de_icrs", "dec_icrs", "coord_dec", "delta_j2000", "_dej2000")
_PM_RA, _PM_DEC = ("pmra", "pm_ra", "pm_ra_masyr"), ("pmdec", "pmde", "pm_dec", "pm_dec_masyr")
_EPOCH = ("epoch", "ref_epoch", "epochyr")
_MAG = ("mag_{band}", "{band}", "{band}mag", "{band}_psf", "{band}_mag", "phot_{band}_mean_mag", "{band}meanpsfmag")
_ANY_MAG = ("mag", "magnitude", "phot_g_mean_mag", "g", "r", "i", "gmag", "rmag", "imag", "mag_auto")


def read_refcat(path: Path | str, *, band: str = "", magnitude: str | None = None) -> RefCat:
    """Read a reference catalogue.

    Parameters
    ----------
    path
        A ``.fits``, ``.csv`` or ``.parquet`` table with columns of ICRS degrees (``ra``, ``dec`` or common
        variants), a magnitude per band, and optionally proper motions in mas/yr with their epoch in years.
    band
        Band whose magnitude is wanted; without a column for it the first magnitude column serves.
    magnitude
        Name of the magnitude column, if it is to be taken by name.

    Raises
    ------
    FileMissing, BadFile
        If the file is not there or cannot be read.
    BadCatalog
        If position or magnitude columns are missing or no row is usable.
    """
    path = Path(path)
    columns = {name.lower(): values for name, values in _columns(path).items()}
    ra, dec = _required(columns, _RA, path, "right ascension"), _required(columns, _DEC, path, "declination")
    name = _magnitude_name(columns, band, magnitude, path)
    stars = np.zeros(len(ra), REFCAT_DTYPE)
    stars["ra"], stars["dec"], stars["mag"] = ra, dec, columns[name]
    errors = (f"{name}_err", f"e_{name}", f"{name}err", f"mag_err_{band}", f"{band}_err", "mag_err", "e_mag")
    stars["mag_err"] = _optional(columns, errors, len(ra), 0.02)
    stars["pm_ra"] = _optional(columns, _PM_RA, len(ra), np.nan)
    stars["pm_dec"] = _optional(columns, _PM_DEC, len(ra), np.nan)
    stars["epoch"] = _optional(columns, _EPOCH, len(ra), np.nan)
    good = np.isfinite(stars["ra"]) & (np.abs(stars["dec"]) <= 90) & (np.abs(stars["mag"]) < 50)
    if not good.any():
        raise BadCatalog("no row has a position and a magnitude", where=str(path), remedy="check the columns")
    return RefCat(stars[good], str(path))


def _columns(path: Path) -> dict[str, F64]:
    suffix = "".join(path.suffixes[-2:]) if path.suffix in {".gz", ".fz"} else path.suffix
    if suffix.startswith((".fits", ".fit", ".fts")):
        return _fits_columns(path)
    if not path.is_file():
        raise FileMissing("no such catalogue", where=str(path), remedy="check the path")
    try:
        table = pa.parquet.read_table(path) if path.suffix in {".parquet", ".pq"} else pa.csv.read_csv(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadCatalog(
            f"not a readable table: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="give a FITS, CSV or Parquet table",
        ) from error
    if len(table) == 0:
        raise BadCatalog("the table has no rows", where=str(path), remedy="give a catalogue of the field")
    numeric = [c for c in table.column_names if pa.types.is_integer(t := table.field(c).type) or _is_float(t)]
    return {c: table[c].to_numpy().astype(float) for c in numeric}


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def _fits_columns(path: Path) -> dict[str, F64]:
    with open_fits(path) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise BadCatalog("no table in the file", where=str(path), remedy="give a catalogue, not an image")
        data = tables[0].data
        return {n: np.asarray(data[n], float) for n in data.names if data[n].dtype.kind in "fiu"}


def _required(columns: dict[str, F64], names: Sequence[str], path: Path, what: str) -> F64:
    for name in names:
        if name in columns:
            return columns[name]
    raise _missing(path, what, columns)


def _missing(path: Path, what: str, columns: dict[str, F64]) -> ApstreamError:
    return BadCatalog(
        f"no column of numbers for {what}; there are {', '.join(sorted(columns)[:20]) or 'none'}",
        where=str(path),
        remedy="name the columns ra, dec and mag (or the band), degrees and magnitudes",
    )


def _magnitude_name(columns: dict[str, F64], band: str, magnitude: str | None, path: Path) -> str:
    if magnitude:
        if magnitude.lower() in columns:
            return magnitude.lower()
        raise _missing(path, f"the magnitude {magnitude!r}", columns)
    wanted = [pattern.format(band=band.lower()) for pattern in _MAG] if band else []
    for name in (*wanted, *_ANY_MAG):
        if name in columns:
            return name
    raise _missing(path, f"a magnitude in band {band!r}" if band else "a magnitude", columns)


def _optional(columns: dict[str, F64], names: Sequence[str], count: int, default: float) -> F64:
    for name in names:
        if name in columns:
            return columns[name]
    return np.full(count, default)
