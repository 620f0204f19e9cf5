"""Reference catalogues in one band: from a HATS catalogue the part near a region, from a table the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apstream.arrays.types import Records
from apstream.errors import BadCatalog
from apstream.model.products import SkyCircle
from apstream.model.refcat import REFCAT_DTYPE, RefCat
from apstream.model.wcs import separation
from apstream.repo.formats.hats import Hats, is_hats, open_hats
from apstream.repo.formats.starcolumns import Magnitude, StarColumns, find_columns
from apstream.repo.formats.startables import Columns, read_chunks, read_schema
from apstream.repo.store import open_store

__all__ = ["read_refcat"]


def read_refcat(
    path: Path | str,
    *,
    band: str = "",
    magnitude: str | None = None,
    color: tuple[str, str] | None = None,
    region: SkyCircle | None = None,
) -> RefCat:
    """Read a reference catalogue.

    Parameters
    ----------
    path
        Path, or URL in an object store, of a directory in HATS layout; or of a ``.fits``, ``.csv`` or ``.parquet``
        table with columns of ICRS degrees (``ra``, ``dec`` or common variants), a magnitude per band, and optionally
        proper motions in mas/yr with their epoch in years; or of a FITS table as LSST's pipelines shard them.
    band
        Band whose magnitude is wanted; without a column for it the first magnitude column serves.
    magnitude
        Name of the magnitude column, if it is to be taken by name.
    color
        Two bands (or names of magnitude columns) whose difference is the colour; None: no colour.
    region
        Only stars inside. Of a HATS catalogue only the partitions that overlap it are opened.

    Returns
    -------
    RefCat
        Stars with a position and a magnitude; none if the catalogue has none in `region`.

    Raises
    ------
    FileMissing, BadFile, StorageUnavailable
        If the file is not there or cannot be read.
    BadCatalog
        If position or magnitude columns, or a band of the colour, are missing, or no row is usable.
    """
    parts, rows, usable, substitute = [], 0, False, ""
    wanted = _Wanted(band, magnitude, color)
    for columns, chosen, data in _pieces(path, wanted, region):
        stars, substitute = _stars(columns, chosen, data), wanted.substitute(columns, chosen)
        rows += len(stars)
        stars = stars[np.isfinite(stars["ra"]) & np.isfinite(stars["dec"]) & np.isfinite(stars["mag"])]
        usable |= len(stars) > 0
        if region is not None:
            stars = stars[separation(region.ra, region.dec, stars["ra"], stars["dec"]) <= region.radius]
        parts.append(stars)
    if not usable and (region is None or not is_hats(path)):
        reason = "no row has a position and a magnitude" if rows else "the table has no rows"
        raise BadCatalog(reason, where=str(path), remedy="give a catalogue of the field")
    return RefCat(np.concatenate([np.zeros(0, REFCAT_DTYPE), *parts]), str(path), substitute)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which brightness a reader asked for."""

    band: str
    magnitude: str | None
    color: tuple[str, str] | None

    def among(self, columns: StarColumns) -> list[Magnitude]:
        """Return the magnitude, and after it the two of the colour if there is to be one."""
        return [columns.choose(self.band, self.magnitude), *(columns.exactly(name) for name in self.color or ())]

    def substitute(self, columns: StarColumns, chosen: list[Magnitude]) -> str:
        """Return the column whose magnitudes stand for those of the band, empty where the band has its own."""
        own = self.magnitude or not self.band or columns.of_band(self.band)
        return "" if own else chosen[0].column


_Piece = tuple[StarColumns, list[Magnitude], Columns]


def _pieces(path: Path | str, wanted: _Wanted, region: SkyCircle | None) -> Iterator[_Piece]:
    if is_hats(path):
        yield from _hats_pieces(open_hats(path), wanted, region)
        return
    with _local(path) as file:
        columns = find_columns(read_schema(file))
        chosen = wanted.among(columns)
        yield from ((columns, chosen, data) for data in read_chunks(file, columns.needed(chosen)))


@contextmanager
def _local(path: Path | str) -> Iterator[Path]:
    """Give a table as a local file, fetched from an object store for the time being."""
    if isinstance(path, Path) or "://" not in path:
        yield Path(path)
        return
    folder, _, name = path.rpartition("/")
    with open_store(folder).fetch(name) as file:
        yield file


def _hats_pieces(catalog: Hats, wanted: _Wanted, region: SkyCircle | None) -> Iterator[_Piece]:
    columns = find_columns(catalog.schema(region))
    chosen = wanted.among(columns)
    positions = (columns.ra, columns.dec) if columns.in_degrees else None
    for data in catalog.read(columns.needed(chosen), region, positions=positions):
        yield columns, chosen, data


def _stars(columns: StarColumns, chosen: list[Magnitude], data: Columns) -> Records:
    ra, dec = columns.positions(data)
    stars = np.zeros(len(ra), REFCAT_DTYPE)
    stars["ra"], stars["dec"] = ra, dec
    stars["mag"], stars["mag_err"] = columns.brightness(data, chosen[0])
    stars["color"] = np.nan
    if len(chosen) == 3:
        stars["color"] = np.subtract(*(columns.brightness(data, one)[0] for one in chosen[1:]))
    stars["pm_ra"] = columns.motion(data, columns.pm_ra, len(ra))
    stars["pm_dec"] = columns.motion(data, columns.pm_dec, len(ra))
    stars["pm_err"] = columns.motion(data, columns.pm_err, len(ra))
    stars["parallax"] = columns.angle_mas(data, columns.parallax, len(ra))
    stars["pos_err"] = columns.angle_mas(data, columns.pos_err, len(ra))
    stars["epoch"] = columns.epochs(data, len(ra))
    return stars
