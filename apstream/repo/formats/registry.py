"""Storage formats by name: how a value is read, written and placed on the sky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from astropy.io import fits

from apstream.arrays.types import F32
from apstream.model.columns import DIA_SOURCE
from apstream.model.products import SkyCircle
from apstream.model.skymap import SkyMap
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.fits import read_calexp, read_difference, write_image
from apstream.repo.formats.hdus import float_image, open_fits
from apstream.repo.formats.parquet import read_records, write_records

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a dataset is read and written; `region` says where on the sky it lies, if anywhere."""

    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None]
    region: Callable[[Any], SkyCircle | None] = lambda value: None


def _read_array(path: Path) -> F32:
    with open_fits(path) as hdus:
        return float_image(next(hdu for hdu in hdus if hdu.data is not None))


def _write_array(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        fits.PrimaryHDU(value).writeto(temporary, overwrite=True)


def _refuse(path: Path, value: Any) -> None:
    raise TypeError(f"{path}: this dataset type is ingested, not put")


def _circle(value: Any) -> SkyCircle | None:
    return None if value.wcs is None else SkyCircle(*value.wcs.circle(value.box))


def _write_skymap(path: Path, value: SkyMap) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(value.to_dict()))


FORMATS: dict[str, Format] = {
    "raw": Format(lambda path: path, _refuse),
    "array": Format(_read_array, _write_array),
    "refcat": Format(read_refcat, _refuse),
    "skymap": Format(lambda path: SkyMap.from_dict(yaml.safe_load(path.read_text())), _write_skymap),
    "calexp": Format(read_calexp, write_image, _circle),
    "difference": Format(read_difference, write_image, _circle),
    "dia_source": Format(
        lambda path: read_records(path, DIA_SOURCE), lambda path, value: write_records(path, value, DIA_SOURCE)
    ),
}
