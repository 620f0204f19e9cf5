"""Exposure events from a consumer group.

One task polls all the time, also while events are in work, so that the group never thinks this member dead;
back-pressure is a paused partition. Offsets are committed explicitly, only up to the first unfinished event,
and only for partitions that are ours. At most one event of a partition is in work, so events stay in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from apstream.errors import ApstreamError, FatalError
from apstream.ports import Message, SourceStatus
from apstream.transports.kafka.client import connection_options, is_fatal, message_of, translate
from apstream.transports.lanes import Lanes, OffsetTracker
from apstream.transports.settings import KafkaSettings

__all__ = ["KafkaSource"]

_log = structlog.get_logger(__name__)
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_S = 10.0
_FETCH_BYTES = 10 << 20


class _Stuck(Exception):
    """The consumer makes no progress; it is replaced by a new one."""


class KafkaSource:
    """An `EventSource` that survives rebalances and brokers that come and go.

    Parameters
    ----------
    settings
        Topic, group, limits.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._options = settings.consumer
        self._lanes: Lanes[TopicPartition, Message] = Lanes()
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._orphans: dict[TopicPartition, Message] = {}  # in work when their partition was taken away
        self._progress: dict[TopicPartition, tuple[int, float]] = {}
        self._assigned_at = time.monotonic()
        self._consumer: Any = None
        self._supervisor: asyncio.Task[None] | None = None
        self._commit_lock = asyncio.Lock()
        self._stopping = False
        self._error: ApstreamError | None = None
        self.status = SourceStatus()

    async def start(self) -> None:
        """Begin to connect and poll in the background."""
        self._supervisor = asyncio.create_task(self._supervise(), name="kafka-source")
        self._supervisor.add_done_callback(self._ended)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield events until `stop_intake`; raises FatalError where no retry helps."""
        if self._supervisor is None:
            await self.start()
        while (message := await self._lanes.take()) is not None:
            yield message
        if self._error is not None:
            raise self._error

    async def done(self, message: Message) -> None:
        """Finish an event; events whose partition went to somebody else are not committed."""
        partition = TopicPartition(message.topic, message.partition)
        if self._orphans.get(partition) is message:
            del self._orphans[partition]
        elif self._lanes.in_work(partition) is message:
            self._trackers[partition].finish(message.offset)
            self._lanes.free(partition)

    def stop_intake(self) -> None:
        """Take no further events; polling goes on so that the group keeps us while work ends."""
        self._stopping = True
        self._lanes.clear()
        self._lanes.close()
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    @property
    def idle(self) -> bool:
        """Whether partitions are ours, and all that was sent is finished."""
        ready = not self.status.problem and bool(self.status.assigned)
        return ready and self._lanes.idle and not any(self.status.lag.values())

    async def close(self) -> None:
        """Commit what is finished, leave the group."""
        self.stop_intake()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._disconnect()

    # -- connection --------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        failures = 0
        while True:
            try:
                await self._connect()
                failures = 0
                await self._poll()
            except (KafkaError, OSError, TimeoutError, _Stuck) as error:
                self.status.problem = f"{type(error).__name__}: {error}"
                self.status.restarts += 1
                if is_fatal(error):
                    self._fail(translate(error, self._settings.bootstrap_servers))
                    return
                _log.warning("kafka.consumer.lost", reason=self.status.problem)
                await self._disconnect()
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(FatalError(f"the consumer broke: {type(error).__name__}: {error}"))

    def _fail(self, error: ApstreamError) -> None:
        self._error = error
        self._lanes.close()

    async def _connect(self) -> None:
        options = self._options
        self._consumer = AIOKafkaConsumer(
            group_id=options.group_id,
            group_instance_id=options.instance_id,
            auto_offset_reset=options.offset_reset,
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH_BYTES,
            session_timeout_ms=int(options.session_timeout_s * 1000),
            heartbeat_interval_ms=int(options.session_timeout_s * 1000 / 10),
            rebalance_timeout_ms=int(options.rebalance_timeout_s * 1000),
            max_poll_interval_ms=int(options.max_poll_interval_s * 1000),
            **connection_options(self._settings),
        )
        self._consumer.subscribe([self._settings.events_topic], listener=_Listener(self))
        self._assigned_at = time.monotonic()
        await self._consumer.start()
        self.status.problem = "waiting for partitions"

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        await self._commit(consumer)
        self._revoked(list(self._trackers))
        with suppress(KafkaError, TimeoutError, OSError):
            await asyncio.wait_for(consumer.stop(), _REQUEST_S)

    # -- polling -----------------------------------------------------------------------------------

    async def _poll(self) -> None:
        consumer = self._consumer
        probe = asyncio.create_task(self._probe(consumer), name="kafka-probe")
        try:
            while True:
                batches = await consumer.getmany(
                    timeout_ms=int(self._options.poll_s * 1000), max_records=self._options.queue_high
                )
                for partition, records in batches.items():
                    self._accept(partition, records)
                self._regulate()
                await self._commit(consumer)
                self._watch()
        finally:
            probe.cancel()
            await asyncio.wait([probe])

    def _accept(self, partition: TopicPartition, records: Iterable[Any]) -> None:
        tracker = self._trackers.get(partition)
        if tracker is None or self._stopping:
            return
        for record in records:
            try:
                tracker.begin(record.offset)
            except ValueError as error:  # the log was cut or made anew: begin again from what is committed
                raise _Stuck(str(error)) from error
            orphan = self._orphans.get(partition)
            if orphan is not None and orphan.offset == record.offset and not self._lanes.in_work(partition):
                del self._orphans[partition]
                self._lanes.adopt(partition, orphan)  # came back while its work goes on
            else:
                self._lanes.put(partition, [message_of(record)])

    def _regulate(self) -> None:
        paused = self._consumer.paused()
        for partition in self._consumer.assignment():
            waiting = self._lanes.waiting(partition)
            if self._stopping or waiting >= self._options.queue_high:
                self._consumer.pause(partition)
            elif partition in paused and waiting <= self._options.queue_low:
                self._consumer.resume(partition)

    async def _commit(self, consumer: Any) -> None:
        async with self._commit_lock:
            owned = consumer.assignment()
            offsets = {
                partition: position
                for partition, tracker in self._trackers.items()
                if partition in owned and (position := tracker.uncommitted) is not None
            }
            if not offsets:
                return
            try:
                await asyncio.wait_for(consumer.commit(offsets), _REQUEST_S)
            except (KafkaError, TimeoutError, OSError) as error:
                self.status.commit_failures += 1
                _log.warning("kafka.commit.failed", reason=f"{type(error).__name__}: {error}")
                return
            self.status.commits += 1
            for partition, position in offsets.items():
                if partition in self._trackers:
                    self._trackers[partition].committed(position)

    # -- rebalance ---------------------------------------------------------------------------------

    async def _on_revoked(self, partitions: Iterable[TopicPartition]) -> None:
        if self._consumer is not None:
            await self._commit(self._consumer)
        self._revoked(partitions)

    def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in list(partitions):
            self._trackers.pop(partition, None)
            self._progress.pop(partition, None)
            orphan = self._lanes.drop(partition)
            if orphan is not None:
                self._orphans[partition] = orphan
        self.status.assigned = ()
        self.status.lag = {}

    def _on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        assigned = list(partitions)
        self._trackers = {partition: OffsetTracker() for partition in assigned}
        self._assigned_at = time.monotonic()
        self.status.assigned = tuple(sorted(f"{p.topic}[{p.partition}]" for p in assigned))
        self.status.rebalances += 1
        self.status.problem = ""
        if self._consumer is not None and self._stopping:
            self._consumer.pause(*assigned)
        _log.info("kafka.assigned", partitions=self.status.assigned)

    # -- watchdogs ---------------------------------------------------------------------------------

    async def _probe(self, consumer: Any) -> None:
        while True:
            try:
                await asyncio.wait_for(self._measure_lag(consumer), _REQUEST_S)
            except (KafkaError, TimeoutError, OSError, AssertionError) as error:
                self.status.problem = f"the broker does not answer: {type(error).__name__}: {error}"
            else:
                self.status.problem = "" if self.status.assigned else "waiting for partitions"
            await asyncio.sleep(self._options.probe_s)

    async def _measure_lag(self, consumer: Any) -> None:
        assigned = consumer.assignment()
        if not assigned:
            await consumer.topics()
            return
        ends = await consumer.end_offsets(list(assigned))
        lag: dict[str, int] = {}
        for partition, end in ends.items():
            if partition not in consumer.assignment():
                continue
            position = await consumer.position(partition)
            name = f"{partition.topic}[{partition.partition}]"
            lag[name] = max(0, end - position) + self._lanes.waiting(partition)
            if end <= position or consumer.paused() or self._progress.get(partition, (-1, 0.0))[0] != position:
                self._progress[partition] = (position, time.monotonic())
        self.status.lag = lag

    def _watch(self) -> None:
        if self._stopping:
            return
        horizon = time.monotonic() - self._options.stuck_after_s
        if not self._trackers and self._assigned_at < horizon:
            raise _Stuck("no partition was assigned for too long")
        for partition, (position, since) in self._progress.items():
            if since < horizon:
                raise _Stuck(f"{partition.topic}[{partition.partition}] stands still at {position}")


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._source._on_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._source._on_assigned(assigned)
