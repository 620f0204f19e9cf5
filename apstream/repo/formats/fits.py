"""Our FITS files of exposures, whole, by part or by box.

The primary header tells what there is, SCI holds pixels and WCS, then come MASK, VAR and what the stage adds (PSF,
STARS, MEASURED, KBASIS, ...). A noun is read by reading the part behind each of its fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from apstream.errors import BadFile
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Exposure
from apstream.model.geometry import Box
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.layout import FORMAT_VERSION, OurFits, open_ours, write_ours
from apstream.repo.formats.parts import PARTS, masked_image, matched_template, measured, stars
from apstream.repo.formats.sheets import AnyExposure, exposure_hdus, primary_header

__all__ = [
    "FORMAT_VERSION",
    "box_reader",
    "part_readers",
    "read_calexp",
    "read_characterized",
    "read_difference",
    "read_exposure",
    "write_exposure",
    "write_image",
]

T = TypeVar("T", Exposure, CharacterizedExposure, CalExp, DifferenceImage)
#: Parts that are not fields themselves, but what fields hold.
_DERIVED = ("box", "detector", "filter", "mask", "pixels", "polygon", "variance", "variance_sample")
_IN_BOX: dict[str, Callable[[OurFits, Box], Any]] = {
    "image": masked_image,
    "matched_template": matched_template,
    "measured": measured,
    "stars": stars,
}


def write_image(path: Path, value: AnyExposure, history: Sequence[str] = ()) -> None:
    """Write an exposure of any stage atomically; `history` are lines of text that say how it was made."""
    with atomic_path(path) as temporary:
        write_exposure(temporary, value, history)


def write_exposure(path: Path, value: AnyExposure, history: Sequence[str] = ()) -> None:
    """Write an exposure of any stage at `path` itself; the same value gives the same bytes."""
    header = primary_header(value)
    for line in history:
        header.add_history(line.encode("ascii", "backslashreplace").decode())
    write_ours(path, header, exposure_hdus(value))


def read_exposure(source: Path | BinaryIO) -> Exposure:
    """Read an `Exposure`, also from the file of a later stage; errors as `open_ours`."""
    return _read(Exposure, source)


def read_characterized(source: Path | BinaryIO) -> CharacterizedExposure:
    """Read a `CharacterizedExposure`; errors as `open_ours`."""
    return _read(CharacterizedExposure, source)


def read_calexp(source: Path | BinaryIO) -> CalExp:
    """Read a `CalExp`; errors as `open_ours`."""
    return _read(CalExp, source)


def read_difference(source: Path | BinaryIO) -> DifferenceImage:
    """Read a `DifferenceImage`; errors as `open_ours`."""
    return _read(DifferenceImage, source)


def part_readers(kind: type[AnyExposure]) -> dict[str, Callable[[BinaryIO], Any]]:
    """Return, by name, what reads one part of a noun's open file: its fields and what these hold."""
    names = [*_fields(kind), *_DERIVED, *(["calib", "summary"] if kind is CalExp else [])]
    return {name: _part_reader(kind, name) for name in sorted(names)}


def box_reader(kind: type[T]) -> Callable[[BinaryIO, Box], T]:
    """Return what reads, from a noun's open file, the same noun cut to a box; WrongSize if it reaches outside."""

    def read(source: BinaryIO, box: Box) -> T:
        return _read(kind, source, box)

    return read


def _part_reader(kind: type[AnyExposure], name: str) -> Callable[[BinaryIO], Any]:
    def read(source: BinaryIO) -> Any:
        with open_ours(source) as file:
            _require(file, kind)
            return PARTS[name](file)

    return read


def _read(kind: type[T], source: Path | BinaryIO, box: Box | None = None) -> T:
    with open_ours(source) as file:
        _require(file, kind)
        return kind(**{name: _field(file, name, box) for name in _fields(kind)})


def _field(file: OurFits, name: str, box: Box | None) -> Any:
    if box is not None and name in _IN_BOX:
        return _IN_BOX[name](file, box)
    return PARTS[name](file)


def _fields(kind: type[AnyExposure]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _require(file: OurFits, kind: type[AnyExposure]) -> None:
    found = file.header.get("APSTYPE")
    if kind is not Exposure and found != kind.__name__:
        message = f"the file holds a {found}, not a {kind.__name__}"
        raise BadFile(message, where=file.where, remedy=f"name a {kind.__name__}")
