"""Consumer and producer against a real Apache Kafka: rebalances, back-pressure, a broker that restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from helpers import daemon as outside
from helpers.waiting import until
from kafka_server import KafkaServer

from apstream.model.products import Alert
from apstream.ports import Message
from apstream.transports.kafka import KafkaSink, KafkaSource
from apstream.transports.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


def settings_of(bootstrap: str, prefix: str, **consumer: Any) -> KafkaSettings:
    tree = outside.kafka_transport(bootstrap, prefix)
    tree["consumer"] = {"group_id": prefix, "session_timeout_s": 6, "probe_s": 0.3, **consumer}
    tree["producer"] = {"publish_timeout_s": 90, "request_timeout_s": 5}
    outside.make_topics(tree)
    return KafkaSettings.model_validate(tree)


class Reader:
    """Takes events and finishes them after a moment, as the daemon does."""

    def __init__(self, settings: KafkaSettings, pause_s: float = 0.0) -> None:
        self.source = KafkaSource(settings)
        self.seen: list[Message] = []
        self._pause_s = pause_s
        self._work: set[asyncio.Task[None]] = set()
        self._intake = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.source.messages():
            self.seen.append(message)
            task = asyncio.create_task(self._finish(message))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _finish(self, message: Message) -> None:
        await asyncio.sleep(self._pause_s)
        await self.source.done(message)

    async def close(self) -> None:
        self.source.stop_intake()
        await asyncio.wait([self._intake, *self._work])
        await self.source.close()


@contextlib.asynccontextmanager
async def reader(settings: KafkaSettings, pause_s: float = 0.0) -> AsyncIterator[Reader]:
    made = Reader(settings, pause_s)
    try:
        yield made
    finally:
        await made.close()


def in_order(messages: list[Message], key: bytes) -> bool:
    numbers = [int(m.value) for m in messages if m.key == key]
    return numbers == sorted(numbers)


async def test_a_second_member_takes_over_without_loss(kafka_bootstrap: str, topic_prefix: str) -> None:
    settings = settings_of(kafka_bootstrap, topic_prefix)
    sink = KafkaSink(settings)
    keys = [b"cam/%d" % n for n in range(8)]
    await sink.send_events([(keys[n % 8], b"%d" % n) for n in range(160)])
    async with reader(settings, 0.1) as first:
        await until(lambda: len(first.seen) >= 10, 60)
        async with reader(settings, 0.1) as second:
            await until(lambda: second.source.status.assigned, 60)
            assert len(first.source.status.assigned) == len(second.source.status.assigned) == 2
            await until(lambda: {int(m.value) for m in first.seen + second.seen} == set(range(160)), 120)
        assert all(in_order(reader_.seen, key) for reader_ in (first, second) for key in keys)
        twice = len(first.seen) + len(second.seen) - 160
        assert twice <= 4  # only what was in work when its partition moved
    async with reader(settings) as third:  # everything is committed: nothing comes again
        await until(lambda: third.source.status.assigned, 60)
        await until(lambda: third.source.idle, 60)
        assert third.seen == []
    await sink.close()


async def test_a_partition_that_is_full_is_paused(kafka_bootstrap: str, topic_prefix: str) -> None:
    settings = settings_of(kafka_bootstrap, topic_prefix, queue_high=5, queue_low=2)
    sink = KafkaSink(settings)
    await sink.send_events([(b"cam/1", b"%d" % n) for n in range(100)])
    source = KafkaSource(settings)
    messages = source.messages()
    first = await asyncio.wait_for(anext(messages), 60)
    await asyncio.sleep(3)
    (lane,) = [tp for tp in source._trackers if source._lanes.in_work(tp)]
    assert source._lanes.waiting(lane) <= 2 * settings.consumer.queue_high
    await source.done(first)
    seen = [first]
    async with asyncio.timeout(60):
        async for message in messages:
            seen.append(message)
            await source.done(message)
            if len(seen) == 100:
                break
    assert [int(m.value) for m in seen] == list(range(100))
    await source.close()
    await sink.close()


async def test_a_broker_that_restarts_is_survived(own_kafka: KafkaServer, topic_prefix: str) -> None:
    settings = settings_of(own_kafka.bootstrap, topic_prefix)
    sink = KafkaSink(settings)
    async with reader(settings) as events:
        await sink.send_events([(b"k", b"0")])
        await until(lambda: len(events.seen) == 1, 60)
        await asyncio.to_thread(own_kafka.kill)
        await until(lambda: events.source.status.problem, 60)
        publishing = asyncio.create_task(sink.publish([Alert(n, b"k", b"%d" % n) for n in range(50)]))
        await asyncio.sleep(1)
        await asyncio.to_thread(own_kafka.start)
        await publishing
        await sink.send_events([(b"k", b"1")])
        await until(lambda: len(events.seen) >= 2, 120)
        await until(lambda: not events.source.status.problem, 60)
    records = await outside.read_topic(own_kafka.bootstrap, settings.alerts_topic)
    assert [int(r.value) for r in records] == list(range(50))  # each once, in order
    await sink.close()
