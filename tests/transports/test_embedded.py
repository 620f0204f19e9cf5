"""The embedded broker carries events in and alerts out through the real clients."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiokafka import AIOKafkaConsumer

from apstream.errors import BrokerUnavailable, UnfitImage
from apstream.model.products import Alert
from apstream.ports import Message
from apstream.transports.embedded import EmbeddedBroker
from apstream.transports.kafka import KafkaSink, KafkaSource
from apstream.transports.settings import ConsumerSettings, KafkaSettings, ProducerSettings


def settings(bootstrap: str, **producer: object) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=bootstrap,
        consumer=ConsumerSettings(probe_s=0.3, session_timeout_s=6.0),
        producer=ProducerSettings.model_validate(producer),
    )


async def read_all(bootstrap: str, topic: str, count: int) -> list[object]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_events_in_order_and_offsets_resume() -> None:
    async with EmbeddedBroker(["apstream-exposures"]) as broker:
        config = settings(broker.bootstrap_servers)
        sink = KafkaSink(config)
        keys = [b"cam/1", b"cam/2", b"cam/3"]
        await sink.send_events([(keys[n % 3], b"event %d" % n) for n in range(12)])
        first = await consume(config, 5)
        second = await consume(config, 7)
        await sink.close()
    got = [m.value for m in first + second]
    assert sorted(got) == sorted(b"event %d" % n for n in range(12))
    for key in keys:
        mine = [int(m.value.split()[1]) for m in first + second if m.key == key]
        assert mine == sorted(mine)


async def consume(config: KafkaSettings, count: int) -> list[Message]:
    source = KafkaSource(config)
    got: list[Message] = []
    async with asyncio.timeout(30), contextlib.aclosing(source.messages()) as messages:
        async for message in messages:
            got.append(message)
            await source.done(message)
            if len(got) == count:
                break
    await source.close()
    assert source.status.commit_failures == 0
    return got


async def test_unfinished_events_come_again() -> None:
    async with EmbeddedBroker(["apstream-exposures"]) as broker:
        config = settings(broker.bootstrap_servers)
        sink = KafkaSink(config)
        await sink.send_events([(b"k", b"a"), (b"k", b"b")])
        source = KafkaSource(config)
        async with asyncio.timeout(30):
            message = await anext(aiter(source.messages()))
        assert message.value == b"a"
        await source.close()
        assert [m.value for m in await consume(config, 2)] == [b"a", b"b"]
        await sink.close()


async def test_alerts_are_keyed_and_acknowledged() -> None:
    async with EmbeddedBroker(["apstream-alerts-v11"]) as broker:
        sink = KafkaSink(settings(broker.bootstrap_servers))
        alerts = [Alert(n, b"%d" % (n % 3), bytes([n]) * 2000) for n in range(20)]
        await sink.publish(alerts)
        assert sink.status.acknowledged == 20
        records = await read_all(broker.bootstrap_servers, "apstream-alerts-v11", 20)
        await sink.close()
    assert {(r.key, r.value) for r in records} == {(a.key, a.payload) for a in alerts}  # type: ignore[attr-defined]


async def test_dead_letters_carry_their_origin() -> None:
    async with EmbeddedBroker(["apstream-exposures-dead"]) as broker:
        sink = KafkaSink(settings(broker.bootstrap_servers))
        message = Message(b"\xffjunk", b"cam/1", "apstream-exposures", 2, 17, {"traceparent": b"x"})
        await sink.dead_letter(message, reason="not JSON", error_class="MalformedEvent")
        (record,) = await read_all(broker.bootstrap_servers, "apstream-exposures-dead", 1)
        await sink.close()
    headers = dict(record.headers)  # type: ignore[attr-defined]
    assert (record.value, record.key) == (b"\xffjunk", b"cam/1")  # type: ignore[attr-defined]
    assert headers["apstream-error-class"] == b"MalformedEvent"
    assert headers["apstream-origin-offset"] == b"17"
    assert headers["traceparent"] == b"x"


async def test_no_broker_is_typed_and_quick() -> None:
    sink = KafkaSink(settings("127.0.0.1:1", publish_timeout_s=2.0, request_timeout_s=1.0))
    with pytest.raises(BrokerUnavailable):
        await sink.publish([Alert(1, b"k", b"v")])
    assert sink.status.problem
    with pytest.raises(BrokerUnavailable):
        await sink.start()
    await sink.close()


async def test_source_without_broker_says_so_and_closes() -> None:
    source = KafkaSource(settings("127.0.0.1:1"))
    await source.start()
    async with asyncio.timeout(10):
        while source.status.restarts == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "Connection" in source.status.problem
    await source.close()


async def test_too_large_an_alert_is_refused_before_it_is_committed() -> None:
    sink = KafkaSink(settings("127.0.0.1:1", max_message_bytes=10_000))
    with pytest.raises(UnfitImage, match="alert 5"):
        sink.check([Alert(5, b"k", bytes(10_000))])
