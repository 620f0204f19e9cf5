"""Reading what stands on a topic, as a tool does: from the beginning to the present end, no group."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from apstream.errors import BrokerUnavailable, MissingInput
from apstream.ports import Message
from apstream.transports.kafka.client import connection_options, message_of, translate
from apstream.transports.settings import KafkaSettings

__all__ = ["read_topic"]

_FETCH_BYTES = 10 << 20
_PATIENCE_S = 15.0


async def read_topic(topic: str, settings: KafkaSettings, *, limit: int | None = None) -> list[Message]:
    """Return the messages that a topic holds now, partition by partition, at most `limit`.

    Raises
    ------
    BrokerUnavailable
        If the broker does not answer.
    MissingInput
        If there is no such topic.
    """
    consumer: Any = AIOKafkaConsumer(
        **connection_options(settings),
        auto_offset_reset="earliest",  # the first look-up of a position may end after our own seek
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    try:
        try:
            await consumer.start()
            return await _read(consumer, topic, limit)
        finally:
            await consumer.stop()
    except (KafkaError, OSError) as error:
        failure = translate(error, settings.bootstrap_servers)
        raise BrokerUnavailable(failure.message, where=failure.where, remedy="check the address") from error


async def _read(consumer: Any, topic: str, limit: int | None) -> list[Message]:
    if topic not in await consumer.topics():
        raise MissingInput("no such topic", where=topic, remedy="check the name, or --bootstrap")
    partitions = await _partitions(consumer, topic)
    ends = await consumer.end_offsets(partitions)
    await consumer.seek_to_beginning(*partitions)
    found: list[Message] = []
    for partition in partitions:
        while await consumer.position(partition) < ends[partition] and len(found) != limit:
            batch = await consumer.getmany(partition, timeout_ms=1000, max_records=500)
            for record in batch.get(partition, ()):
                found.append(message_of(record))
                if len(found) == limit:
                    break
    return found


async def _partitions(consumer: Any, topic: str) -> list[TopicPartition]:
    """Take all partitions of a topic, outside any group, as soon as its metadata are known."""
    consumer.subscribe([topic])
    deadline = time.monotonic() + _PATIENCE_S
    while not consumer.assignment():
        if time.monotonic() > deadline:
            raise BrokerUnavailable("no partitions of the topic are known", where=topic, remedy="check the brokers")
        await asyncio.sleep(0.05)
    return sorted(consumer.assignment())
