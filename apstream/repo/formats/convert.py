"""Reference catalogues of any origin made into one HATS catalogue with one set of columns and units."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from apstream.arrays.types import F64
from apstream.errors import BadCatalog, Conflict, FileMissing
from apstream.repo.atomic import storage_error
from apstream.repo.formats.hats import is_hats, open_hats
from apstream.repo.formats.hats_writer import ROWS_PER_PARTITION, HatsWriter
from apstream.repo.formats.htm import htm_shards, is_tar
from apstream.repo.formats.starcolumns import StarColumns, find_columns, magnitude_column, missing_column
from apstream.repo.formats.startables import Columns, read_chunks, read_schema

__all__ = ["Converted", "convert_refcat", "ingest_refcat"]

_UNITS = {
    "ra": "deg",
    "dec": "deg",
    "pm_ra": "mas/yr",
    "pm_dec": "mas/yr",
    "pm_err": "mas/yr",
    "parallax": "mas",
    "pos_err": "mas",
    "epoch": "yr",
}


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion gave: rows written, rows left out for want of a position, partitions, columns."""

    rows: int
    skipped: int
    partitions: int
    columns: tuple[str, ...]


def ingest_refcat(sources: Sequence[Path], folder: Path, *, link: bool) -> int:
    """Put a reference catalogue into `folder` and return its number of rows.

    Parameters
    ----------
    sources
        One HATS catalogue, or anything that `convert_refcat` takes.
    folder
        The directory to make; it must not exist.
    link
        Make `folder` a symbolic link if the source is a HATS catalogue, instead of a copy.

    Raises
    ------
    Conflict, FileMissing, BadFile, BadCatalog, StorageUnavailable
        As `convert_refcat`.
    """
    if len(sources) != 1 or not is_hats(sources[0]):
        return convert_refcat(sources, folder).rows
    rows = open_hats(sources[0]).n_rows
    with _storing(folder):
        if link:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(sources[0].resolve(), target_is_directory=True)
        else:
            with _whole_folder(folder) as temporary:
                shutil.copytree(sources[0], temporary, dirs_exist_ok=True)
    return rows


def convert_refcat(sources: Sequence[Path], out: Path, *, rows_per_partition: int = ROWS_PER_PARTITION) -> Converted:
    """Convert star tables into one HATS catalogue, in bounded memory.

    Parameters
    ----------
    sources
        Each one a FITS, CSV or Parquet table, a folder or a tar of shards named by HTM trixel, or a HATS
        catalogue. Columns are found by name, as in `find_columns`.
    out
        The directory to make. It appears whole or not at all.
    rows_per_partition
        A HEALPix pixel with more rows is divided, down to order 10.

    Returns
    -------
    Converted
        Counts. The columns are ``ra`` and ``dec`` (ICRS degrees) and, as far as there are any, ``id``,
        ``pm_ra``, ``pm_dec`` and ``pm_err`` (mas/yr, pm_ra with cos dec), ``parallax`` and ``pos_err`` (mas),
        ``epoch`` (Julian year), and ``mag_BAND`` with ``mag_err_BAND`` for each band; fluxes become AB
        magnitudes, magnitudes stay as they are.

    Raises
    ------
    Conflict
        If `out` exists.
    FileMissing, BadFile, BadCatalog
        If a source is not there, cannot be read or lacks positions or magnitudes; nothing is left behind.
    StorageUnavailable
        If `out` cannot be written.
    """
    skipped, columns = 0, dict[str, None]()
    with _storing(out), _whole_folder(out) as temporary:
        writer = HatsWriter(temporary, out.name, rows_per_partition=rows_per_partition)
        for path, positions in _tables(sources, temporary):
            for table, left_out in _normalized(path, positions):
                skipped += left_out
                columns |= dict.fromkeys(table.column_names)
                if len(table):
                    writer.add(table)
        partitions = writer.finish()
    return Converted(sum(p.rows for p in partitions), skipped, len(partitions), tuple(columns))


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    if folder.exists() or folder.is_symlink():
        raise Conflict("there is a catalogue already", where=str(folder), remedy="remove it or take another name")
    try:
        yield
    except OSError as error:
        raise storage_error(error, folder) from error


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that becomes it on success and is removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:60]}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tables(sources: Sequence[Path], scratch: Path) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Yield every single table of the sources, with the names of the positions where they are told."""
    for source in sources:
        if is_hats(source):
            catalog = open_hats(source)
            yield from ((Path(catalog.store.location(f)), catalog.schema().positions) for f in catalog.files())
        elif source.is_dir() or is_tar(source):
            with htm_shards(source, scratch=scratch) as shards:
                if not shards:
                    raise BadCatalog(
                        "no shard named by trixel, and no HATS catalogue", where=str(source), remedy="name the tables"
                    )
                yield from ((shard, None) for shard in shards)
        elif source.is_file():
            yield source, None
        else:
            raise FileMissing("no such file or folder", where=str(source), remedy="check the path")


def _normalized(path: Path, positions: tuple[str, str] | None) -> Iterator[tuple[pa.Table, int]]:
    """Yield pieces of a table in our columns, and how many rows each left out."""
    schema = replace(read_schema(path), positions=positions)
    columns = find_columns(schema)
    if not columns.magnitudes:
        raise missing_column(schema, "a magnitude")
    names = columns.needed(columns.magnitudes, with_id=True)
    for data in read_chunks(path, names, text=columns.id):
        ra, dec = columns.positions(data)
        good = np.isfinite(ra) & np.isfinite(dec)
        yield _table(columns, data, ra, dec).filter(pa.array(good)), int((~good).sum())


def _table(columns: StarColumns, data: Columns, ra: F64, dec: F64) -> pa.Table:
    arrays: dict[str, pa.Array] = {}
    if columns.id:
        arrays["id"] = pa.array(data[columns.id]) if isinstance(data[columns.id], np.ndarray) else data[columns.id]
    arrays |= {"ra": pa.array(ra), "dec": pa.array(dec)}
    if columns.pm_ra and columns.pm_dec:
        for key, name in (("pm_ra", columns.pm_ra), ("pm_dec", columns.pm_dec)):
            arrays[key] = pa.array(columns.motion(data, name, len(ra)), pa.float32())
    if columns.parallax:
        arrays["parallax"] = pa.array(columns.angle_mas(data, columns.parallax, len(ra)), pa.float32())
    if columns.pos_err:
        arrays["pos_err"] = pa.array(columns.angle_mas(data, columns.pos_err, len(ra)), pa.float32())
    if columns.pm_err:
        arrays["pm_err"] = pa.array(columns.motion(data, columns.pm_err, len(ra)), pa.float32())
    if columns.epoch:
        arrays["epoch"] = pa.array(columns.epochs(data, len(ra)))
    for magnitude in columns.magnitudes:
        values, errors = columns.brightness(data, magnitude)
        arrays[magnitude_column(magnitude.band)] = pa.array(values, pa.float32())
        if magnitude.error:
            arrays[magnitude_column(magnitude.band, error=True)] = pa.array(errors, pa.float32())
    units = {name: _UNITS.get(name, "mag" if name.startswith("mag") else "") for name in arrays}
    fields = [pa.field(n, a.type, metadata={"unit": units[n]} if units[n] else None) for n, a in arrays.items()]
    return pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields))
