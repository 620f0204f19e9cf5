"""Probes, metrics and status over HTTP, served inside the daemon's own event loop.

``/livez`` touches nothing outside the process: an outage of the database must not restart every pod.
``/readyz`` names what is wrong; its checks are cached for a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apstream import __version__
from apstream.errors import ApstreamError, BadSettings
from apstream.service.flight import Flight, Outcome
from apstream.service.lifecycle import Lifecycle, Phase
from apstream.service.settings import HealthSettings

__all__ = ["Check", "HealthServer", "Probes", "health_app"]

#: Returns what is wrong, or an empty string.
Check = Callable[[], Awaitable[str]]
Reply = Callable[[Request], Awaitable[Response]]


class Probes:
    """What the endpoints answer.

    Parameters
    ----------
    lifecycle
        The phase of the process.
    alive
        Returns why the process should be restarted, or nothing; must not leave the process.
    checks
        Readiness checks by name.
    metrics
        Returns the metrics page.
    status
        Returns flights and recent outcomes.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        alive: Callable[[], str],
        checks: Mapping[str, Check],
        metrics: Callable[[], bytes],
        status: Callable[[], tuple[list[Flight], list[Outcome]]],
        settings: HealthSettings,
    ) -> None:
        self.lifecycle = lifecycle
        self.alive = alive
        self.metrics = metrics
        self.status = status
        self._checks = checks
        self._settings = settings
        self._cached: tuple[float, dict[str, str]] = (float("-inf"), {})
        self._checking = asyncio.Lock()

    async def problems(self) -> dict[str, str]:
        """Return the result of every readiness check: empty strings where all is well."""
        async with self._checking:
            if time.monotonic() - self._cached[0] > self._settings.cache_s:
                names = list(self._checks)
                results = await asyncio.gather(*(self._check(self._checks[name]) for name in names))
                self._cached = (time.monotonic(), dict(zip(names, results, strict=True)))
        draining = "" if self.lifecycle.phase is Phase.RUNNING else self.lifecycle.phase.value
        return {"phase": draining, **self._cached[1]}

    async def _check(self, check: Check) -> str:
        try:
            return await asyncio.wait_for(check(), self._settings.check_timeout_s)
        except TimeoutError:
            return f"no answer in {self._settings.check_timeout_s:g} s"
        except ApstreamError as error:
            return f"{type(error).__name__}: {error}"


def health_app(probes: Probes) -> Starlette:
    """Return the ASGI application."""

    async def livez(_: Request) -> Response:
        problem = probes.alive()
        return JSONResponse({"alive": not problem, "problem": problem}, 503 if problem else 200)

    async def readyz(_: Request) -> Response:
        checks = await probes.problems()
        ready = not any(checks.values())
        return JSONResponse(
            {"ready": ready, "checks": {n: p or "ok" for n, p in checks.items()}}, 200 if ready else 503
        )

    async def startupz(_: Request) -> Response:
        started = probes.lifecycle.phase is not Phase.STARTING
        return JSONResponse({"started": started}, 200 if started else 503)

    async def metrics(_: Request) -> Response:
        return Response(probes.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(_: Request) -> Response:
        flights, recent = probes.status()
        return JSONResponse(
            {
                "phase": probes.lifecycle.phase.value,
                "in_flight": [_show_flight(flight) for flight in flights],
                "recent": [_show_outcome(outcome) for outcome in reversed(recent)],
            }
        )

    async def version(_: Request) -> Response:
        return JSONResponse({"name": "apstream", "version": __version__})

    pages: dict[str, Reply] = {
        "/livez": livez,
        "/readyz": readyz,
        "/healthz": readyz,
        "/startupz": startupz,
        "/metrics": metrics,
        "/status": status,
        "/version": version,
    }
    return Starlette(routes=[Route(path, page) for path, page in pages.items()])


class HealthServer:
    """Serves an ASGI application until closed.

    Parameters
    ----------
    settings
        Where to listen.

    Raises
    ------
    BadSettings
        If the port is taken or the address is not ours.
    """

    def __init__(self, app: Starlette, settings: HealthSettings) -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = _QuietServer(config)
        self._socket = _listen(settings)
        self._task: asyncio.Task[None] | None = None
        self.port = int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Serve in the background."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="health")

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3)
        self._socket.close()


class _QuietServer(uvicorn.Server):
    """A server that leaves the signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(settings: HealthSettings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port), backlog=128)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise BadSettings(f"cannot listen: {error.strerror}", where=where, remedy="set health.port") from error


def _show_flight(flight: Flight) -> dict[str, Any]:
    now = time.monotonic()
    return {
        "unit": None if flight.id is None else str(flight.id),
        "origin": flight.origin,
        "stage": flight.stage,
        "stage_s": round(now - flight.since, 3),
        "age_s": round(now - flight.received, 3),
        "attempts": flight.attempts,
    }


def _show_outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "id": None if outcome.id is None else str(outcome.id)}
