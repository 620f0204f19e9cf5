"""Exposure events: the JSON messages that start all work.

The canonical form is ``apstream.exposure.v1``: one message for one detector of one visit. The minimal form
is a bare ``{"uri": ...}`` without a schema, as a script beside a small telescope writes it; instrument,
visit and the rest are then read from the file's header.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from apstream.errors import MalformedEvent, OversizedEvent, UnknownEvent
from apstream.model.ids import VisitDetector

__all__ = ["EVENT_SCHEMA", "ExposureEvent"]

#: The schema name that this version writes and reads.
EVENT_SCHEMA: Final = "apstream.exposure.v1"


def _tuple_of_uris(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_Uri = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]


class ExposureEvent(BaseModel):
    """One detector of one exposure has landed.

    Everything but `uris` may be missing: what an event does not say is read from the file. Unknown fields are
    ignored, so that newer senders do no harm.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    event_id: str = Field("", max_length=256, description="Sender's name of the event; made from the uris if empty.")
    schema_name: Literal["apstream.exposure.v1"] = Field(EVENT_SCHEMA, alias="schema")
    event_time_utc: str = Field("", max_length=64, description="When the event was made, ISO 8601 UTC.")
    instrument: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._+-]*$", description="Name of the camera.")
    visit: int | None = Field(None, ge=0, lt=1 << 41, description="Visit (exposure) number.")
    detector: int | None = Field(None, ge=0, lt=1 << 8, description="Detector number in the camera.")
    physical_filter: str = Field("", max_length=64)
    band: str = Field("", max_length=16)
    uris: Annotated[tuple[_Uri, ...], BeforeValidator(_tuple_of_uris)] = Field(
        min_length=1, max_length=16, description="Where the raw file is; the first that can be read is used."
    )
    size_bytes: int | None = Field(None, ge=0, description="Size of the file.")
    checksum: str = Field("", max_length=160, description="Checksum of the file, as ALGORITHM:HEX.")
    mid_mjd_tai: float | None = Field(None, description="Middle of the exposure, MJD TAI in days.")
    exposure_s: float | None = Field(None, ge=0, description="Exposure time in seconds.")
    ra: float | None = Field(None, ge=0, lt=360, description="Right ascension of the pointing, ICRS degrees.")
    dec: float | None = Field(None, ge=-90, le=90, description="Declination of the pointing, ICRS degrees.")
    rotation: float | None = Field(None, ge=-360, le=360, description="Position angle of +y, degrees east of north.")
    coordinate_system: Literal["ICRS"] = "ICRS"
    observation_reason: str = Field("", max_length=256)
    target_name: str = Field("", max_length=256)

    @model_validator(mode="before")
    @classmethod
    def _one_uri_or_many(cls, data: Any) -> Any:
        if isinstance(data, dict) and "uri" in data and "uris" not in data:
            return {**{k: v for k, v in data.items() if k != "uri"}, "uris": data["uri"]}
        return data

    @model_validator(mode="after")
    def _name(self) -> ExposureEvent:
        if not self.event_id:
            digest = hashlib.sha256("\n".join((*self.uris, self.checksum)).encode()).hexdigest()
            object.__setattr__(self, "event_id", digest[:32])
        return self

    @classmethod
    def parse(cls, payload: bytes, *, max_bytes: int = 1 << 16, where: str = "") -> ExposureEvent:
        """Parse a message.

        Parameters
        ----------
        payload
            UTF-8 JSON.
        max_bytes
            Largest message accepted.
        where
            What errors name as their place (topic, partition, offset).

        Raises
        ------
        OversizedEvent, MalformedEvent, UnknownEvent
            As their names say.
        """
        if len(payload) > max_bytes:
            raise OversizedEvent(f"event of {len(payload)} bytes; the limit is {max_bytes}", where=where)
        fields = _json_object(payload, where)
        _require_known_schema(fields, where)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise MalformedEvent(_first_problem(error), where=where, remedy=f"see {EVENT_SCHEMA}") from None

    @property
    def id(self) -> VisitDetector | None:
        """The unit of work; None while only the file's header knows it."""
        if not self.instrument or self.visit is None or self.detector is None:
            return None
        return VisitDetector(self.instrument, self.visit, self.detector)

    @property
    def key(self) -> bytes:
        """The message key: one detector's events stay in order."""
        detector = "" if self.detector is None else str(self.detector)
        return f"{self.instrument}/{detector}".encode()

    def to_json(self) -> bytes:
        """Return the canonical message; the same event gives the same bytes."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        kept = {name: value for name, value in fields.items() if value != ""}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def _json_object(payload: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent(f"the event is not JSON: {error}", where=where) from None
    if not isinstance(fields, dict):
        raise MalformedEvent("the event is not a JSON object", where=where)
    return fields


def _require_known_schema(fields: dict[str, Any], where: str) -> None:
    schema = fields.get("schema", EVENT_SCHEMA)
    if schema != EVENT_SCHEMA:
        raise UnknownEvent(
            f"event schema {str(schema)[:80]!r} is not known", where=where, remedy=f"send {EVENT_SCHEMA}"
        )
    system = fields.get("coordinate_system", "ICRS")
    if system != "ICRS":
        raise UnknownEvent(f"coordinate system {str(system)[:80]!r} is not known", where=where, remedy="send ICRS")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in problem["loc"]) or "event"
    return f"{name}: {problem['msg']}"
