"""A camera: what turns a raw file's header into a detector, an exposure and a first WCS."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apstream.cameras.companions import CompanionsSpec
from apstream.cameras.curation import CuratedCalib, load_curated
from apstream.cameras.headers import Header, angle_degrees, find, header_shape, number, text
from apstream.cameras.schema import (
    AmplifierSpec,
    DetectorsSpec,
    FilterSpec,
    FromHeader,
    HeaderSpec,
    SectionSpec,
    WcsSpec,
)
from apstream.cameras.sections import Section, parse_section
from apstream.cameras.times import mid_mjd_tai
from apstream.errors import BadHeader, UnknownEvent, WrongSize
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.wcs import SkyWcs

__all__ = ["DEFAULT_KEYS", "Camera", "HduChoice"]

KeyName = Literal["visit", "detector", "band", "day"]
#: Words for data-id keys that every camera understands.
DEFAULT_KEYS: dict[str, KeyName] = {"filter": "band", "ccd": "detector", "ccdnum": "detector", "date": "day"}
#: Kinds of frames that no light fell on.
_WITHOUT_LIGHT = ("bias", "dark")
_OURS = ("visit", "detector", "band", "day")

_WCS_CARD = re.compile(
    r"WCSAXES|CTYPE[12]|CUNIT[12]|CRVAL[12]|CRPIX[12]|CDELT[12]|CROTA2|(CD|PC|PV)[12]_\d+|(A|B|AP|BP)_(\d_\d|ORDER)"
    r"|RADESYS|RADECSYS|EQUINOX|LONPOLE|LATPOLE"
)


@dataclass(frozen=True, slots=True)
class HduChoice:
    """Which HDU to read: by `name` if set, else by `index` if set, else the first with a 2-D image."""

    index: int | None = None
    name: str | None = None


class Camera(BaseModel):
    """A validated camera description.

    Headers are given as mappings (an astropy Header or a dict); for a file with extensions, the extension's
    header with the primary header's cards added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Instrument name in data ids.")
    description: str = ""
    pixel_scale_arcsec: float | FromHeader = Field(description="Arcsec per pixel.")
    detectors: DetectorsSpec = DetectorsSpec()
    amplifiers: tuple[AmplifierSpec, ...] = Field(min_length=1)
    header: HeaderSpec
    filters: tuple[FilterSpec, ...] = Field(min_length=1, description="First match wins.")
    wcs: WcsSpec = WcsSpec()
    calibrated: bool = Field(False, description="Frames come bias-subtracted and flat-fielded.")
    keys: dict[str, KeyName] = Field(
        default_factory=dict, validate_default=True, description="The camera's own words for data-id keys, to ours."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the stages for this camera.")
    companions: CompanionsSpec = CompanionsSpec()
    curated_folder: Path | None = Field(
        None, alias="curated", description="Folder of curated calibrations, relative to the camera file."
    )

    @field_validator("keys")
    @classmethod
    def _with_default_keys(cls, value: dict[str, KeyName]) -> dict[str, KeyName]:
        for word, key in value.items():
            if not word.isidentifier() or (word in _OURS and word != key):
                raise ValueError(f"{word!r} cannot stand for {key}")
        return DEFAULT_KEYS | value

    @model_validator(mode="after")
    def _repeat_is_used(self) -> Camera:
        for amplifier in self.amplifiers:
            if amplifier.repeat is not None and "{n}" not in amplifier.name:
                raise ValueError("an amplifier with `repeat` needs {n} in its `name`")
        return self

    def curated(self) -> tuple[CuratedCalib, ...]:
        """Return the calibrations that ship with the camera, by type, detector and time; BadCamera if one is wrong."""
        return load_curated(self.curated_folder) if self.curated_folder else ()

    def with_options(self, **options: Any) -> Camera:
        """Return the camera with `gain`, `read_noise`, `saturation` or `pixel_scale_arcsec` fixed to numbers.

        Options that are None change nothing.
        """
        given = {key: float(value) for key, value in options.items() if value is not None}
        unknown = set(given) - {"gain", "read_noise", "saturation", "pixel_scale_arcsec"}
        if unknown:
            raise ValueError(f"a camera has no option {', '.join(sorted(unknown))}")
        scale = given.pop("pixel_scale_arcsec", self.pixel_scale_arcsec)
        amplifiers = tuple(amplifier.model_copy(update=given) for amplifier in self.amplifiers)
        return self.model_copy(update={"pixel_scale_arcsec": scale, "amplifiers": amplifiers})

    def detector_number(self, header: Header, where: str = "") -> int:
        """Return the detector number that a header names; BadHeader or UnknownEvent."""
        spec = self.detectors.number
        value = spec if isinstance(spec, int) else int(number(header, spec, what="detector", where=where))
        if self.detectors.names and value not in self.detectors.names:
            raise UnknownEvent(
                f"{self.name} has no detector {value}",
                where=where,
                remedy=f"detectors are {min(self.detectors.names)} to {max(self.detectors.names)}",
            )
        return value

    def select_hdu(self, detector: int) -> HduChoice:
        """Return which HDU of a file holds `detector`."""
        spec = self.detectors.hdu
        if spec.name is None:
            return HduChoice(index=spec.index)
        return HduChoice(name=spec.name.format(name=self._detector_name(detector), number=detector))

    def detector(self, header: Header, where: str = "") -> Detector:
        """Build the detector that a header describes.

        Raises
        ------
        BadHeader
            If a keyword is missing or its value impossible.
        WrongSize
            If the array is not of the camera's size, or a section leaves it.
        """
        shape = header_shape(header)
        if shape is not None and self.detectors.raw_shape not in (None, shape):
            message = f"raw array is {shape}, {self.name} has {self.detectors.raw_shape}"
            raise WrongSize(message, where=where, remedy="check the camera file")
        builder = _AmplifierBuilder(header, shape, where)
        amplifiers = tuple(builder.build(spec, n) for spec in self.amplifiers for n in builder.names(spec))
        value = self.detector_number(header, where)
        try:
            return Detector(
                number=value,
                name=self._detector_name(value),
                shape=Box.bounding(a.target for a in amplifiers).shape,
                pixel_scale_arcsec=number(header, self.pixel_scale_arcsec, what="pixel scale", where=where),
                amplifiers=amplifiers,
            )
        except ValueError as error:
            raise BadHeader(str(error), where=where, remedy="correct the sections in header or camera") from None

    def exposure_info(self, header: Header, filename: str = "") -> ExposureInfo:
        """Read data id, filter, time and pointing; BadHeader names what is missing."""
        spec = self.header
        exposure_s = number(header, spec.exposure_s, what="exposure time", where=filename)
        if not exposure_s >= 0:
            raise BadHeader(f"exposure time is {exposure_s}", where=filename, remedy="correct the header")
        mid = mid_mjd_tai(header, spec.time, exposure_s, where=filename)
        observed = _optional_text(header, spec.observation_type) or "science"
        physical, band = self._filter(header, filename, dark=observed in _WITHOUT_LIGHT)
        ra, dec = self._pointing(header, filename)
        visit, number_ = self._visit(header, filename, mid), self.detector_number(header, filename)
        try:
            id = VisitDetector(self.name, visit, number_)
        except ValueError as error:
            raise BadHeader(str(error), where=filename, remedy="see `visit` in the camera file") from None
        return ExposureInfo(
            id=id,
            band=band,
            physical_filter=physical,
            mid_mjd_tai=mid,
            exposure_s=exposure_s,
            ra=ra,
            dec=dec,
            object_name=_optional_text(header, spec.object_name),
            observation_type=observed,
            origin=filename,
        )

    def initial_wcs(self, header: Header, where: str = "") -> SkyWcs | None:
        """Return the header's WCS in pixels of the assembled detector, None where there is none.

        Raises
        ------
        BadHeader
            If the cards contradict each other.
        """
        if not self.wcs.usable or "CRPIX1" not in header:
            return None
        cards, trim_y, trim_x = _wcs_cards(header), 0, 0
        if self.wcs.frame == "raw":
            first = self.detector(header, where).amplifiers[0]
            trim_y, trim_x = first.data.y0 - first.target.y0, first.data.x0 - first.target.x0
        try:
            shifted = {"CRPIX1": float(cards["CRPIX1"]) - trim_x, "CRPIX2": float(cards["CRPIX2"]) - trim_y}
            return SkyWcs.from_header(cards | shifted)
        except (KeyError, ValueError, TypeError) as error:
            remedy = "correct it, or set `wcs: {usable: false}` in the camera file"
            raise BadHeader(f"the WCS cannot be used: {error}", where=where, remedy=remedy) from None

    def _detector_name(self, value: int) -> str:
        return self.detectors.names.get(value, str(value))

    def _pointing(self, header: Header, where: str) -> tuple[float, float]:
        """Return the detector's centre on the sky, or the header's pointing where there is no WCS."""
        wcs = self.initial_wcs(header, where)
        if wcs is None:
            ra = self._angle(header, self.header.ra, self.header.ra_unit, where)
            return ra % 360, self._angle(header, self.header.dec, "degree", where)
        centre = wcs.pixel_to_sky(*self.detector(header, where).box.center)
        return float(centre[0]), float(centre[1])

    def _filter(self, header: Header, where: str, *, dark: bool) -> tuple[str, str]:
        """Return filter and band; what no light fell on needs no filter that is known."""
        try:
            value = text(header, self.header.filter, what="filter", where=where)
        except BadHeader:
            if dark:
                return "none", "none"
            raise
        for spec in self.filters:
            if re.fullmatch(spec.match, value):
                return spec.physical or value, spec.band
        if dark:
            return value, "none"
        raise BadHeader(
            f"filter {value!r} is not one of {self.name}'s",
            where=where,
            remedy="add it under `filters` in the camera file",
        )

    def _visit(self, header: Header, filename: str, mid: float) -> int:
        from astropy.time import Time

        spec = self.header.visit
        for key in spec.keyword:
            try:
                return int(header[key])
            except (KeyError, TypeError, ValueError):
                continue
        found = re.search(spec.filename, Path(filename).name) if spec.filename else None
        if found:
            return int(found.group(1))
        if spec.time:
            return int(Time(mid, format="mjd", scale="tai").utc.strftime("%y%m%d%H%M%S"))
        sources = [*spec.keyword, *([f"file name like {spec.filename}"] if spec.filename else [])]
        raise BadHeader(f"no visit number: {' or '.join(sources)}", where=filename, remedy="add the keyword")

    def _angle(self, header: Header, spec: FromHeader | None, unit: str, where: str) -> float:
        value = find(header, spec) if spec else None
        if value is None:
            return math.nan
        try:
            return angle_degrees(value, unit)
        except ValueError:
            assert spec is not None
            raise BadHeader(f"{spec.keyword[0]} = {value!r} is no angle", where=where, remedy="correct it") from None


@dataclass(frozen=True, slots=True)
class _AmplifierBuilder:
    header: Header
    shape: tuple[int, int] | None
    where: str

    def names(self, spec: AmplifierSpec) -> Iterator[str]:
        if spec.repeat is None:
            yield ""
        elif isinstance(spec.repeat, FromHeader):
            count = int(number(self.header, spec.repeat, what="number of amplifiers", where=self.where))
            yield from (str(i + 1) for i in range(count))
        else:
            yield from spec.repeat

    def build(self, spec: AmplifierSpec, n: str) -> Amplifier:
        data = self.section(spec.data, n)
        target = self.section(spec.target, n) if spec.target is not None else None
        overscan = self.section(spec.overscan, n).box if spec.overscan is not None else None
        below = self.section(spec.parallel_overscan, n).box if spec.parallel_overscan is not None else None
        try:
            return Amplifier(
                name=spec.name.replace("{n}", n),
                data=data.box,
                target=target.box if target else Box.from_shape(data.box.shape),
                overscan=overscan,
                parallel_overscan=below,
                gain=self.value(spec.gain, n, "gain"),
                read_noise=self.value(spec.read_noise, n, "read noise"),
                saturation=self.value(spec.saturation, n, "saturation"),
                flip_x=spec.flip_x ^ data.flip_x ^ bool(target and target.flip_x),
                flip_y=spec.flip_y ^ data.flip_y ^ bool(target and target.flip_y),
                backward_x=_is_backward(spec, data.box, overscan),
                backward_y=spec.backward_y,
            )
        except ValueError as error:
            raise BadHeader(str(error), where=self.where, remedy="correct header or camera file") from None

    def value(self, spec: float | FromHeader, n: str, what: str) -> float:
        filled = _fill(spec, n) if isinstance(spec, FromHeader) else spec
        return number(self.header, filled, what=what, where=self.where)

    def section(self, spec: SectionSpec, n: str) -> Section:
        filled = _fill(spec, n) if isinstance(spec, FromHeader) else spec
        words = text(self.header, filled, what="amplifier section", where=self.where)
        if words == "full":
            if self.shape is None:
                raise BadHeader("no NAXIS1 and NAXIS2", where=self.where, remedy="give the image's own header")
            return Section(Box.from_shape(self.shape))
        try:
            return parse_section(words)
        except ValueError as error:
            raise BadHeader(str(error), where=self.where, remedy="correct the section") from None


def _is_backward(spec: AmplifierSpec, data: Box, overscan: Box | None) -> bool:
    if spec.backward_x == "overscan":
        return overscan is not None and overscan.x1 <= data.x0
    return spec.backward_x


def _fill(spec: FromHeader, n: str) -> FromHeader:
    keys = tuple(key.replace("{n}", n) for key in spec.keyword)
    return spec.model_copy(update={"keyword": keys})


def _optional_text(header: Header, spec: FromHeader | str) -> str:
    value = find(header, spec) if isinstance(spec, FromHeader) else spec
    return "" if value is None else str(value).strip()


def _wcs_cards(cards: Header) -> dict[str, Any]:
    return {key: cards[key] for key in cards if _WCS_CARD.fullmatch(key)}
