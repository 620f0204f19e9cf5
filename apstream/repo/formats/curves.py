"""Transmission curves: Parquet with units in the schema; ECSV of a user is read too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apstream.errors import BadFile
from apstream.model.transmission import TransmissionCurve
from apstream.repo.formats.documents import read_bytes
from apstream.repo.formats.parquet import read_table, write_table

__all__ = ["read_transmission", "write_transmission"]

_COLUMNS = {"wavelength_nm": ("nm", "Vacuum wavelength"), "throughput": ("", "Fraction of the light that passes")}
_REMEDY = "give columns wavelength_nm, increasing, and throughput, 0 to 1, in Parquet or ECSV"


def read_transmission(path: Path) -> TransmissionCurve:
    """Read a curve.

    Raises
    ------
    FileMissing, BadFile
        If there is no such file, or it is neither Parquet nor ECSV with the two columns, or no curve.
    """
    try:
        if read_bytes(path).startswith(b"PAR1"):
            table = read_table(path)
            values = {name: table[name].to_numpy() for name in _COLUMNS}
        else:
            values = _ecsv(path)
        return TransmissionCurve(*(np.asarray(values[name], float) for name in _COLUMNS))
    except (ValueError, LookupError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0][:160]
        raise BadFile(f"no transmission curve: {reason}", where=str(path), remedy=_REMEDY) from error


def write_transmission(path: Path, value: TransmissionCurve) -> None:
    """Write a curve as Parquet."""
    fields = [
        pa.field(name, pa.float64(), metadata={"unit": unit, "description": text})
        for name, (unit, text) in _COLUMNS.items()
    ]
    arrays = [pa.array(getattr(value, name)) for name in _COLUMNS]
    write_table(path, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))


def _ecsv(path: Path) -> dict[str, Any]:
    from astropy.io import ascii as astropy_ascii  # slow to import, seldom needed

    table = astropy_ascii.read(path, format="ecsv")
    return {name: np.asarray(table[name]) for name in _COLUMNS}
