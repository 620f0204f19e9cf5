import hashlib
import io
from pathlib import Path

import fastavro
import pytest
from helpers.catalog_samples import make_history, make_info, make_sources
from hypothesis import given
from hypothesis import strategies as st

from apstream.alerts import codec
from apstream.alerts.schema import alert_schema, released_schema
from apstream.errors import BadFile, MalformedEvent
from apstream.model.columns import DIA_FORCED_SOURCE
from apstream.model.products import CutoutTriplet, PixelProducts, SkyCircle
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts

GOLDEN = Path(__file__).parent.parent / "golden" / "alert-1.0.avro"


@pytest.fixture(scope="module")
def alerts():
    products = PixelProducts(
        info=make_info(),
        dia_sources=make_sources(3),
        forced=DIA_FORCED_SOURCE.empty(0),
        cutouts=(CutoutTriplet(science=b"science", template=b"template", difference=b"difference"),) * 3,
        region=SkyCircle(150.0, 2.0, 0.1),
    )
    return make_alerts(products, make_history(2, 2), 60101.0, CatalogsConfig()).alerts


@pytest.mark.parametrize("compression", ["null", "deflate"])
def test_a_container_gives_the_same_alerts_back(alerts, compression):
    data = codec.write_ocf(alerts, codec=compression)
    assert codec.read_ocf(data) == alerts
    assert data == codec.write_ocf(alerts, codec=compression)
    records = list(fastavro.reader(io.BytesIO(data)))
    assert [r["diaSourceId"] for r in records] == [a.id for a in alerts]
    assert list(codec.records_of_ocf(data)) == [codec.decode(a.payload) for a in alerts]


def test_a_container_may_be_empty():
    data = codec.write_ocf(())
    assert codec.read_ocf(data) == ()
    assert list(fastavro.reader(io.BytesIO(data))) == []


def test_the_schema_id_travels_in_the_framing(alerts):
    data = codec.write_ocf(alerts)
    assert codec.read_ocf(data, schema_id=1101)[0].payload[:5] == b"\0\0\0\x04\x4d"


@pytest.mark.parametrize("data", [b"", b"Obj\x01", b"SIMPLE  =", b"Obj\x01\x02\xff\xff\xff\xff"])
def test_what_is_no_container_is_refused(data):
    with pytest.raises(BadFile):
        codec.read_ocf(data)
    with pytest.raises(BadFile):
        list(codec.records_of_ocf(data))


def test_a_truncated_container_is_refused(alerts):
    data = codec.write_ocf(alerts)
    with pytest.raises(BadFile):
        codec.read_ocf(data[:-20])


def test_unknown_compression_is_refused(alerts):
    with pytest.raises(ValueError, match="snappy"):
        codec.write_ocf(alerts, codec="snappy")


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\0", b"\1\0\0\0\x64abc", b"\0\0\0\0\x63abc", b"\0\0\0\0\x64abc"])
def test_what_is_no_alert_is_refused(payload):
    with pytest.raises(MalformedEvent):
        codec.decode(payload)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_are_those_of_avro(value):
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, "long", value)
    assert codec.varint(value) == expected.getvalue()


def test_a_reader_with_fewer_fields_reads_on(alerts):
    schema = {**alert_schema(), "fields": [f for f in alert_schema()["fields"] if f["name"] == "diaSourceId"]}
    assert codec.decode(alerts[0].payload, schema) == {"diaSourceId": alerts[0].id}


def test_checksums_are_sha256():
    assert codec.checksum(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_released_alerts_are_still_written_and_read(alerts):
    """The golden file was written when the schema was released; it must never change."""
    frozen = GOLDEN.read_bytes()
    assert codec.write_ocf(alerts) == frozen
    reader = fastavro.reader(io.BytesIO(frozen), released_schema(1, 0))
    assert [dict(r) for r in reader] == [codec.decode(a.payload) for a in alerts]


def test_a_reader_of_rubin_alerts_finds_what_it_knows(alerts):
    """A consumer resolves by field names; its own namespace does not matter."""
    source = {
        "type": "record",
        "name": "diaSource",
        "fields": [
            {"name": "diaSourceId", "type": "long"},
            {"name": "midpointMjdTai", "type": "double"},
            {"name": "psfFlux", "type": ["null", "float"], "default": None},
            {"name": "band", "type": ["null", "string"], "default": None},
            {"name": "aLaterColumn", "type": ["null", "float"], "default": None},
        ],
    }
    optional_bytes = {"type": ["null", "bytes"], "default": None}
    reader = {
        "type": "record",
        "name": "alert",
        "namespace": "lsst.v11_1",
        "fields": [
            {"name": "diaSourceId", "type": "long"},
            {"name": "diaSource", "type": source},
            {"name": "prvDiaSources", "type": ["null", {"type": "array", "items": "diaSource"}], "default": None},
            {"name": "cutoutScience", **optional_bytes},
        ],
    }
    full, read = codec.decode(alerts[0].payload), codec.decode(alerts[0].payload, reader)
    assert read["diaSource"]["psfFlux"] == full["diaSource"]["psfFlux"]
    assert read["diaSource"]["aLaterColumn"] is None
    assert [row["midpointMjdTai"] for row in read["prvDiaSources"]] == [60000.0, 60001.0]
    assert read["cutoutScience"] == b"science"
