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
import pyarrow.parquet
from numpy.typing import NDArray

from apstream.errors import BadCatalog
from apstream.model.products import SkyCircle
from apstream.repo.formats.starcolumns import TableSchema
from apstream.repo.formats.startables import arrow_schema, catalog_errors, is_table
from apstream.repo.store import Store, open_store

__all__ = ["COMMON_METADATA", "PARTITION_INFO", "PROPERTIES", "Hats", "is_hats", "open_hats", "partition_path"]

PROPERTIES, PARTITION_INFO, COMMON_METADATA = "hats.properties", "partition_info.csv", "_common_metadata"
_PROPERTIES = (PROPERTIES, "properties")
_COLLECTION = "collection.properties"
_PARTITION = re.compile(r"dataset/Norder=(\d+)/Dir=\d+/Npix=(\d+)")
_DIRECTORY = 10_000  # pixels per Dir=


@dataclass(frozen=True, slots=True)
class Hats:
    """A catalogue in HATS layout; made by `open_hats`.

    Parameters
    ----------
    store
        Its directory, local or in an object store.
    properties
        What its properties file says.
    orders, pixels
        HEALPix order and nested pixel of each partition.
    """

    store: Store
    properties: Mapping[str, str]
    orders: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @property
    def n_rows(self) -> int:
        """Number of rows, from the properties or else from all partitions."""
        said = self.properties.get("hats_nrows", "")
        return int(said) if said.isdigit() else sum(self._metadata(file).num_rows for file in self.files())

    def files(self, region: SkyCircle | None = None) -> list[str]:
        """Return the files of the partitions that overlap `region`, of all without one; paths in the directory."""
        inside = np.ones(len(self.orders), bool) if region is None else self._overlapping(region)
        suffix = self.properties.get("hats_npix_suffix", ".parquet")
        found: list[str] = []
        for order, pixel in zip(self.orders[inside].tolist(), self.pixels[inside].tolist(), strict=True):
            path = "dataset/" + partition_path(order, pixel, suffix.rstrip("/"))
            found += [p for p in self.store.walk(path) if ".par" in p] if suffix == "/" else [path]
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
        path = f"dataset/{COMMON_METADATA}"
        if not self.store.exists(path):
            path = next(iter(self.files(region) or self.files()))
        known = arrow_schema(self._metadata(path).schema.to_arrow_schema(), self.store.url)
        ra, dec = self.properties.get("hats_col_ra", ""), self.properties.get("hats_col_dec", "")
        return replace(known, positions=(ra, dec)) if {ra, dec} <= known.units.keys() else known

    def _metadata(self, path: str) -> Any:
        with catalog_errors(self.store.location(path)), self.store.open(path) as file:
            return pa.parquet.read_metadata(file)

    def read(
        self, names: Sequence[str], region: SkyCircle | None = None, *, positions: tuple[str, str] | None = None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the columns `names` of each partition that overlaps `region`.

        With `positions`, the names of right ascension and declination in degrees, rows outside a box around the
        region are left out, and row groups that hold no others are not read.
        """
        rows = _box(region, *positions) if region is not None and positions else None
        for path in self.files(region):
            with catalog_errors(self.store.location(path)), self.store.open(path) as file:
                table = pa.parquet.read_table(file, columns=list(names), filters=rows)
                yield {name: table[name].to_numpy() for name in names}


def _box(region: SkyCircle, ra: str, dec: str) -> Any:
    import pyarrow.compute as pc

    inside = (pc.field(dec) >= region.dec - region.radius) & (pc.field(dec) <= region.dec + region.radius)
    if abs(region.dec) + region.radius >= 89:
        return inside
    half = np.rad2deg(np.arcsin(np.sin(np.deg2rad(region.radius)) / np.cos(np.deg2rad(region.dec)))) + 1e-6
    turns = [(region.ra % 360 - half + turn, region.ra % 360 + half + turn) for turn in (-360.0, 0.0, 360.0)]
    return inside & reduce(operator.or_, ((pc.field(ra) >= low) & (pc.field(ra) <= high) for low, high in turns))


def is_hats(path: Path | str) -> bool:
    """Tell whether a path or URL is a directory in HATS layout, or a HATS collection."""
    if is_table(path):  # an object store may not be asked for files below a file
        return False
    store = open_store(path)
    return store.exists(_COLLECTION) or bool(_properties(store))


def open_hats(path: Path | str) -> Hats:
    """Open a HATS catalogue, or the primary one of a collection.

    Parameters
    ----------
    path
        Its directory, or the URL of one in an object store.

    Raises
    ------
    BadCatalog
        If it is none, or its list of partitions cannot be read.
    StorageUnavailable
        If disk, network or server fail.
    """
    store = open_store(path)
    if collection := _read_properties(store, _COLLECTION):
        primary = collection.get("hats_primary_table_url", "")
        if not primary:
            return _refuse(store, "the collection names no primary table")
        return open_hats(store.location(primary))
    properties = _properties(store)
    if not properties:
        return _refuse(store, "not a HATS catalogue: no hats.properties")
    partitions = _read_partitions(store)
    if len(partitions) == 0:
        return _refuse(store, "the catalogue has no partitions")
    return Hats(store, properties, partitions[:, 0], partitions[:, 1])


def partition_path(order: int, pixel: int, suffix: str = ".parquet") -> str:
    """Return the place of a partition under ``dataset/``."""
    return f"Norder={order}/Dir={pixel // _DIRECTORY * _DIRECTORY}/Npix={pixel}{suffix}"


def _refuse(store: Store, message: str) -> Hats:
    raise BadCatalog(message, where=store.url, remedy="convert the catalogue again")


def _properties(store: Store) -> dict[str, str]:
    """Return the properties; none where there are none of a HATS catalogue (HiPS has a file of that name too)."""
    found = next(filter(None, (_read_properties(store, name) for name in _PROPERTIES)), {})
    return found if any(key.startswith("hats_") for key in found) else {}


def _read_properties(store: Store, name: str) -> dict[str, str]:
    lines = (store.read_text(name) or "").splitlines()
    pairs = (re.split(r"\s*[=:]\s*", line.strip(), maxsplit=1) for line in lines if not line.startswith(("#", "!")))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _read_partitions(store: Store) -> NDArray[np.int64]:
    listed = store.read_text(PARTITION_INFO)
    if listed is None:
        found = {(int(f[1]), int(f[2])) for p in store.walk("dataset") if (f := _PARTITION.match(p))}
        return np.array(sorted(found), np.int64).reshape(-1, 2)
    where = store.location(PARTITION_INFO)
    with catalog_errors(where):
        rows = list(csv.DictReader(listed.splitlines(), skipinitialspace=True))
        if rows and not {"Norder", "Npix"} <= rows[0].keys():
            raise BadCatalog("no columns Norder and Npix", where=where, remedy="convert the catalogue again")
        return np.array([(int(r["Norder"]), int(r["Npix"])) for r in rows], np.int64).reshape(-1, 2)
