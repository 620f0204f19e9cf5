"""Calibrations that ship with a camera: defects and crosstalk that do not change from night to night."""

from __future__ import annotations

import datetime
import itertools
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from apstream.cameras.sections import parse_section
from apstream.errors import BadCamera
from apstream.model.crosstalk import Crosstalk
from apstream.model.defects import Defects
from apstream.yaml_text import parse_yaml

__all__ = ["CuratedCalib", "load_curated"]


class CuratedCalib(BaseModel):
    """One calibration that ships with a camera.

    Parameters
    ----------
    type
        ``defects`` or ``crosstalk``: the dataset type it is ingested as.
    valid
        MJD TAI, half-open; infinite at an open end.
    source
        Where it is known from.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    type: Literal["defects", "crosstalk"]
    detector: int
    valid: tuple[float, float]
    value: Defects | Crosstalk
    source: str = ""


def _mjd_tai(value: Any) -> float | None:
    """Read an MJD (TAI) or an ISO date or time (UTC)."""
    from astropy.time import Time

    if value is None or isinstance(value, (int, float)):
        return value
    words = value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value)
    try:
        return float(Time(words, scale="utc").tai.mjd)
    except ValueError:
        raise ValueError(f"{words!r} is no ISO date or MJD") from None


_When = Annotated[float | None, BeforeValidator(_mjd_tai)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: int | tuple[int, ...]
    valid_from: _When = None
    valid_to: _When = None
    boxes: tuple[str, ...] = Field((), description="FITS sections of the assembled detector.")
    names: tuple[str, ...] = Field((), description="Amplifiers, in the order of the matrix.")
    matrix: tuple[tuple[float, ...], ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> _Entry:
        if not self.valid[0] < self.valid[1]:
            raise ValueError("valid_from must come before valid_to")
        return self

    @property
    def valid(self) -> tuple[float, float]:
        """The range; infinite where open."""
        first = -math.inf if self.valid_from is None else self.valid_from
        return first, math.inf if self.valid_to is None else self.valid_to

    def value(self, type_: str) -> Defects | Crosstalk:
        """Return the calibration; ValueError if the entry holds that of the other type, or an impossible one."""
        if type_ == "defects":
            if not self.boxes or self.names or self.matrix:
                raise ValueError("an entry of defects has boxes")
            return Defects(tuple(parse_section(words).box for words in self.boxes))
        if self.boxes or not self.names:
            raise ValueError("an entry of crosstalk has names and matrix")
        return Crosstalk(self.names, np.array(self.matrix, np.float64))


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["defects", "crosstalk"]
    source: str = Field(min_length=1, description="Where this is known from.")
    entries: tuple[_Entry, ...]

    @model_validator(mode="after")
    def _possible(self) -> _File:
        for entry in self.entries:
            entry.value(self.type)
        return self


@lru_cache(maxsize=32)
def load_curated(folder: Path) -> tuple[CuratedCalib, ...]:
    """Read the curated calibrations of a folder: all its ``*.yaml``.

    Raises
    ------
    BadCamera
        If the folder is not there, a file is wrong, or two entries of a detector overlap in time.
    """
    if not folder.is_dir():
        raise BadCamera("no such folder of curated calibrations", where=str(folder), remedy="correct `curated`")
    calibs = [calib for path in sorted(folder.glob("*.yaml")) for calib in _read(path)]
    calibs.sort(key=lambda calib: (calib.type, calib.detector, calib.valid))
    for one, other in itertools.pairwise(calibs):
        if (one.type, one.detector) == (other.type, other.detector) and other.valid[0] < one.valid[1]:
            what = f"two {one.type} of detector {one.detector} are valid at MJD {other.valid[0]:.5f}"
            raise BadCamera(what, where=str(folder), remedy="let one end where the next begins")
    return tuple(calibs)


def _read(path: Path) -> list[CuratedCalib]:
    try:
        content = _File.model_validate(parse_yaml(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadCamera(f"cannot be read: {' '.join(str(error).split())}", where=str(path)) from None
    except ValidationError as error:
        fields = (f"field {'.'.join(map(str, e['loc'])) or '(file)'}: {e['msg']}" for e in error.errors())
        raise BadCamera("; ".join(fields), where=str(path), remedy="see docs/cameras.md for the fields") from None
    calibs = []
    for entry in content.entries:
        for detector in (entry.detector,) if isinstance(entry.detector, int) else entry.detector:
            value = entry.value(content.type)
            calibs.append(
                CuratedCalib(
                    type=content.type, detector=detector, valid=entry.valid, value=value, source=content.source
                )
            )
    return calibs
