"""Detector calibrations: plain 2-D arrays, and lists or maps of defects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32
from apstream.errors import BadFile, WrongSize
from apstream.model.calibs import KIND_CARD
from apstream.model.defects import Defects
from apstream.model.geometry import Box
from apstream.repo.formats.documents import defects_from, defects_to, yaml_reader, yaml_writer
from apstream.repo.formats.hdus import file_name, open_binary, open_fits

__all__ = [
    "read_array",
    "read_array_box",
    "read_defects",
    "require_kind",
    "write_array",
    "write_calib",
    "write_defects",
    "write_master",
]

_GZIP = b"\x1f\x8b"
_read_list: Callable[[Path], Defects] = yaml_reader(defects_from, "defects")
#: Write defects as YAML: boxes, 0-based and half-open.
write_defects = yaml_writer(defects_to)


def read_array(path: Path) -> F32:
    """Read the first image of a FITS file, compressed or not."""
    with open_fits(path) as hdus:
        return np.ascontiguousarray(_first_image(hdus, str(path)).data, dtype=np.float32)


def read_array_box(source: BinaryIO, box: Box) -> F32:
    """Read the rows of `box` from an open file and return the box; WrongSize if it reaches outside the image."""
    with open_fits(source) as hdus:
        hdu = _first_image(hdus, file_name(source))
        whole = Box.from_shape(hdu.shape)
        if box.intersect(whole) != box:
            raise WrongSize(
                f"{box} is not inside {whole}", where=file_name(source), remedy="ask for a box inside the image"
            )
        return np.ascontiguousarray(hdu.section[box.slices(whole)], dtype=np.float32)


def write_array(path: Path, value: Any) -> None:
    """Write a 2-D array; TypeError for values that float32, which it comes back as, does not hold."""
    _array_hdu(value).writeto(path, overwrite=True)


def write_calib(path: Path, value: Any, kind: str) -> None:
    """Write a 2-D array of calibration with the card that says which; errors as `write_array`."""
    hdu = _array_hdu(value)
    _say_kind(hdu.header, kind)
    hdu.writeto(path, overwrite=True)


def _array_hdu(value: Any) -> fits.PrimaryHDU:
    pixels = np.asarray(value, np.float32)
    if pixels.ndim != 2 or not np.array_equal(pixels, value, equal_nan=value.dtype.kind == "f"):
        raise TypeError(f"an array of calibration is 2-D float32, not {value.ndim}-D {value.dtype}: convert it first")
    return fits.PrimaryHDU(pixels)


def write_master(
    path: Path, image: F32, noise: F32 | None, *, kind: str, numbers: Mapping[str, float], used: Sequence[str]
) -> None:
    """Write a combined frame, its error as extension NOISE, kind and numbers as cards, the frames in it as HISTORY."""
    primary = fits.PrimaryHDU(np.asarray(image, np.float32))
    _say_kind(primary.header, kind)
    for name, value in numbers.items():
        primary.header[f"HIERARCH {name.upper()}"] = float(value) if np.isfinite(value) else str(value)
    for name in used:
        primary.header.add_history(name.encode("ascii", "replace").decode())
    extensions = [] if noise is None else [fits.ImageHDU(np.asarray(noise, np.float32), name="NOISE")]
    fits.HDUList([primary, *extensions]).writeto(path, overwrite=True)


def _say_kind(header: fits.Header, kind: str) -> None:
    header[KIND_CARD] = (kind, "kind of calibration")


def read_defects(path: Path) -> Defects:
    """Read defects from YAML boxes, or from a FITS map in which nonzero pixels are bad.

    Raises
    ------
    FileMissing, BadFile
        If there is no such file or it is neither.
    """
    return Defects.from_mask(read_array(path) != 0) if _is_fits(path) else _read_list(path)


def require_kind(path: Path, kind: str) -> None:
    """Refuse a file that says it is another kind of calibration; those of others do not say and are taken.

    Raises
    ------
    FileMissing, BadFile
        If there is no such file, or it is of another kind.
    """
    if not _is_fits(path):
        return
    with open_fits(path) as hdus:
        said = str(hdus[0].header.get(KIND_CARD, kind))
    if said != kind:
        remedy = f"give it as {said}, or another file as {kind}"
        raise BadFile(f"its header says that it is {said}, and {kind} is wanted", where=str(path), remedy=remedy)


def _is_fits(path: Path) -> bool:
    with open_binary(path) as file:
        return file.read(6).startswith((b"SIMPLE", _GZIP))


def _first_image(hdus: fits.HDUList, where: str) -> Any:
    hdu = next((h for h in hdus if h.is_image and h.header.get("NAXIS") == 2), None)
    if hdu is None:
        raise BadFile("no 2-D image in the file", where=where, remedy="give a calibration image")
    return hdu
