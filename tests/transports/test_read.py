from __future__ import annotations

import pytest

from apstream.errors import BrokerUnavailable, MissingInput
from apstream.transports.embedded import EmbeddedBroker
from apstream.transports.kafka import KafkaSink, read_topic
from apstream.transports.settings import KafkaSettings


async def test_a_tool_reads_all_that_stands_on_a_topic():
    async with EmbeddedBroker(topics=["events"]) as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, events_topic="events")
        sink = KafkaSink(settings)
        sent = [(f"key{i}".encode(), f"value{i}".encode()) for i in range(40)]
        await sink.send_events(sent)
        await sink.close()
        found = await read_topic("events", settings)
        assert sorted((m.key, m.value) for m in found) == sorted(sent)
        assert len(await read_topic("events", settings, limit=7)) == 7


async def test_an_unknown_topic_is_named():
    async with EmbeddedBroker(topics=["events"]) as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        with pytest.raises(MissingInput, match="nothing-here"):
            await read_topic("nothing-here", settings)


async def test_a_broker_that_is_away_is_named():
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        await read_topic("events", KafkaSettings(bootstrap_servers="127.0.0.1:1"))
