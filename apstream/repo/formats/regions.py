"""Regions of the sky: DS9 region files, CSV and Parquet tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from apstream.errors import BadFile, FileMissing
from apstream.model.bright_objects import BrightObjects, SkyBox, SkyDisc

__all__ = ["read_regions", "write_regions"]

_SHAPE = re.compile(r"^(circle|box)\s*\(?([^)#]*)\)?\s*(?:#(.*))?$", re.IGNORECASE)
_DS9 = re.compile(r"^(?:[a-z0-9]+;\s*)?(?:circle|box)\s*\(", re.IGNORECASE | re.MULTILINE)
_ARCSEC = {'"': 1.0, "'": 60.0, "d": 3600.0, "": 3600.0}
_FRAMES = ("icrs", "fk5", "j2000", "fk4", "b1950", "galactic", "ecliptic", "image", "physical", "linear", "detector")


def read_regions(path: Path) -> BrightObjects:
    """Read circles and boxes on the sky; what kind of file it is shows in its first bytes.

    A DS9 file holds them in ``icrs``, ``fk5`` or ``galactic``. A table (CSV or Parquet) has the columns
    ``ra``, ``dec`` (degrees) and ``radius_arcsec``, or ``width_arcsec`` and ``height_arcsec``, and perhaps ``angle``
    (degrees) and ``name``.

    Raises
    ------
    FileMissing
        If there is no such file.
    BadFile
        If it is empty, or a line or row is not a region on the sky; the message names it.
    """
    if not path.is_file():
        raise FileMissing("no such file", where=str(path), remedy="check the path")
    try:
        return BrightObjects(tuple(_of_reg(path) if _is_ds9(path) else _of_rows(_table(path), path)))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _refused(f"cannot read regions: {str(error).splitlines()[0][:120]}", str(path)) from error


def _is_ds9(path: Path) -> bool:
    """Tell a DS9 file from a table: by its columns, its name, its first words, or a region in it."""
    text = path.read_bytes()[:4096].decode("latin-1")
    if text.startswith("PAR1") or {"ra", "dec"} <= {word.strip('" ') for word in text.split("\n")[0].split(",")}:
        return False
    return path.suffix.lower() == ".reg" or text.startswith("# Region file") or _DS9.search(text) is not None


def write_regions(path: Path, value: BrightObjects) -> None:
    """Write regions as a DS9 file."""
    lines = ["# Region file format: DS9", "icrs"]
    for region in value.regions:
        if isinstance(region, SkyDisc):
            shape = f'circle({region.ra!r},{region.dec!r},{region.radius_arcsec!r}")'
        else:
            sides = f'{region.width_arcsec!r}",{region.height_arcsec!r}"'
            shape = f"box({region.ra!r},{region.dec!r},{sides},{region.angle!r})"
        lines.append(shape + (f" # text={{{region.name}}}" if region.name else ""))
    path.write_text("\n".join(lines) + "\n")


def _of_reg(path: Path) -> list[SkyDisc | SkyBox]:
    found: list[SkyDisc | SkyBox] = []
    frame = ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        for text in _statements(line):
            if text.lower() in _FRAMES:
                frame = text.lower()
            elif not text.startswith(("#", "global")):
                found.append(_of_text(text, frame, f"{path}: line {number}"))
    return found


def _statements(line: str) -> list[str]:
    if line.lstrip().startswith(("#", "global")):
        return []
    return [part.strip() for part in line.split(";") if part.strip()]


def _of_text(text: str, frame: str, where: str) -> SkyDisc | SkyBox:
    match = _SHAPE.match(text)
    if match is None:
        raise _refused(f"{text!r} is no circle or box", where)
    words = [word for word in re.split(r"[,\s]+", match[2].strip()) if word]
    name = re.search(r"text=[{\"']([^}\"']*)", match[3] or "")
    try:
        ra, dec = _position(words[0], words[1], frame)
        sizes = [_size(word) for word in words[2 : 3 if match[1].lower() == "circle" else 4]]
        if match[1].lower() == "circle":
            return SkyDisc(ra=ra, dec=dec, radius_arcsec=sizes[0], name=name[1] if name else "")
        angle = float(words[4]) if len(words) > 4 else 0.0
        return SkyBox(
            ra=ra, dec=dec, width_arcsec=sizes[0], height_arcsec=sizes[1], angle=angle, name=name[1] if name else ""
        )
    except (ValueError, IndexError) as error:
        raise _refused(f"{text!r}: {error}", where) from error


def _position(first: str, second: str, frame: str) -> tuple[float, float]:
    from astropy.coordinates import SkyCoord

    if frame not in ("icrs", "fk5", "j2000", "galactic"):
        raise ValueError(f"the frame must be icrs, fk5 or galactic, not {frame or 'none'}")
    values = (_angle(first, hours=frame != "galactic"), _angle(second, hours=False))
    if frame == "icrs":
        return values
    place = SkyCoord(*values, unit="deg", frame={"j2000": "fk5"}.get(frame, frame)).icrs
    return float(place.ra.deg), float(place.dec.deg)


def _angle(word: str, *, hours: bool) -> float:
    from astropy.coordinates import Angle

    try:
        return float(word.removesuffix("d"))
    except ValueError:
        return float(Angle(word, unit="hourangle" if hours else "deg").deg)


def _size(word: str) -> float:
    mark = word[-1] if word[-1] in _ARCSEC else ""
    return float(word.removesuffix(mark)) * _ARCSEC[mark]


def _table(path: Path) -> list[Mapping[str, Any]]:
    table = pq.read_table(path) if path.read_bytes()[:4] == b"PAR1" else pa.csv.read_csv(path)
    if not {"ra", "dec"} <= set(table.column_names):
        raise _refused("neither a DS9 file nor a table with columns ra and dec", str(path))
    rows: list[Mapping[str, Any]] = table.to_pylist()
    return rows


def _of_rows(rows: list[Mapping[str, Any]], path: Path) -> list[SkyDisc | SkyBox]:
    found: list[SkyDisc | SkyBox] = []
    for number, row in enumerate(rows, start=1):
        given = {key: value for key, value in row.items() if value is not None}
        kind = SkyDisc if "radius_arcsec" in given else SkyBox
        fields = {key: given[key] for key in kind.__dataclass_fields__ if key in given}
        if "name" in fields:
            fields["name"] = str(fields["name"])
        try:
            found.append(kind(**fields))
        except (TypeError, ValueError) as error:
            raise _refused(str(error), f"{path}: row {number}") from error
    return found


def _refused(what: str, where: str) -> BadFile:
    return BadFile(what, where=where, remedy="give circles or boxes on the sky: position in degrees, sizes in arcsec")
