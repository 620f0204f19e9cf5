"""The embedded broker: librdkafka's mock cluster, for a demo on a laptop and for quick tests.

It speaks the real protocol on the loopback interface, within limits: one member per group, no transactions,
about 5 MB per partition, and nothing survives the process. Never a ground for claims about delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from confluent_kafka import KafkaException, Producer

from apstream.errors import BrokerUnavailable

__all__ = ["EmbeddedBroker"]

_PATIENCE_S = 10.0


class EmbeddedBroker:
    """A broker inside this process; an async context manager.

    Examples
    --------
    >>> async with EmbeddedBroker(topics=["events"]) as broker:
    ...     print(broker.bootstrap_servers)
    """

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self._topics = tuple(topics)
        self._cluster: Producer | None = None
        self.bootstrap_servers = ""

    async def __aenter__(self) -> EmbeddedBroker:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and create the topics (4 partitions each).

        Raises
        ------
        BrokerUnavailable
            If the mock cluster does not answer.
        """
        self._cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
        try:
            brokers = self._cluster.list_topics(timeout=_PATIENCE_S).brokers.values()
            for topic in self._topics:
                self._cluster.list_topics(topic, timeout=_PATIENCE_S)
        except KafkaException as error:
            raise BrokerUnavailable(f"the embedded broker did not start: {error}") from error
        self.bootstrap_servers = ",".join(f"{b.host}:{b.port}" for b in brokers)

    def stop(self) -> None:
        """Stop the broker; everything in it is lost."""
        self._cluster = None
