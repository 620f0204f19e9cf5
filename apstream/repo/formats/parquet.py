"""Tables of the column registry as Parquet, with units and descriptions in the schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from apstream.arrays.types import Records
from apstream.errors import BadFile, FileMissing
from apstream.model.columns import TableSpec
from apstream.model.sources import with_measured
from apstream.repo.atomic import atomic_path

__all__ = [
    "read_any_table",
    "read_records",
    "read_sources",
    "read_table",
    "records_to_table",
    "write_records",
    "write_table",
]


def records_to_table(records: Records, spec: TableSpec) -> pa.Table:
    """Convert records of `spec` to an Arrow table; null floats (NaN) and null ids (0) become null."""
    arrays, fields = [], []
    for column in spec.columns:
        values = records[column.name]
        mask = None
        if column.nullable and values.dtype.kind == "f":
            mask = np.isnan(values)
        elif column.nullable and values.dtype.kind == "i":
            mask = values == 0
        kind = pa.string() if values.dtype.kind == "U" else None
        array = pa.array(values.tolist() if kind else values, type=kind, mask=mask)
        metadata = {"unit": column.unit, "description": column.doc}
        arrays.append(array)
        fields.append(pa.field(column.name, array.type, metadata=metadata))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={"table": spec.name}))


def write_records(path: Path, records: Records, spec: TableSpec) -> None:
    """Write records atomically."""
    with atomic_path(path) as temporary:
        write_table(temporary, records_to_table(records, spec))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table at `path` itself; equal tables give the same bytes, however they are chunked."""
    pa.parquet.write_table(table.combine_chunks(), path)


def read_table(path: Path) -> pa.Table:
    """Read a table whole.

    Raises
    ------
    FileMissing, BadFile
        If there is no such file or it is not Parquet.
    """
    if not path.is_file():
        raise FileMissing("no such table", where=str(path), remedy="check the path")
    try:
        return pa.parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"not a Parquet table: {error}", where=str(path), remedy="write it again") from error


def read_any_table(path: Path) -> pa.Table:
    """Read a Parquet or CSV table whole; which it is shows in its first bytes. Errors as `read_table`."""
    if path.is_file() and path.read_bytes()[:4] != b"PAR1":
        try:
            return pa.csv.read_csv(path)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"no CSV table: {error}", where=str(path), remedy="write it again") from error
    return read_table(path)


def read_records(path: Path, spec: TableSpec) -> Records:
    """Read records written by `write_records`; errors as `read_table`."""
    return _records(read_table(path), spec)


def read_sources(path: Path, spec: TableSpec) -> Records:
    """Read a list of sources: the columns of `spec` and whatever measurements stand beside them."""
    table = read_table(path)
    further = [field for field in table.schema if field.name not in spec.names]
    columns = [(field.name, field.type.to_pandas_dtype()) for field in further]
    dtype = np.dtype([*spec.dtype.descr, *columns])
    return _records(table, with_measured(spec, dtype))


def _records(table: pa.Table, spec: TableSpec) -> Records:
    records = spec.empty(len(table))
    for column in spec.columns:
        if column.name not in table.column_names:
            continue
        kind = spec.dtype[column.name].kind
        filled = table[column.name]
        if kind in "iub":
            filled = filled.fill_null(False if kind == "b" else 0)
        elif kind == "U":
            filled = filled.fill_null("")
        records[column.name] = filled.to_numpy(zero_copy_only=False)
    return records
