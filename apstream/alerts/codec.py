"""Alerts as bytes: the Confluent framing on a topic, Avro object container files on disk.

A container holds one alert per block, so that the bytes of each alert can be taken out again, and sent,
without being decoded.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import fastavro

from apstream.alerts.schema import SCHEMA_ID, alert_schema
from apstream.errors import BadFile, MalformedEvent
from apstream.model.products import Alert

__all__ = ["checksum", "decode", "frame", "object_key", "read_ocf", "records_of_ocf", "varint", "write_ocf"]

_MAGIC, _OCF_MAGIC, _HEADER = 0, b"Obj\x01", 5
_CODECS = ("null", "deflate")


def varint(value: int) -> bytes:
    """Return a long in Avro's zig-zag variable-length form."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame(datum: bytes, schema_id: int = SCHEMA_ID) -> bytes:
    """Return a datum in Confluent framing: a zero byte, the schema id, the datum."""
    return struct.pack(">bi", _MAGIC, schema_id) + datum


def object_key(object_id: int) -> bytes:
    """Return the message key of an object: its id as eight big-endian bytes."""
    return struct.pack(">q", object_id)


def checksum(data: bytes) -> str:
    """Return the SHA-256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def decode(
    payload: bytes, reader_schema: dict[str, Any] | None = None, *, schema_id: int = SCHEMA_ID
) -> dict[str, Any]:
    """Return the alert in a framed payload written by this version.

    Parameters
    ----------
    reader_schema
        Resolve to this schema instead of the one it was written with.
    schema_id
        Number under which the registry knows this version's schema.

    Raises
    ------
    MalformedEvent
        If the framing, the schema id or the datum is wrong.
    """
    if len(payload) <= _HEADER or payload[0] != _MAGIC:
        raise MalformedEvent("not an alert in Confluent framing", remedy="the first byte must be zero")
    (found,) = struct.unpack(">i", payload[1:_HEADER])
    if found != schema_id:
        raise MalformedEvent(f"schema id {found} is not known", remedy=f"{schema_id} is")
    try:
        record = fastavro.schemaless_reader(
            io.BytesIO(payload[_HEADER:]), _parsed(), reader_schema and fastavro.parse_schema(reader_schema)
        )
    except (EOFError, ValueError, IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise MalformedEvent(f"the alert cannot be decoded: {error}") from error
    return dict(record)


def write_ocf(alerts: Sequence[Alert], *, codec: str = "null") -> bytes:
    """Return an Avro object container file of alerts; the same alerts give the same bytes.

    Raises
    ------
    ValueError
        If the codec is not null or deflate.
    """
    if codec not in _CODECS:
        raise ValueError(f"codec {codec} is not one of {', '.join(_CODECS)}")
    data = [alert.payload[_HEADER:] for alert in alerts]
    digest = hashlib.md5(usedforsecurity=False)
    for datum in data:
        digest.update(datum)
    sync = digest.digest()
    meta = {b"avro.schema": json.dumps(alert_schema()).encode(), b"avro.codec": codec.encode()}
    head = b"".join(varint(len(k)) + k + varint(len(v)) + v for k, v in meta.items())
    blocks = (block for datum in data for block in _block(datum, codec, sync))
    return b"".join((_OCF_MAGIC, varint(len(meta)), head, b"\0", sync, *blocks))


def read_ocf(data: bytes, schema_id: int = SCHEMA_ID) -> tuple[Alert, ...]:
    """Return the alerts of a container that `write_ocf` made, framed again, byte for byte as they were.

    Raises
    ------
    BadFile
        If the bytes are no such container.
    """
    try:
        return tuple(_alert(datum, schema_id) for datum in _blocks(data))
    except (EOFError, ValueError, IndexError, KeyError, zlib.error, struct.error) as error:
        raise BadFile(f"not an alert container: {error}") from error


def records_of_ocf(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the decoded alerts of any Avro object container, whoever wrote it.

    Raises
    ------
    BadFile
        If the bytes are no container.
    """
    try:
        for record in fastavro.reader(io.BytesIO(data)):
            yield dict(record)
    except (EOFError, ValueError, IndexError, KeyError, zlib.error) as error:
        raise BadFile(f"not an Avro container: {error}") from error


@cache
def _parsed() -> Any:
    return fastavro.parse_schema(alert_schema())


@cache
def _parsed_head() -> Any:
    """Schema of the beginning of an alert, enough for its id and its object."""
    schema = alert_schema()
    fields = [dict(field) for field in schema["fields"][:4]]
    source = dict(fields[3]["type"])
    source["fields"] = source["fields"][: 1 + _position(source["fields"], "ssObjectId")]
    fields[3]["type"] = source
    return fastavro.parse_schema({**schema, "fields": fields})


def _position(fields: list[dict[str, Any]], name: str) -> int:
    return [field["name"] for field in fields].index(name)


def _alert(datum: bytes, schema_id: int) -> Alert:
    head: Any = fastavro.schemaless_reader(io.BytesIO(datum), _parsed_head(), None)
    source = head["diaSource"]
    key = object_key(source["diaObjectId"] or source["ssObjectId"] or 0)
    return Alert(head["diaSourceId"], key, frame(datum, schema_id))


def _block(datum: bytes, codec: str, sync: bytes) -> tuple[bytes, bytes, bytes]:
    if codec == "deflate":
        datum = zlib.compress(datum)[2:-4]  # Avro's deflate has neither zlib's header nor its checksum
    return varint(1) + varint(len(datum)), datum, sync


def _blocks(data: bytes) -> Iterator[bytes]:
    stream = io.BytesIO(data)
    if stream.read(4) != _OCF_MAGIC:
        raise ValueError("wrong magic")
    meta = _read_map(stream)
    codec, sync = meta.get(b"avro.codec", b"null").decode(), _take(stream, 16)
    while stream.tell() < len(data):
        if _read_varint(stream) != 1:
            raise ValueError("more than one alert in a block")
        datum = _take(stream, _read_varint(stream))
        if _take(stream, 16) != sync:
            raise ValueError("wrong sync marker")
        yield zlib.decompress(datum, -15) if codec == "deflate" else datum


def _read_map(stream: io.BytesIO) -> dict[bytes, bytes]:
    entries: dict[bytes, bytes] = {}
    while count := _read_varint(stream):
        for _ in range(count):
            key = _take(stream, _read_varint(stream))
            entries[key] = _take(stream, _read_varint(stream))
    return entries


def _read_varint(stream: io.BytesIO) -> int:
    value, shift = 0, 0
    while True:
        (byte,) = _take(stream, 1)
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1)


def _take(stream: io.BytesIO, n: int) -> bytes:
    data = stream.read(n) if n >= 0 else b""
    if n < 0 or len(data) != n:
        raise EOFError("the file ends too early")
    return data
