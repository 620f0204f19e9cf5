"""From start to drain: what phase the process is in, and the signals that change it."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Callable

import structlog

__all__ = ["Lifecycle", "Phase"]

_log = structlog.get_logger(__name__)


class Phase(enum.Enum):
    """Phases, in order."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Lifecycle:
    """The phase of the process; the first SIGTERM or SIGINT drains, the second stops at once."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self._drain = asyncio.Event()
        self._at_once = asyncio.Event()

    def install(self) -> Callable[[], None]:
        """Listen to SIGTERM and SIGINT; return what undoes it."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.stop, signal.Signals(number).name)

        def remove() -> None:
            for number in signals:
                loop.remove_signal_handler(number)

        return remove

    def running(self) -> None:
        """Enter the running phase, unless a signal came first."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING

    def stop(self, why: str) -> None:
        """Begin to drain; when draining already, give up waiting."""
        _log.info("service.stop", why=why, phase=self.phase.value)
        if self._drain.is_set():
            self._at_once.set()
        self.phase = Phase.DRAINING
        self._drain.set()

    @property
    def stopping(self) -> bool:
        """Whether the process is on its way out."""
        return self._drain.is_set()

    async def drain_asked(self) -> None:
        """Wait until somebody asks for the drain."""
        await self._drain.wait()

    async def at_once_asked(self) -> None:
        """Wait until somebody asks a second time."""
        await self._at_once.wait()
