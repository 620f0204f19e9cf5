"""Storage formats by name: how a value is read, whole or in part, written, and placed on the sky."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from apstream.errors import BadSettings
from apstream.imports import load_object
from apstream.model.bright_objects import BrightObjects
from apstream.model.columns import DIA_SOURCE, TableSpec
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.model.exposures import Background, CalExp, CharacterizedExposure, DifferenceImage, Exposure
from apstream.model.geometry import Box
from apstream.model.linearity import Linearity
from apstream.model.photocalib import PhotoCalib
from apstream.model.products import SkyCircle
from apstream.model.psf import Psf
from apstream.model.skymap import SkyMap
from apstream.model.sources import INSTRUMENTAL_SOURCE, SOURCE, with_measured
from apstream.model.transfer import PhotonTransfer
from apstream.model.transmission import TransmissionCurve
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.amplifiers import (
    crosstalk_from,
    crosstalk_to,
    linearity_from,
    linearity_to,
    transfer_from,
    transfer_to,
)
from apstream.repo.formats.bits import read_bits, write_bits
from apstream.repo.formats.calibs import (
    read_array,
    read_array_box,
    read_defects,
    write_array,
    write_calib,
    write_defects,
)
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.curves import read_transmission, write_transmission
from apstream.repo.formats.documents import (
    photo_calib_from,
    read_json,
    read_text,
    read_yaml,
    skymap_from,
    write_json,
    write_text,
    write_yaml,
    yaml_reader,
    yaml_writer,
)
from apstream.repo.formats.fits import (
    box_reader,
    part_readers,
    read_calexp,
    read_characterized,
    read_difference,
    read_exposure,
    write_exposure,
)
from apstream.repo.formats.parquet import read_records, read_sources, read_table, records_to_table, write_table
from apstream.repo.formats.regions import read_regions, write_regions
from apstream.repo.formats.single import (
    read_background,
    read_mask,
    read_mask_box,
    read_psf,
    read_wcs,
    write_background,
    write_mask,
    write_psf,
    write_wcs,
)

__all__ = ["FITS", "FORMATS", "YAML", "Format", "get_format"]


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
    endings
        Of files that `write` may be asked for by name; empty: any.
    """

    type: type[Any] | tuple[type[Any], ...]
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None]
    components: Mapping[str, Callable[[BinaryIO], Any]] = field(default_factory=dict)
    read_box: Callable[[BinaryIO, Box], Any] | None = None
    region: Callable[[Any], SkyCircle | None] = lambda value: None
    endings: tuple[str, ...] = ()


#: What the names of files end in, those that a product is written to by name.
FITS, _TABLES, YAML = (".fits", ".fit", ".fts"), (".parquet",), (".yaml", ".yml")


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
    found = load_object(name, "format")
    if not isinstance(found, Format):
        message = f"format {name!r} is a {type(found).__name__}, not a Format"
        raise BadSettings(message, remedy="name an instance of apstream.repo.formats.registry.Format")
    return found


def _refuse(path: Path, value: Any) -> None:
    raise TypeError(f"{path}: this dataset type is ingested, not put")


def _circle(value: Any) -> SkyCircle | None:
    return None if value.wcs is None else SkyCircle(*value.wcs.circle(value.box))


def _exposure(kind: Any, read: Callable[[Path], Any]) -> Format:
    return Format(
        type=kind,
        read=read,
        write=write_exposure,
        components=part_readers(kind),
        read_box=box_reader(kind),
        region=_circle,
        endings=FITS,
    )


def _array(write: Callable[[Path, Any], None]) -> Format:
    return Format(type=np.ndarray, read=read_array, write=write, read_box=read_array_box, endings=FITS)


def _records(spec: TableSpec) -> Format:
    return Format(
        type=np.ndarray,
        read=lambda path: read_records(path, spec),
        write=lambda path, value: write_table(path, records_to_table(spec.require(value), spec)),
        endings=_TABLES,
    )


def _sources(spec: TableSpec) -> Format:
    """Return the format of source lists: the columns of `spec`, and beside them those of measurements."""

    def write(path: Path, value: Any) -> None:
        write_table(path, records_to_table(value, with_measured(spec, value.dtype)))

    return Format(type=np.ndarray, read=lambda path: read_sources(path, spec), write=write, endings=_TABLES)


def _yaml(kind: type[Any], what: str, make: Callable[[Any], Any], plain: Callable[[Any], Any]) -> Format:
    return Format(type=kind, read=yaml_reader(make, what), write=yaml_writer(plain), endings=YAML)


FORMATS: dict[str, Format] = {
    "raw": Format(type=(), read=lambda path: path, write=_refuse),
    "refcat": Format(type=(), read=read_refcat, write=_refuse),
    "exposure": _exposure(Exposure, read_exposure),
    "characterized": _exposure(CharacterizedExposure, read_characterized),
    "calexp": _exposure(CalExp, read_calexp),
    "difference": _exposure(DifferenceImage, read_difference),
    "wcs": Format(type=SkyWcs, read=read_wcs, write=write_wcs, endings=FITS),
    "psf": Format(type=Psf, read=read_psf, write=write_psf, endings=FITS),
    "mask": Format(type=np.ndarray, read=read_mask, write=write_mask, read_box=read_mask_box, endings=FITS),
    "background": Format(type=Background, read=read_background, write=write_background, endings=FITS),
    "photo_calib": _yaml(PhotoCalib, "photometric calibration", photo_calib_from, asdict),
    "transmission": Format(type=TransmissionCurve, read=read_transmission, write=write_transmission, endings=_TABLES),
    "array": _array(write_array),
    **{kind: _array(partial(write_calib, kind=kind)) for kind in ("bias", "dark", "flat", "fringe", "bfKernel")},
    "bits": Format(type=np.ndarray, read=read_bits, write=write_bits, endings=FITS),
    "regions": Format(type=BrightObjects, read=read_regions, write=write_regions, endings=(".reg",)),
    "defects": Format(type=Defects, read=read_defects, write=write_defects, endings=YAML),
    "crosstalk": _yaml(Crosstalk, "crosstalk", crosstalk_from, crosstalk_to),
    "linearity": _yaml(Linearity, "linearity", linearity_from, linearity_to),
    "photon_transfer": _yaml(PhotonTransfer, "photon transfer (ptc)", transfer_from, transfer_to),
    "skymap": _yaml(SkyMap, "sky map", skymap_from, SkyMap.to_dict),
    "table": Format(type=pa.Table, read=read_table, write=write_table, endings=_TABLES),
    "stars": _sources(SOURCE),
    "instrumental_stars": _sources(INSTRUMENTAL_SOURCE),
    "dia_source": _records(DIA_SOURCE),
    "yaml": Format(type=(dict, list), read=read_yaml, write=write_yaml, endings=YAML),
    "json": Format(type=(dict, list), read=read_json, write=write_json, endings=(".json",)),
    "text": Format(type=str, read=read_text, write=write_text, endings=(".txt",)),
}
