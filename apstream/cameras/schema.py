"""What a camera file may say: the validated shape of the YAML."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apstream.cameras.sections import parse_section

__all__ = [
    "AmplifierSpec",
    "DetectorsSpec",
    "FilterSpec",
    "FromHeader",
    "HduSpec",
    "HeaderSpec",
    "TimeSpec",
    "VisitSpec",
    "WcsSpec",
]

Scalar = float | int | str


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FromHeader(_Spec):
    """A value that stands in the header, under the first of several keywords that is there."""

    keyword: tuple[str, ...] = Field(description="Keywords in order of preference.")
    default: Scalar | None = Field(None, description="Used where no keyword is there.")
    sentinels: tuple[Scalar, ...] = Field((), description="Header values that mean 'not known'.")
    map: dict[str, Scalar] = Field(default_factory=dict, description="Header value to our value.")

    @field_validator("keyword", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("keyword")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(key.strip() for key in value):
            raise ValueError("name at least one header keyword")
        return value


Number = float | FromHeader
#: A section string, ``full`` for the whole array, or a header keyword that holds a section string.
SectionSpec = str | FromHeader


class AmplifierSpec(_Spec):
    """One amplifier, or several alike: ``{n}`` in names and keywords becomes each of `repeat`."""

    name: str = Field("A", description="Name; may contain {n}.")
    repeat: tuple[str, ...] | FromHeader | None = Field(
        None, description="Names put in the place of {n}, or a header keyword that holds their number."
    )
    data: SectionSpec = Field("full", description="Image pixels in the raw array.")
    overscan: SectionSpec | None = Field(None, description="Serial overscan in the raw array.")
    parallel_overscan: SectionSpec | None = Field(None, description="Parallel overscan in the raw array.")
    target: SectionSpec | None = Field(None, description="Place in the assembled detector; default: trimmed.")
    gain: Number = Field(description="Electrons per ADU.")
    read_noise: Number = Field(description="Electrons.")
    saturation: Number = Field(description="ADU after overscan subtraction.")
    flip_x: bool = Field(False, description="Mirror in x on assembly.")
    flip_y: bool = Field(False, description="Mirror in y on assembly.")
    backward_x: bool | Literal["overscan"] = Field(
        False,
        description="The raw array holds rows against the order of reading; overscan: where the overscan comes first.",
    )
    backward_y: bool = Field(False, description="The raw array holds columns against the order of reading.")

    @field_validator("data", "overscan", "parallel_overscan", "target")
    @classmethod
    def _section(cls, value: SectionSpec | None) -> SectionSpec | None:
        if isinstance(value, str) and value != "full":
            parse_section(value)
        return value


class HduSpec(_Spec):
    """Which HDU of a file holds a detector; without either, the first with a two-dimensional image."""

    index: int | None = Field(None, ge=0, description="Position in the file.")
    name: str | None = Field(None, description="EXTNAME; may contain {name} and {number}.")


class DetectorsSpec(_Spec):
    """The detectors: their numbers and names, and how a header tells which one it is."""

    number: int | FromHeader = Field(0, description="Detector number, constant or from the header.")
    names: dict[int, str] = Field(default_factory=dict, description="Number to name; empty means any number.")
    hdu: HduSpec = HduSpec()
    raw_shape: tuple[int, int] | None = Field(None, description="(rows, columns) of the raw array; None: any.")

    @model_validator(mode="after")
    def _range(self) -> DetectorsSpec:
        if any(not 0 <= number < 256 for number in self.names):
            raise ValueError("detector numbers must lie in 0..255")
        return self


class VisitSpec(_Spec):
    """Where the visit number comes from; the sources are tried in the order of these fields."""

    keyword: tuple[str, ...] = Field((), description="Integer header keywords.")
    filename: str | None = Field(None, description="Regular expression on the file name; group 1 is the number.")
    time: bool = Field(False, description="Fall back on the time of observation, YYMMDDhhmmss.")

    @field_validator("keyword", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("filename")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError("the regular expression needs exactly one group")
        return value

    @model_validator(mode="after")
    def _some(self) -> VisitSpec:
        if not (self.keyword or self.filename or self.time):
            raise ValueError("give keyword, filename or time")
        return self


class TimeSpec(_Spec):
    """When the exposure was taken.

    `date` (with `clock` for cameras that keep the time of day apart) is preferred because strings carry more
    digits; `mjd` serves where the date has no time, and as a check of it.
    """

    date: tuple[str, ...] = Field((), description="ISO date-time or date keywords.")
    clock: str | None = Field(None, description="Keyword of the time of day, for dates without one.")
    mjd: tuple[str, ...] = Field((), description="Modified Julian date keywords.")
    scale: Literal["utc", "tai"] | FromHeader = Field("utc", description="Time scale of the header.")
    refers_to: Literal["start", "mid", "end"] = Field("start", description="Moment of the exposure meant.")
    tolerance_s: float | None = Field(2.0, gt=0, description="Largest difference of date and mjd; None: no check.")

    @field_validator("date", "mjd", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some(self) -> TimeSpec:
        if not (self.date or self.mjd):
            raise ValueError("give date or mjd")
        return self


class HeaderSpec(_Spec):
    """Header keywords to what the pipeline wants to know."""

    visit: VisitSpec
    time: TimeSpec
    exposure_s: Number
    filter: FromHeader | str = Field(description="Filter name, constant or from the header.")
    ra: FromHeader | None = None
    dec: FromHeader | None = None
    ra_unit: Literal["auto", "hour", "degree"] = Field(
        "auto", description="auto: sexagesimal text is hours, a plain number is degrees."
    )
    object_name: FromHeader | str = ""
    observation_type: FromHeader | str = "science"


class FilterSpec(_Spec):
    """Header filter names that match `match` belong to `band`."""

    match: str = Field(description="Regular expression on the whole header value.")
    band: str = Field(pattern=r"^[A-Za-z0-9_]+$", description="Band name of the products.")
    physical: str | None = Field(None, description="Name of the filter; default: the header value.")

    @field_validator("match", mode="before")
    @classmethod
    def _compiles(cls, value: Any) -> str:
        try:
            re.compile(str(value))
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return str(value)


class WcsSpec(_Spec):
    """The header's WCS: whether to use it, and which pixels it counts."""

    usable: bool = Field(True, description="False: ignore any WCS in the header.")
    frame: Literal["raw", "assembled"] = Field("raw", description="Pixel frame of CRPIX.")
