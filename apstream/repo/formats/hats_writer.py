"""Writing a catalogue of any number of rows in HATS layout, in bounded memory and the same bytes each time.

Rows arrive in pieces. They are spilled to disk sorted by HEALPix pixel while a histogram of fine pixels grows;
from that the partitions follow, and each is gathered from the spilled pieces and written once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from numpy.typing import NDArray

from apstream.errors import BadCatalog
from apstream.repo.atomic import storage_error, sync
from apstream.repo.formats.hats import COMMON_METADATA, PARTITION_INFO, PROPERTIES, partition_path

__all__ = ["MAX_ORDER", "ROWS_PER_PARTITION", "HatsWriter", "Partition", "plan_partitions"]

ROWS_PER_PARTITION = 100_000
MAX_ORDER = 10
_FINEST = 29
_HEALPIX = "_healpix_29"
_SPILL_ROWS = 500_000
_ROW_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class Partition:
    """A HEALPix pixel (nested) and how many rows it holds."""

    order: int
    pixel: int
    rows: int

    @property
    def span(self) -> tuple[int, int]:
        """Its half-open range of pixels of order 29."""
        shift = 2 * (_FINEST - self.order)
        return self.pixel << shift, (self.pixel + 1) << shift


class HatsWriter:
    """Collects rows and writes them as a HATS catalogue into an existing, empty folder.

    Parameters
    ----------
    folder
        Where to; half of a catalogue stands in it until `finish` has returned.
    name
        Name of the catalogue in its properties.
    rows_per_partition
        A pixel with more rows is divided, down to order 10.
    """

    def __init__(self, folder: Path, name: str, *, rows_per_partition: int = ROWS_PER_PARTITION) -> None:
        self._folder = folder
        self._name = name
        self._limit = rows_per_partition
        self._waiting: list[pa.Table] = []
        self._spills: list[tuple[Path, pa.Schema]] = []
        self._counts = np.zeros(12 << (2 * MAX_ORDER), np.int32)

    def add(self, table: pa.Table) -> None:
        """Take rows with columns ``ra`` and ``dec``, finite ICRS degrees, and any others."""
        pixels = hpgeom.angle_to_pixel(1 << _FINEST, table["ra"].to_numpy(), table["dec"].to_numpy())
        self._waiting.append(table.add_column(0, _HEALPIX, pa.array(pixels, pa.int64())))
        if sum(len(waiting) for waiting in self._waiting) >= _SPILL_ROWS:
            self._spill()

    def finish(self) -> list[Partition]:
        """Write the catalogue and return its partitions.

        Raises
        ------
        BadCatalog
            If no row was added.
        StorageUnavailable
            If the disk is full or cannot be written.
        """
        try:
            self._spill()
            partitions = plan_partitions(self._counts, self._limit)
            if not partitions:
                raise BadCatalog("no row has a position", where=self._name, remedy="check the columns")
            schema = _merge([schema for _, schema in self._spills])
            for group in _groups(partitions):
                self._write_group(group, schema)
            self._describe(partitions, schema)
        except OSError as error:
            raise storage_error(error, self._folder) from error
        self._spills.clear()
        shutil.rmtree(self._folder / ".spill")
        return partitions

    def _spill(self) -> None:
        if not self._waiting:
            return
        schema = _merge([table.schema for table in self._waiting])
        table = _sorted(pa.concat_tables(_conform(table, schema) for table in self._waiting))
        self._waiting.clear()
        fine, counts = np.unique(_pixels(table) >> 2 * (_FINEST - MAX_ORDER), return_counts=True)
        self._counts[fine] += counts.astype(np.int32)
        path = self._folder / ".spill" / f"{len(self._spills)}.arrow"
        path.parent.mkdir(exist_ok=True)
        with pa.ipc.new_file(str(path), table.schema) as sink:
            sink.write_table(table)
        self._spills.append((path, table.schema))

    def _write_group(self, group: list[Partition], schema: pa.Schema) -> None:
        low, high = group[0].span[0], group[-1].span[1]
        rows = _sorted(pa.concat_tables(_conform(_spilled(path, low, high), schema) for path, _ in self._spills))
        for partition in group:
            path = self._folder / "dataset" / partition_path(partition.order, partition.pixel)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = _cut(rows, *partition.span).combine_chunks()
            pa.parquet.write_table(content, path, compression="zstd", row_group_size=_ROW_GROUP)
            sync(path)

    def _describe(self, partitions: list[Partition], schema: pa.Schema) -> None:
        pa.parquet.write_metadata(schema, self._folder / "dataset" / COMMON_METADATA)
        listed = "".join(f"{p.order},{p.pixel}\n" for p in sorted(partitions, key=lambda p: (p.order, p.pixel)))
        (self._folder / PARTITION_INFO).write_text("Norder,Npix\n" + listed)
        properties = {
            "obs_collection": self._name,
            "dataproduct_type": "object",
            "hats_nrows": sum(p.rows for p in partitions),
            "hats_col_ra": "ra",
            "hats_col_dec": "dec",
            "hats_col_healpix": _HEALPIX,
            "hats_col_healpix_order": _FINEST,
            "hats_npix_suffix": ".parquet",
            "hats_max_rows": max(p.rows for p in partitions),
            "hats_order": max(p.order for p in partitions),
            "moc_sky_fraction": f"{sum(0.25**p.order for p in partitions) / 12:.7f}",
            "hats_builder": "apstream",
            "hats_version": "v1.0",
        }
        text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
        for name in (PROPERTIES, "properties"):  # readers before 2025-08 know the second
            (self._folder / name).write_text(text)
            sync(self._folder / name)


def plan_partitions(counts: NDArray[np.int32], limit: int) -> list[Partition]:
    """Divide the sky into the largest pixels with at most `limit` rows, in nested order.

    Parameters
    ----------
    counts
        (12 * 4**MAX_ORDER,) rows per pixel of the finest order, which is not divided further.
    limit
        Most rows of a coarser pixel.
    """
    found: list[Partition] = []
    divided = np.arange(12)
    for order in range(MAX_ORDER + 1):
        width = 1 << 2 * (MAX_ORDER - order)
        rows = counts.reshape(-1, width)[divided].sum(axis=1, dtype=np.int64)
        whole = (rows > 0) & ((rows <= limit) | (order == MAX_ORDER))
        found += [Partition(order, int(p), int(n)) for p, n in zip(divided[whole], rows[whole], strict=True)]
        divided = (4 * divided[(rows > 0) & ~whole, None] + np.arange(4)).ravel()
    return sorted(found, key=lambda p: p.span)


def _groups(partitions: list[Partition]) -> Iterator[list[Partition]]:
    group: list[Partition] = []
    for partition in partitions:
        if group and sum(p.rows for p in group) + partition.rows > _SPILL_ROWS:
            yield group
            group = []
        group.append(partition)
    yield group


def _pixels(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table[_HEALPIX].to_numpy(), np.int64)


def _sorted(table: pa.Table) -> pa.Table:
    return table.take(np.argsort(_pixels(table), kind="stable")).combine_chunks()


def _cut(table: pa.Table, low: int, high: int) -> pa.Table:
    first, last = np.searchsorted(_pixels(table), [low, high])
    return table.slice(first, last - first)


def _spilled(path: Path, low: int, high: int) -> pa.Table:
    """Return a copy of a range of pixels; the rest of the file is neither read nor kept mapped."""
    with pa.memory_map(str(path)) as file:
        part = _cut(pa.ipc.open_file(file).read_all(), low, high)
        return part.take(np.arange(len(part)))


def _merge(schemas: list[pa.Schema]) -> pa.Schema:
    """Return a schema with all the columns; identifiers are text if they are so anywhere."""
    if any("id" in s.names and not pa.types.is_integer(s.field("id").type) for s in schemas):
        text = pa.field("id", pa.string())
        schemas = [s.set(s.get_field_index("id"), text) if "id" in s.names else s for s in schemas]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type) for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
