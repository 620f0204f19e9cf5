"""Alerts and dead letters to Kafka: idempotent, every acknowledgement awaited."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from apstream.errors import BadSettings, BrokerUnavailable, UnfitImage
from apstream.model.products import Alert
from apstream.ports import Message, SinkStatus
from apstream.transports.kafka.client import connection_options, translate
from apstream.transports.settings import KafkaSettings

__all__ = ["KafkaSink"]

_log = structlog.get_logger(__name__)
_CLOSE_S = 10.0
_FRAME = 4096  # room for key, headers and batch overhead
_Ticket = tuple[str, bytes, bytes]


class KafkaSink:
    """An `AlertSink` with a dead-letter topic.

    An idempotent producer never gives up on a message. A publication that runs out of patience therefore
    leaves its messages pending, and the next attempt waits for the same messages; it sends nothing twice.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._options = settings.producer
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._pending: dict[_Ticket, asyncio.Future[Any]] = {}
        self.status = SinkStatus(problem="not connected")

    async def start(self) -> None:
        """Connect; BrokerUnavailable where nobody answers."""
        try:
            await self._connected()
        except (KafkaError, OSError) as error:
            raise translate(error, self._settings.bootstrap_servers) from error

    def check(self, alerts: Sequence[Alert]) -> None:
        """Refuse alerts that the producer could not send, before anything is committed."""
        for alert in alerts:
            if len(alert.payload) + _FRAME > self._options.max_message_bytes:
                raise UnfitImage(
                    f"alert {alert.id} has {len(alert.payload)} bytes, too many for one message",
                    remedy="raise kafka.producer.max_message_bytes and the topic's max.message.bytes",
                )

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Send all alerts and return when every one is acknowledged; BrokerUnavailable otherwise."""
        await self._send_all([(self._settings.alerts_topic, a.key, a.payload) for a in alerts])

    async def send_events(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        """Send (key, payload) pairs to the events topic and await the acknowledgements."""
        await self._send_all([(self._settings.events_topic, key, payload) for key, payload in events])

    async def dead_letter(self, message: Message, *, reason: str, error_class: str) -> None:
        """Send a refused event, as it came, to the dead-letter topic with the reason in its headers."""
        headers = [(name, value) for name, value in message.headers.items() if not name.startswith("apstream-")]
        headers += [
            ("apstream-reason", reason[:2000].encode()),
            ("apstream-error-class", error_class.encode()),
            ("apstream-origin-topic", message.topic.encode()),
            ("apstream-origin-partition", str(message.partition).encode()),
            ("apstream-origin-offset", str(message.offset).encode()),
        ]
        value = message.value[: self._options.max_message_bytes - 2 * _FRAME]
        await self._attempt([(self._settings.dead_letter_topic, message.key, value)], headers)

    async def close(self) -> None:
        """Flush for a while, then close."""
        await self._drop(_CLOSE_S)

    async def _send_all(self, messages: Sequence[tuple[str, bytes | None, bytes]]) -> None:
        await self._attempt(messages, None)

    async def _attempt(
        self, messages: Sequence[tuple[str, bytes | None, bytes]], headers: list[tuple[str, bytes]] | None
    ) -> None:
        where = self._settings.bootstrap_servers
        try:
            async with asyncio.timeout(self._options.publish_timeout_s):
                producer = await self._connected()
                futures = [await self._enqueue(producer, *message, headers) for message in messages]
                if futures:
                    await asyncio.wait(futures)
        except TimeoutError:
            self._note_failure("no acknowledgement in time")
            raise BrokerUnavailable("no acknowledgement in time", where=where) from None
        except (KafkaError, OSError) as error:
            self._note_failure(f"{type(error).__name__}: {error}")
            raise translate(error, where) from error
        await self._require_acknowledged(futures)

    async def _require_acknowledged(self, futures: Sequence[asyncio.Future[Any]]) -> None:
        failed = [error for future in futures if (error := future.exception()) is not None]
        self.status.acknowledged += len(futures) - len(failed)
        if not failed:
            self.status.problem = ""
            return
        self._note_failure(f"{type(failed[0]).__name__}: {failed[0]}")
        await self._drop(0.1)  # an idempotent producer that lost its sequence is of no further use
        error = failed[0]
        raise translate(error if isinstance(error, Exception) else RuntimeError(str(error)), "alerts")

    async def _enqueue(
        self,
        producer: Any,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: list[tuple[str, bytes]] | None,
    ) -> asyncio.Future[Any]:
        ticket = (topic, key or b"", hashlib.sha256(value).digest())
        future = self._pending.get(ticket)
        if future is None:
            future = await producer.send(topic, value=value, key=key, headers=headers)
            self._pending[ticket] = future
            future.add_done_callback(lambda ended: self._forget(ticket, ended))
            self.status.sent += 1
        return future

    def _forget(self, ticket: _Ticket, ended: asyncio.Future[Any]) -> None:
        if self._pending.get(ticket) is ended:
            del self._pending[ticket]

    async def _connected(self) -> Any:
        async with self._starting:
            if self._producer is None:
                self._producer = await self._new_producer()
                self.status.problem = ""
            return self._producer

    async def _new_producer(self) -> Any:
        options = self._options
        try:
            producer = AIOKafkaProducer(
                acks="all",
                enable_idempotence=True,
                compression_type=None if options.compression == "none" else options.compression,
                max_batch_size=options.batch_bytes,
                max_request_size=options.max_message_bytes,
                linger_ms=options.linger_ms,
                request_timeout_ms=int(options.request_timeout_s * 1000),
                **connection_options(self._settings),
            )
        except (ValueError, RuntimeError) as error:
            raise BadSettings(f"the producer refuses its settings: {error}", where="kafka.producer") from error
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _drop(self, patience_s: float) -> None:
        producer, self._producer = self._producer, None
        self._pending.clear()
        if producer is None:
            return
        stopping = asyncio.create_task(producer.stop())
        await asyncio.wait([stopping], timeout=patience_s)
        if not stopping.done():
            # aiokafka waits for acknowledgements for ever; without its sender it goes on to close the sockets
            producer._sender.sender_task.cancel()
            await asyncio.wait([stopping], timeout=_CLOSE_S)
        with suppress(KafkaError, OSError, asyncio.CancelledError):
            await stopping

    def _note_failure(self, problem: str) -> None:
        self.status.problem = problem
        self.status.failures += 1
        _log.warning("kafka.producer.failed", reason=problem)
