"""Storage formats by name: how a value is read, whole or in part, written, and placed on the sky."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml
from astropy.io import fits

from apstream.arrays.types import F32
from apstream.errors import BadSettings
from apstream.model.columns import DIA_SOURCE
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Exposure
from apstream.model.geometry import Box
from apstream.model.products import SkyCircle
from apstream.model.skymap import SkyMap
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.fits import (
    box_reader,
    part_readers,
    read_calexp,
    read_characterized,
    read_difference,
    read_exposure,
    write_exposure,
)
from apstream.repo.formats.hdus import float_image, open_fits
from apstream.repo.formats.parquet import read_records, records_to_table, write_table

__all__ = ["FORMATS", "Format", "get_format"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How datasets are kept in files.

    Parameters
    ----------
    type
        What may be written; nothing where it is empty.
    read
        Reads a file whole.
    write
        Writes a plain file at the path given; the same value gives the same bytes.
    components
        By name, what reads one part of an open file, and little more than that part.
    read_box
        Reads, from an open file, the same type of value cut to a box; None where boxes make no sense.
    region
        Where on the sky a value lies, None if nowhere.
    """

    type: type[Any] | tuple[type[Any], ...]
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None]
    components: Mapping[str, Callable[[BinaryIO], Any]] = field(default_factory=dict)
    read_box: Callable[[BinaryIO, Box], Any] | None = None
    region: Callable[[Any], SkyCircle | None] = lambda value: None


def get_format(name: str) -> Format:
    """Return a format by name, or a user's own as ``module:ATTRIBUTE``.

    Raises
    ------
    BadSettings
        If there is no such format; names what there is.
    """
    if name in FORMATS:
        return FORMATS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, FORMATS, n=3) or sorted(FORMATS)
        raise BadSettings(f"no format {name!r}", remedy=f"did you mean {', '.join(near)}? Or give module:ATTRIBUTE")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        message = f"format {name!r} cannot be loaded: {error}"
        raise BadSettings(message, remedy="check the module path and the attribute") from error
    if not isinstance(found, Format):
        message = f"format {name!r} is a {type(found).__name__}, not a Format"
        raise BadSettings(message, remedy="name an instance of apstream.repo.formats.registry.Format")
    return found


def _read_array(path: Path) -> F32:
    with open_fits(path) as hdus:
        return float_image(next(hdu for hdu in hdus if hdu.data is not None))


def _write_array(path: Path, value: Any) -> None:
    fits.PrimaryHDU(value).writeto(path, overwrite=True)


def _refuse(path: Path, value: Any) -> None:
    raise TypeError(f"{path}: this dataset type is ingested, not put")


def _circle(value: Any) -> SkyCircle | None:
    return None if value.wcs is None else SkyCircle(*value.wcs.circle(value.box))


def _write_skymap(path: Path, value: SkyMap) -> None:
    path.write_text(yaml.safe_dump(value.to_dict()))


def _exposure(kind: Any, read: Callable[[Path], Any]) -> Format:
    return Format(
        type=kind,
        read=read,
        write=write_exposure,
        components=part_readers(kind),
        read_box=box_reader(kind),
        region=_circle,
    )


FORMATS: dict[str, Format] = {
    "raw": Format(type=(), read=lambda path: path, write=_refuse),
    "array": Format(type=np.ndarray, read=_read_array, write=_write_array),
    "refcat": Format(type=(), read=read_refcat, write=_refuse),
    "skymap": Format(
        type=SkyMap, read=lambda path: SkyMap.from_dict(yaml.safe_load(path.read_text())), write=_write_skymap
    ),
    "exposure": _exposure(Exposure, read_exposure),
    "characterized": _exposure(CharacterizedExposure, read_characterized),
    "calexp": _exposure(CalExp, read_calexp),
    "difference": _exposure(DifferenceImage, read_difference),
    "dia_source": Format(
        type=np.ndarray,
        read=lambda path: read_records(path, DIA_SOURCE),
        write=lambda path, value: write_table(path, records_to_table(value, DIA_SOURCE)),
    ),
}
