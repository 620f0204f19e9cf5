"""The relay: alerts that were committed but never acknowledged are sent again, byte for byte."""

from __future__ import annotations

import asyncio
import time

import structlog

from apstream.errors import TransientFailure
from apstream.ports import Apdb, OutboxEntry
from apstream.service.telemetry import Telemetry
from apstream.service.worker import EventWorker

__all__ = ["Relay"]

_log = structlog.get_logger(__name__)


class Relay:
    """Looks at the outbox from time to time.

    A row is sent when it has been seen unsent in two looks and no event of its unit is in work here: another
    process may be about to send it, and sending twice, though harmless, is not wanted.
    """

    def __init__(self, apdb: Apdb, worker: EventWorker, telemetry: Telemetry, interval_s: float) -> None:
        self._apdb = apdb
        self._worker = worker
        self._telemetry = telemetry
        self._interval_s = interval_s
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look for ever: soon after the start a second time, then at the interval."""
        pause = min(2.0, self._interval_s)
        while True:
            try:
                await self.look()
            except TransientFailure as error:
                _log.warning("relay.failed", error_class=type(error).__name__, reason=str(error))
            await asyncio.sleep(pause)
            pause = self._interval_s

    async def look(self, *, patient: bool = True) -> int:
        """Look once; return how many rows stay unsent. Without patience rows are sent at first sight."""
        entries = [entry for entry in await self._apdb.unsent() if not self._worker.working_on(entry.id)]
        now = time.monotonic()
        self._seen = {entry.path: self._seen.get(entry.path, now) for entry in entries}
        self._telemetry.outbox_pending.set(len(entries))
        self._telemetry.outbox_oldest.set(max((now - since for since in self._seen.values()), default=0.0))
        left = 0
        for entry in entries:
            due = not patient or self._seen[entry.path] < now
            left += 0 if due and await self._send(entry) else 1
        return left

    async def _send(self, entry: OutboxEntry) -> bool:
        try:
            self._telemetry.relayed.inc(await self._worker.publish(entry))
        except TransientFailure as error:  # one bad file must not hold up the others
            _log.error("relay.unsent", entry=str(entry.id), error_class=type(error).__name__, reason=str(error))
            return False
        _log.info("relay.sent", entry=str(entry.id), n_alerts=entry.n_alerts)
        return True
