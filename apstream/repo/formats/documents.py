"""Small things as text: plain mappings and lists, calibrations, sky maps, notes.

Keys are sorted and floats written in full: the same value gives the same bytes and comes back the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from apstream.errors import BadFile, FileMissing
from apstream.model.defects import Defects
from apstream.model.geometry import Box
from apstream.model.photocalib import PhotoCalib
from apstream.yaml_text import parse_yaml

if TYPE_CHECKING:
    from apstream.model.skymap import SkyMap

__all__ = [
    "defects_from",
    "defects_to",
    "photo_calib_from",
    "plain_values",
    "read_bytes",
    "read_json",
    "read_text",
    "read_yaml",
    "skymap_from",
    "write_json",
    "write_text",
    "write_yaml",
    "yaml_reader",
    "yaml_writer",
]

_SCALARS = (str, int, float, bool, type(None))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; FileMissing if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise FileMissing("no such file", where=str(path), remedy="check the path") from error


def read_text(path: Path) -> str:
    """Read a text; BadFile if it is not UTF-8."""
    with _readable(path, "text"):
        return read_bytes(path).decode()


def write_text(path: Path, value: str) -> None:
    """Write a text as it is, line ends included."""
    path.write_bytes(value.encode())


def read_json(path: Path) -> Any:
    """Read a mapping or list; BadFile if it is no JSON."""
    with _readable(path, "JSON"):
        return _container(json.loads(read_bytes(path)))


def write_json(path: Path, value: Any) -> None:
    """Write a mapping or list; TypeError for what JSON would change (keys must be text)."""
    path.write_text(json.dumps(plain_values(value, (str,)), sort_keys=True, indent=1) + "\n", encoding="ascii")


def read_yaml(path: Path) -> Any:
    """Read a mapping or list; BadFile if it is no YAML."""
    with _readable(path, "YAML"):
        return _container(parse_yaml(read_bytes(path)))


def write_yaml(path: Path, value: Any) -> None:
    """Write a mapping or list; TypeError for what YAML would change (keys must be text or integers)."""
    path.write_text(yaml.safe_dump(plain_values(value, (str, int)), sort_keys=True), encoding="ascii")


def yaml_reader(make: Callable[[Any], Any], what: str) -> Callable[[Path], Any]:
    """Return what reads a noun from YAML: `make` gets the plain values, its complaints become BadFile.

    `what` is what users call the noun.
    """

    def read(path: Path) -> Any:
        with _readable(path, what):
            return make(_container(parse_yaml(read_bytes(path))))

    return read


def yaml_writer(plain: Callable[[Any], Any]) -> Callable[[Path, Any], None]:
    """Return what writes a noun as YAML; `plain` makes plain values of it."""
    return lambda path, value: write_yaml(path, plain(value))


def photo_calib_from(values: Any) -> PhotoCalib:
    """Make a photometric calibration of its fields by name."""
    box = values.get("box")
    map_of = {"spatial_mag": tuple(values.get("spatial_mag", ())), "box": None if box is None else Box(**box)}
    return PhotoCalib(**{**values, **map_of})


def skymap_from(values: Any) -> SkyMap:
    """Make a sky map of what `SkyMap.to_dict` gave."""
    from apstream.model.skymap import SkyMap  # with its tilings: nothing else here needs it

    return SkyMap.from_dict(values)


def defects_to(value: Defects) -> dict[str, Any]:
    """Return the boxes, 0-based and half-open."""
    return {"boxes": [asdict(box) for box in value.boxes]}


def defects_from(values: Any) -> Defects:
    """Make defects of what `defects_to` gave."""
    return Defects(tuple(Box(**box) for box in values["boxes"]))


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, LookupError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, KeyError):
            reason = f"it lacks {reason}"
        remedy = f"give a {what} file; mend it or write it again"
        raise BadFile(f"not what was expected of this {what} file: {reason}", where=str(path), remedy=remedy) from error


def _container(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise ValueError(f"neither a mapping nor a list, but {type(value).__name__}")
    return value


def plain_values(value: Any, keys: tuple[type, ...] = (str,), where: str = "value") -> Any:
    """Return mappings, lists (or tuples) and numbers as plain Python has them.

    Raises
    ------
    TypeError
        For a key or a value that would not come back as it is; names the place.
    """
    if isinstance(value, dict):
        if strange := [key for key in value if type(key) not in keys]:
            raise TypeError(f"{where} has the key {strange[0]!r}, which does not come back as it is")
        return {key: plain_values(item, keys, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item, keys, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in _SCALARS:
        raise TypeError(f"{where} is a {type(value).__name__}; give plain numbers, text, lists and mappings")
    return value
