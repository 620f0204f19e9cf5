"""The alert producer as one call: settings in, exit status out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from apstream.service.context import ProcessContext
from apstream.service.flight import Flight, Outcome
from apstream.service.health import HealthServer, Probes, health_app
from apstream.service.lifecycle import Lifecycle
from apstream.service.loop import DaemonLoop
from apstream.service.settings import DaemonSettings
from apstream.service.telemetry import Telemetry, configure_logging

__all__ = ["run_daemon", "serve"]

_log = structlog.get_logger(__name__)


def run_daemon(settings: DaemonSettings, *, idle_exit_s: float | None = None) -> None:
    """Configure logs and serve until told to stop.

    Raises
    ------
    ApstreamError
        If the service cannot start or go on.
    """
    configure_logging(settings.log_level, settings.log_format)
    asyncio.run(serve(settings, idle_exit_s=idle_exit_s))


async def serve(
    settings: DaemonSettings,
    *,
    idle_exit_s: float | None = None,
    on_end: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Serve until SIGTERM, or until nothing has come for `idle_exit_s` seconds; `on_end` is told of every event."""
    lifecycle, telemetry = Lifecycle(), Telemetry(on_end)
    holder = _Holder(telemetry)
    async with AsyncExitStack() as stack:
        stack.callback(lifecycle.install())
        if settings.health is not None:
            probes = holder.probes(lifecycle, settings)
            server = HealthServer(health_app(probes), settings.health)
            server.start()
            stack.push_async_callback(server.close)
            _log.info("health.listening", port=server.port)
        context = await _unless_stopped(ProcessContext.from_settings(settings, telemetry, lifecycle), lifecycle)
        if context is None:
            return
        stack.push_async_callback(context.aclose)
        service = settings.service
        loop = DaemonLoop(
            context.source,
            context.worker,
            context.relay,
            telemetry,
            lifecycle,
            in_flight=service.in_flight or settings.workers.count + 1,
            drain_s=service.drain_s,
        )
        holder.take(context, loop, settings)
        _log.info("service.running", workers=settings.workers.count)
        await loop.run(idle_exit_s=idle_exit_s)
    _log.info("service.stopped")


async def _unless_stopped(building: object, lifecycle: Lifecycle) -> ProcessContext | None:
    """Wait for the context, but not past a signal."""
    task: asyncio.Task[ProcessContext] = asyncio.ensure_future(building)  # type: ignore[call-overload]
    stop = asyncio.create_task(lifecycle.drain_asked())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    return None


class _Holder:
    """What the probes look at; empty while the parts are being built."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._context: ProcessContext | None = None
        self._loop: DaemonLoop | None = None
        self._settings: DaemonSettings | None = None

    def take(self, context: ProcessContext, loop: DaemonLoop, settings: DaemonSettings) -> None:
        self._context, self._loop, self._settings = context, loop, settings

    def probes(self, lifecycle: Lifecycle, settings: DaemonSettings) -> Probes:
        assert settings.health is not None
        return Probes(
            lifecycle,
            alive=self._alive,
            checks={
                "events": self._events,
                "apdb": self._apdb,
                "alerts": self._alerts,
                "workers": self._workers,
            },
            metrics=self._metrics,
            status=self._status,
            settings=settings.health,
        )

    def _alive(self) -> str:
        if self._context is None or self._loop is None or self._settings is None:
            return ""
        health, workers = self._settings.health, self._settings.workers
        if health is not None and self._loop.lag_s > health.loop_lag_s:
            return f"the event loop lags {self._loop.lag_s:.1f} s"
        limit = max(workers.job_timeout_s, workers.start_timeout_s) + 30
        stuck = [slot.slot for slot in self._context.pool.status() if slot.busy_s > limit]
        return f"slots {stuck} are stuck" if stuck else ""

    async def _events(self) -> str:
        return "starting" if self._context is None else await self._context.source_problem()

    async def _apdb(self) -> str:
        return "starting" if self._context is None else await self._context.apdb_problem()

    async def _alerts(self) -> str:
        return "starting" if self._context is None else await self._context.sink_problem()

    async def _workers(self) -> str:
        return "starting" if self._context is None else await self._context.pool_problem()

    def _metrics(self) -> bytes:
        if self._context is not None:
            context = self._context
            self._telemetry.observe(context.source.status, context.sink.status, context.pool.status())
        return self._telemetry.page()

    def _status(self) -> tuple[list[Flight], list[Outcome]]:
        if self._context is None or self._loop is None:
            return [], []
        return sorted(self._context.worker.flights, key=lambda f: f.received), list(self._loop.recent)
