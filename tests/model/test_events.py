"""Events: what is read, what is refused, and how."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apstream.errors import InvalidEvent, MalformedEvent, OversizedEvent, UnknownEvent
from apstream.model.events import EVENT_SCHEMA, ExposureEvent
from apstream.model.ids import VisitDetector

FULL = {
    "schema": EVENT_SCHEMA,
    "event_id": "e1",
    "instrument": "simcam",
    "visit": 42,
    "detector": 3,
    "physical_filter": "r2",
    "band": "r",
    "uris": ["/data/raw.fits"],
    "mid_mjd_tai": 60000.5,
    "exposure_s": 30.0,
    "ra": 10.0,
    "dec": -20.0,
}


def encode(**changes: object) -> bytes:
    return json.dumps({**FULL, **changes}).encode()


def test_full_event() -> None:
    event = ExposureEvent.parse(encode())
    assert event.id == VisitDetector("simcam", 42, 3)
    assert event.key == b"simcam/3"
    assert event.uris == ("/data/raw.fits",)


def test_round_trip_is_stable() -> None:
    event = ExposureEvent.parse(encode())
    assert ExposureEvent.parse(event.to_json()) == event
    assert ExposureEvent.parse(event.to_json()).to_json() == event.to_json()


def test_minimal_file_landed_event() -> None:
    event = ExposureEvent.parse(b'{"uri": "file:///data/a.fits"}')
    assert event.id is None
    assert event.uris == ("file:///data/a.fits",)
    assert event.event_id == ExposureEvent.parse(b'{"uri": "file:///data/a.fits"}').event_id


def test_unknown_fields_are_ignored() -> None:
    assert ExposureEvent.parse(encode(dome="open")).visit == 42


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"{" * 20000,
        encode(visit=-1),
        encode(visit=1 << 60),
        encode(detector=999),
        encode(ra=400.0),
        encode(ra="NaN"),
        encode(exposure_s=-1),
        encode(uris=[]),
        encode(uris=["a\x00b"]),
        encode(instrument="../etc"),
        b'{"uri": "/a.fits", "ra": NaN}',
        b'{"uri": "/a.fits", "mid_mjd_tai": Infinity}',
    ],
)
def test_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedEvent) as caught:
        ExposureEvent.parse(payload, where="events[0]@7")
    assert "events[0]@7" in str(caught.value)


def test_unknown_schema_and_system() -> None:
    with pytest.raises(UnknownEvent, match="v9"):
        ExposureEvent.parse(encode(schema="apstream.exposure.v9"))
    with pytest.raises(UnknownEvent, match="MOUNT"):
        ExposureEvent.parse(encode(coordinate_system="MOUNT"))


def test_oversized_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(OversizedEvent, match="the limit is 100"):
        ExposureEvent.parse(b"{" * 101, max_bytes=100)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(payload: bytes) -> None:
    with contextlib.suppress(InvalidEvent):
        event = ExposureEvent.parse(payload)
        assert ExposureEvent.parse(event.to_json()) == event


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.text(max_size=4)))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*FULL, "uri"]), VALUES, max_size=6))
def test_any_fields_parse_or_are_refused(fields: dict[str, object]) -> None:
    try:
        event = ExposureEvent.parse(json.dumps(fields).encode())
    except InvalidEvent:
        return
    assert ExposureEvent.parse(event.to_json()) == event
