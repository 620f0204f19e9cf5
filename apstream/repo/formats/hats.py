"""Catalogues in HATS layout: Parquet files by HEALPix pixel, of which a reader opens those near its region.

The layout is that of the IVOA note "Hierarchical Adaptive Tiling Scheme"::

    CATALOGUE/hats.properties
    CATALOGUE/partition_info.csv
    CATALOGUE/dataset/_common_metadata
    CATALOGUE/dataset/Norder=k/Dir=d/Npix=n.parquet
"""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from apstream.errors import BadCatalog
from apstream.model.products import SkyCircle
from apstream.repo.formats.starcolumns import TableSchema
from apstream.repo.formats.startables import arrow_schema, catalog_errors

__all__ = ["COMMON_METADATA", "PARTITION_INFO", "PROPERTIES", "Hats", "is_hats", "open_hats", "partition_path"]

PROPERTIES, PARTITION_INFO, COMMON_METADATA = "hats.properties", "partition_info.csv", "_common_metadata"
_PROPERTIES = (PROPERTIES, "properties")
_COLLECTION = "collection.properties"
_PARTITION = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)")
_DIRECTORY = 10_000  # pixels per Dir=


@dataclass(frozen=True, slots=True)
class Hats:
    """A catalogue in HATS layout; made by `open_hats`.

    Parameters
    ----------
    path
        Its directory.
    properties
        What its properties file says.
    orders, pixels
        HEALPix order and nested pixel of each partition.
    """

    path: Path
    properties: Mapping[str, str]
    orders: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @property
    def n_rows(self) -> int:
        """Number of rows, from the properties or else from all partitions."""
        said = self.properties.get("hats_nrows", "")
        if said.isdigit():
            return int(said)
        return sum(pa.parquet.read_metadata(file).num_rows for file in self.files())

    def files(self, region: SkyCircle | None = None) -> list[Path]:
        """Return the files of the partitions that overlap `region`, of all without one."""
        inside = np.ones(len(self.orders), bool) if region is None else self._overlapping(region)
        suffix = self.properties.get("hats_npix_suffix", ".parquet")
        found: list[Path] = []
        for order, pixel in zip(self.orders[inside].tolist(), self.pixels[inside].tolist(), strict=True):
            path = self.path / "dataset" / partition_path(order, pixel, suffix.rstrip("/"))
            found += sorted(p for p in path.iterdir() if p.suffix.startswith(".par")) if path.is_dir() else [path]
        return found

    def _overlapping(self, region: SkyCircle) -> NDArray[np.bool_]:
        inside = np.zeros(len(self.orders), bool)
        for order in np.unique(self.orders).tolist():
            ranges = hpgeom.query_circle(
                1 << order,
                region.ra % 360,
                region.dec,
                min(region.radius, 180.0),
                inclusive=True,
                return_pixel_ranges=True,
            )
            before = np.searchsorted(ranges[:, 0], self.pixels, side="right") - 1
            held = (before >= 0) & (self.pixels < ranges[np.maximum(before, 0), 1])
            inside |= (self.orders == order) & held
        return inside

    def schema(self, region: SkyCircle | None = None) -> TableSchema:
        """Return the columns; where the catalogue has no file for them, from a partition in `region`."""
        path = self.path / "dataset" / COMMON_METADATA
        if not path.is_file():
            path = next(iter(self.files(region) or self.files()))
        with catalog_errors(path):
            known = arrow_schema(pa.parquet.read_schema(path), self.path)
        ra, dec = self.properties.get("hats_col_ra", ""), self.properties.get("hats_col_dec", "")
        return replace(known, positions=(ra, dec)) if {ra, dec} <= known.units.keys() else known

    def read(
        self, names: Sequence[str], region: SkyCircle | None = None, *, positions: tuple[str, str] | None = None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the columns `names` of each partition that overlaps `region`.

        With `positions`, the names of right ascension and declination in degrees, rows outside a box around the
        region are left out, and row groups that hold no others are not read.
        """
        rows = _box(region, *positions) if region is not None and positions else None
        for path in self.files(region):
            with catalog_errors(path):
                table = pa.parquet.read_table(path, columns=list(names), filters=rows, partitioning=None)
                yield {name: table[name].to_numpy() for name in names}


def _box(region: SkyCircle, ra: str, dec: str) -> pc.Expression:
    inside = (pc.field(dec) >= region.dec - region.radius) & (pc.field(dec) <= region.dec + region.radius)
    if abs(region.dec) + region.radius >= 89:
        return inside
    half = np.rad2deg(np.arcsin(np.sin(np.deg2rad(region.radius)) / np.cos(np.deg2rad(region.dec)))) + 1e-6
    turns = [(region.ra % 360 - half + turn, region.ra % 360 + half + turn) for turn in (-360.0, 0.0, 360.0)]
    return inside & reduce(operator.or_, ((pc.field(ra) >= low) & (pc.field(ra) <= high) for low, high in turns))


def is_hats(path: Path | str) -> bool:
    """Tell whether a path is a directory in HATS layout, or a HATS collection."""
    path = Path(path)
    return (path / _COLLECTION).is_file() or (
        any((path / name).is_file() for name in _PROPERTIES) and (path / "dataset").is_dir()
    )


def open_hats(path: Path | str) -> Hats:
    """Open a HATS catalogue, or the primary one of a collection.

    Raises
    ------
    BadCatalog
        If it is none, or its list of partitions cannot be read.
    """
    path = Path(path)
    if (path / _COLLECTION).is_file():
        primary = _read_properties(path / _COLLECTION).get("hats_primary_table_url", "")
        return open_hats(path / primary) if primary else _refuse(path, "the collection names no primary table")
    if not is_hats(path):
        return _refuse(path, "not a HATS catalogue: no hats.properties with dataset/ beside it")
    properties = _read_properties(next(path / n for n in _PROPERTIES if (path / n).is_file()))
    partitions = _read_partitions(path)
    if len(partitions) == 0:
        return _refuse(path, "the catalogue has no partitions")
    return Hats(path, properties, partitions[:, 0], partitions[:, 1])


def partition_path(order: int, pixel: int, suffix: str = ".parquet") -> str:
    """Return the place of a partition under ``dataset/``."""
    return f"Norder={order}/Dir={pixel // _DIRECTORY * _DIRECTORY}/Npix={pixel}{suffix}"


def _refuse(path: Path, message: str) -> Hats:
    raise BadCatalog(message, where=str(path), remedy="convert the catalogue again")


def _read_properties(path: Path) -> dict[str, str]:
    with catalog_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (re.split(r"\s*[=:]\s*", line.strip(), maxsplit=1) for line in lines if not line.startswith(("#", "!")))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _read_partitions(path: Path) -> NDArray[np.int64]:
    listed = path / PARTITION_INFO
    if not listed.is_file():
        found = (_PARTITION.search(p.as_posix()) for p in (path / "dataset").glob("Norder=*/Dir=*/Npix=*"))
        return np.array(sorted((int(f[1]), int(f[2])) for f in found if f), np.int64).reshape(-1, 2)
    with catalog_errors(listed), listed.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, skipinitialspace=True))
        if rows and not {"Norder", "Npix"} <= rows[0].keys():
            raise BadCatalog("no columns Norder and Npix", where=str(listed), remedy="convert the catalogue again")
        return np.array([(int(r["Norder"]), int(r["Npix"])) for r in rows], np.int64).reshape(-1, 2)
