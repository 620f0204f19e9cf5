"""The daemon's loop: intake, relay and heartbeat beside each other, and the way out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

import structlog

from apstream.ports import EventSource, Message
from apstream.service.flight import Outcome
from apstream.service.lifecycle import Lifecycle, Phase
from apstream.service.relay import Relay
from apstream.service.telemetry import Telemetry
from apstream.service.worker import EventWorker

__all__ = ["DaemonLoop"]

_log = structlog.get_logger(__name__)
_BEAT_S = 0.25
_RECENT = 50


class DaemonLoop:
    """Takes events from a source while there is room, until told to stop.

    Parameters
    ----------
    in_flight
        Events in work at once.
    drain_s
        Time that work may take to end once the loop is told to stop.
    """

    def __init__(
        self,
        source: EventSource,
        worker: EventWorker,
        relay: Relay,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        *,
        in_flight: int,
        drain_s: float,
    ) -> None:
        self._source = source
        self._worker = worker
        self._relay = relay
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._room = asyncio.Semaphore(in_flight)
        self._drain_s = drain_s
        self._work: set[asyncio.Task[None]] = set()
        self.recent: deque[Outcome] = deque(maxlen=_RECENT)
        self.lag_s = 0.0
        self.last_event = time.monotonic()

    async def run(self, *, idle_exit_s: float | None = None) -> None:
        """Run until a signal, or until nothing has come for `idle_exit_s` seconds.

        Raises
        ------
        FatalError
            If the service cannot go on.
        """
        self._lifecycle.running()
        helpers = [self._heartbeat(), self._relay.run()]
        if idle_exit_s is not None:
            helpers.append(self._stop_when_idle(idle_exit_s))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(helper) for helper in helpers]
                intake = group.create_task(self._intake(group))
                await self._lifecycle.drain_asked()
                self._source.stop_intake()
                await self._drain(intake)
                for task in (*tasks, intake, *self._work):
                    task.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            self._lifecycle.phase = Phase.STOPPED

    async def _intake(self, group: asyncio.TaskGroup) -> None:
        async for message in self._source.messages():
            self._telemetry.received.inc()
            self.last_event = time.monotonic()
            task = group.create_task(self._work_off(message))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
            async with self._room:  # wait for room before taking the next
                pass
        if not self._lifecycle.stopping:
            self._lifecycle.stop("the source has ended")

    async def _work_off(self, message: Message) -> None:
        async with self._room:
            self._telemetry.in_flight.set(len(self._work))
            outcome = await self._worker.handle(message)
            await self._source.done(message)
        self._telemetry.ended(outcome)
        self.recent.append(outcome)
        self.last_event = time.monotonic()

    async def _drain(self, intake: asyncio.Task[None]) -> None:
        """Wait for the work in flight: until done, out of time, or told to stop at once."""
        work = {intake, *self._work}
        impatience = asyncio.create_task(self._lifecycle.at_once_asked())
        deadline = time.monotonic() + self._drain_s
        try:
            while work and not impatience.done() and (left := deadline - time.monotonic()) > 0:
                await asyncio.wait({*work, impatience}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                work = {task for task in (intake, *self._work) if not task.done()}
        finally:
            impatience.cancel()
        _log.info("service.drained", unfinished=len(self._work))

    async def _heartbeat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            self.lag_s = max(0.0, time.monotonic() - before - _BEAT_S)
            self._telemetry.loop_lag.set(self.lag_s)
            self._telemetry.in_flight.set(len(self._work))

    async def _stop_when_idle(self, idle_s: float) -> None:
        while True:
            await asyncio.sleep(min(0.2, idle_s))
            if self._work or not self._source.idle:
                self.last_event = time.monotonic()
            elif time.monotonic() - self.last_event >= idle_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._relay.look(patient=False), self._drain_s or None)
                self._lifecycle.stop(f"no event for {idle_s:g} s")
                return
