"""Tables for other programs: Parquet, CSV, ECSV, JSON or FITS, as the ending of the file says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from apstream.repo.formats.parquet import write_table

__all__ = ["TABLE_WRITERS"]


def _write_csv(path: Path, table: pa.Table) -> None:
    pa.csv.write_csv(table, path)


def _write_json(path: Path, table: pa.Table) -> None:
    """Write a list of rows; what is not finite becomes null."""
    rows = [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]
    path.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_ecsv(path: Path, table: pa.Table) -> None:
    _astropy(table).write(path, format="ascii.ecsv", overwrite=True)


def _write_fits(path: Path, table: pa.Table) -> None:
    _astropy(table).write(path, format="fits", overwrite=True)


def _astropy(table: pa.Table) -> Any:
    """Return an astropy table with units and descriptions; nulls of floats are NaN, those of others are masked."""
    from astropy.table import Column, MaskedColumn, Table  # slow to import, seldom needed

    columns = []
    for field, values in zip(table.schema, table.columns, strict=True):
        about = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
        kind = MaskedColumn if values.null_count and not pa.types.is_floating(field.type) else Column
        more = {"mask": np.asarray(values.is_null())} if kind is MaskedColumn else {}
        data = np.asarray(_filled(values, field.type))
        data = data.astype(str) if data.dtype == object else data
        columns.append(
            kind(
                data,
                name=field.name,
                unit=about.get("unit") or None,
                description=about.get("description") or None,
                **more,
            )
        )
    return Table(columns)


def _filled(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not values.null_count:
        return values
    blank = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
    return values.fill_null(float("nan") if pa.types.is_floating(kind) else blank)


#: What writes a table, by the ending of the file.
TABLE_WRITERS: Mapping[str, Callable[[Path, pa.Table], None]] = {
    ".parquet": write_table,
    ".csv": _write_csv,
    ".ecsv": _write_ecsv,
    ".json": _write_json,
    ".fits": _write_fits,
}
