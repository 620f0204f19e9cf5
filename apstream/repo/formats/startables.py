"""Tables of stars as users have them, FITS, CSV or Parquet, read column by column and piece by piece."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from astropy.io import fits
from numpy.typing import NDArray

from apstream.errors import BadCatalog, FileMissing
from apstream.repo.formats.hdus import open_fits
from apstream.repo.formats.starcolumns import TableSchema

__all__ = ["arrow_schema", "catalog_errors", "is_table", "read_chunks", "read_schema"]

#: Rows read at a time.
CHUNK_ROWS = 200_000
_PARQUET = {".parquet", ".parq", ".pq"}
_CSV_BLOCK, _CSV_PROBE = 1 << 23, 1 << 20
_NULLS = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "--", "N/A", "NA"]

Columns = dict[str, NDArray[Any] | pa.ChunkedArray]


def is_table(path: Path | str) -> bool:
    """Tell whether a path or URL is called like a table."""
    name = PurePosixPath(str(path))
    return _is_fits(name) or name.suffix in _PARQUET or name.name.endswith((".csv", ".csv.gz"))


def read_schema(path: Path) -> TableSchema:
    """Read which columns a table has, and nothing else.

    Raises
    ------
    FileMissing, BadFile, BadCatalog
        If the file is not there, or no table can be read from it.
    """
    if _is_fits(path):
        return _fits_schema(path)
    if path.is_dir():
        raise BadCatalog("a folder, and no HATS catalogue", where=str(path), remedy="convert it: apstream repo ingest")
    if not path.is_file():
        raise FileMissing("no such catalogue", where=str(path), remedy="check the path")
    with catalog_errors(path):
        if path.suffix in _PARQUET:
            return arrow_schema(pa.parquet.read_schema(path), path)
        return _csv_schema(path)


def read_chunks(path: Path, names: Sequence[str], *, text: str | None = None) -> Iterator[Columns]:
    """Yield the columns `names` in pieces of bounded size; `text` may be other than numbers.

    Raises
    ------
    FileMissing, BadFile, BadCatalog
        As `read_schema`, and if a column that should hold numbers does not.
    """
    if _is_fits(path):
        yield from _fits_chunks(path, names)
        return
    with catalog_errors(path):
        if path.suffix in _PARQUET:
            batches = pa.parquet.ParquetFile(path).iter_batches(CHUNK_ROWS, columns=list(names))
        else:
            batches = _csv_batches(path, names, text)
        for batch in batches:
            yield {n: batch[n] if n == text else batch[n].to_numpy(zero_copy_only=False) for n in names}


@contextmanager
def catalog_errors(path: Path | str) -> Iterator[None]:
    """Turn what a library says of a broken table into our error naming `path`."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadCatalog(
            f"not a readable table: {reason}", where=str(path), remedy="give a FITS, CSV or Parquet table"
        ) from error


def arrow_schema(schema: pa.Schema, where: Path | str) -> TableSchema:
    """Describe an Arrow schema; units are taken from the fields' metadata."""
    numbers = {f.name: _unit(f) for f in schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)}
    texts = tuple(f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type))
    return TableSchema(str(where), numbers, texts)


def _unit(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"unit", b"").decode())


def _is_fits(path: PurePath) -> bool:
    suffix = "".join(path.suffixes[-2:]) if path.suffix in {".gz", ".fz"} else path.suffix
    return suffix.lower().startswith((".fits", ".fit", ".fts")) or any(
        ending in suffix.lower() for ending in (".fits.", ".fit.", ".fts.")
    )


def _table_hdu(hdus: fits.HDUList, path: Path) -> Any:
    tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    if not tables:
        raise BadCatalog("no table in the file", where=str(path), remedy="give a catalogue, not an image")
    return tables[0]


def _fits_schema(path: Path) -> TableSchema:
    with open_fits(path, memmap=True) as hdus:
        hdu = _table_hdu(hdus, path)
        kinds = {c.name: hdu.columns.dtype[c.name] for c in hdu.columns}
        numbers = {c.name: (c.unit or "").strip() for c in hdu.columns if kinds[c.name].kind in "fiu"}
        numbers = {name: unit for name, unit in numbers.items() if not kinds[name].shape}
        lower = {name.lower() for name in numbers}
        return TableSchema(
            str(path),
            numbers,
            tuple(name for name, kind in kinds.items() if kind.kind in "SU"),
            lsst="coord_ra" in lower and ("AFW_TYPE" in hdu.header or any(n.endswith("_flux") for n in lower)),
            version=int(hdu.header.get("REFCAT_FORMAT_VERSION", 0)),
        )


def _fits_chunks(path: Path, names: Sequence[str]) -> Iterator[Columns]:
    with open_fits(path, memmap=True) as hdus:
        data = _table_hdu(hdus, path).data
        for first in range(0, len(data), CHUNK_ROWS):
            part = data[first : first + CHUNK_ROWS]
            yield {name: _native(np.asarray(part[name])) for name in names}


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="))


def _csv_layout(path: Path) -> tuple[list[str], str, int]:
    """Return the column names, the delimiter and the number of lines before the data."""
    lines = 0
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        for line in stream:
            lines += 1
            if line.startswith("#") and ("," not in line or line.startswith("# ")):
                continue
            delimiter = max(",\t;| ", key=line.count)
            names = next(csv.reader([line.strip("\r\n")], delimiter=delimiter, skipinitialspace=True))
            return [n.strip().lstrip("#") for n in names], delimiter, lines
    raise ValueError("the file is empty")


def _csv_schema(path: Path) -> TableSchema:
    """Tell numbers from text by the first lines; a column without any value yet may hold numbers."""
    with _csv_reader(path, _CSV_PROBE, pa.csv.ConvertOptions(null_values=_NULLS)) as reader:
        known = reader.schema
    numbers = [f.name for f in known if pa.types.is_null(f.type) or f.type in (pa.int64(), pa.float64())]
    return TableSchema(str(path), dict.fromkeys(numbers, ""), tuple(f.name for f in known if f.type == pa.string()))


def _csv_batches(path: Path, names: Sequence[str], text: str | None) -> Iterator[pa.RecordBatch]:
    types = {name: pa.float64() for name in names if name != text}
    if text is not None and text in names:
        types[text] = pa.string() if text in _csv_schema(path).others else pa.int64()
    convert = pa.csv.ConvertOptions(include_columns=list(names), column_types=types, null_values=_NULLS)
    with _csv_reader(path, _CSV_BLOCK, convert) as reader:
        yield from reader


def _csv_reader(path: Path, block: int, convert: pa.csv.ConvertOptions) -> pa.csv.CSVStreamingReader:
    columns, delimiter, lines = _csv_layout(path)
    read = pa.csv.ReadOptions(column_names=columns, skip_rows=lines, block_size=block)
    return pa.csv.open_csv(path, read, pa.csv.ParseOptions(delimiter=delimiter), convert)
