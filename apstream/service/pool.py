"""Supervised child processes: one process per slot with a pipe of its own.

A child that hangs, dies or grows too large is killed and replaced; the others and the service do not notice.
(`concurrent.futures` breaks the whole pool when one child dies.) The event loop must run in the main thread,
because on Linux the children die with the thread that made them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog

from apstream.errors import ApstreamError, WorkerDied
from apstream.service.child import READY, child_main

__all__ = ["PoolSettings", "SlotStatus", "WorkerPool"]

_log = structlog.get_logger(__name__)
_TICK_S = 0.1
_RESTART_DELAYS_S = (0.0, 0.2, 1.0, 5.0, 15.0)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Limits of a pool.

    Parameters
    ----------
    size
        Number of children.
    job_timeout_s
        A job that takes longer is killed.
    start_timeout_s
        A child that does not warm up in this time is killed.
    memory_bytes
        A child whose resident memory is larger is killed; 0 for no limit (Linux only).
    jobs_per_child
        A child is replaced after so many jobs; 0 for never.
    threads
        Threads of the numerical libraries in a child.
    warm_up
        ``package.module:function`` that a new child calls before its first job; may be empty.
    """

    size: int = 1
    job_timeout_s: float = 300.0
    start_timeout_s: float = 120.0
    memory_bytes: int = 0
    jobs_per_child: int = 0
    threads: int = 1
    warm_up: str = ""


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What a slot is doing."""

    slot: int
    pid: int
    busy_s: float
    jobs: int
    restarts: int
    rss_bytes: int


class WorkerPool:
    """Runs jobs in child processes, at most `settings.size` at a time.

    Parameters
    ----------
    settings
        Limits.
    on_restart
        Called with the reason whenever a child had to be replaced.
    """

    def __init__(self, settings: PoolSettings, on_restart: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._slots = [_Slot(number, settings, on_restart or _ignore) for number in range(settings.size)]
        self._free: asyncio.Queue[_Slot] = asyncio.Queue()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False
        self.problem = "not started"

    async def start(self) -> None:
        """Start all children and return when one is ready.

        Raises
        ------
        ApstreamError
            What the warm-up raised, or WorkerDied if no child comes up.
        """
        for slot in self._slots:
            self._bring_up(slot)
        pending = set(self._starting)
        while pending and self._free.empty():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def run(self, path: str, request: Any) -> Any:
        """Run ``package.module:function`` with `request` in a free child and return its result.

        Raises
        ------
        WorkerDied
            If the child died, took too long or grew too large.
        ApstreamError
            What the function raised; unexpected errors become UnfitImage.
        """
        slot = await self._free.get()
        try:
            return await slot.run(path, request)
        finally:
            if slot.usable:
                self._free.put_nowait(slot)
            elif not self._closed:
                self._bring_up(slot)

    async def close(self) -> None:
        """Kill all children."""
        self._closed = True
        for task in self._starting:
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        for slot in self._slots:
            slot.kill()
        self.problem = "closed"

    def status(self) -> Sequence[SlotStatus]:
        """Return what every slot is doing."""
        return [slot.status() for slot in self._slots]

    def _bring_up(self, slot: _Slot) -> None:
        task = asyncio.create_task(self._start_slot(slot), name=f"start-slot-{slot.number}")
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.problem = str(error)

    async def _start_slot(self, slot: _Slot) -> None:
        while True:
            await asyncio.sleep(slot.next_delay())
            try:
                await slot.start()
            except WorkerDied as error:
                self.problem = str(error)
                _log.error("pool.start.failed", slot=slot.number, reason=str(error))
                continue
            self.problem = ""
            self._free.put_nowait(slot)
            return


class _Slot:
    """One child process, its pipe, and the watch over it."""

    def __init__(self, number: int, settings: PoolSettings, on_restart: Callable[[str], None]) -> None:
        self.number = number
        self._settings = settings
        self._on_restart = on_restart
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._since: float | None = None
        self._jobs = 0
        self._failures = 0
        self._restarts = -1

    @property
    def usable(self) -> bool:
        """Whether the child lives and may take another job."""
        limit = self._settings.jobs_per_child
        if limit and self._jobs >= limit:
            self.kill()
        return self._process is not None and self._process.is_alive()

    def next_delay(self) -> float:
        """Seconds to wait before the next start: none at first, longer while starts keep failing."""
        return _RESTART_DELAYS_S[min(self._failures, len(_RESTART_DELAYS_S) - 1)]

    async def start(self) -> None:
        """Start a child and wait until it has warmed up."""
        self.kill()
        self._failures += 1
        self._restarts += 1
        self._jobs = 0
        self._spawn()
        word, (ok, result) = await self._receive(self._settings.start_timeout_s)
        if word != READY or not ok:
            self.kill()
            raise result if isinstance(result, ApstreamError) else WorkerDied(f"warm-up failed: {result}")
        self._failures = 0

    async def run(self, path: str, request: Any) -> Any:
        """Run one job; the child is dead afterwards if the job did not end by itself."""
        if not self.usable:  # died while idle
            await self.start()
        assert self._pipe is not None
        self._jobs += 1
        try:
            await asyncio.to_thread(self._pipe.send, (path, request))
            ok, result = await self._receive(self._settings.job_timeout_s)
        except OSError as error:
            raise self._died(f"the child went away: {error}") from error
        except asyncio.CancelledError:
            self._since = None
            self.kill()
            raise
        if not ok:
            raise result
        return result

    def kill(self) -> None:
        """Kill the child, if there is one."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if process is not None:
            process.kill()
            process.join()
            process.close()
        if pipe is not None:
            pipe.close()

    def status(self) -> SlotStatus:
        """Return what the slot is doing."""
        pid = self._process.pid if self._process is not None and self._process.pid else 0
        busy = 0.0 if self._since is None else time.monotonic() - self._since
        return SlotStatus(self.number, pid, busy, self._jobs, max(0, self._restarts), _rss(pid))

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=child_main,
            args=(theirs, os.getpid(), self._settings.warm_up),
            name=f"apstream-pixels-{self.number}",
            daemon=True,
        )
        for name in _THREADS:
            os.environ.setdefault(name, str(self._settings.threads))
        self._process.start()
        theirs.close()
        self._pipe = ours

    async def _receive(self, timeout_s: float) -> tuple[Any, Any]:
        pipe = self._pipe
        assert pipe is not None
        self._since = time.monotonic()
        reason = await self._await_answer(pipe, timeout_s)
        self._since = None
        if reason:
            raise self._died(reason)
        try:
            answer: tuple[Any, Any] = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            raise self._died(self._obituary()) from None
        return answer

    async def _await_answer(self, pipe: Connection, timeout_s: float) -> str:
        """Wait until the pipe can be read; return why the child has to die instead, or nothing."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        deadline = time.monotonic() + timeout_s
        loop.add_reader(pipe.fileno(), readable.set)
        try:
            while not readable.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), _TICK_S)
                    break
                if time.monotonic() > deadline:
                    return f"no result after {timeout_s:g} s"
                if excess := self._excess():
                    return excess
        finally:
            loop.remove_reader(pipe.fileno())
        return ""

    def _excess(self) -> str:
        limit, rss = self._settings.memory_bytes, self.status().rss_bytes
        return f"{rss >> 20} MiB of memory, more than {limit >> 20} MiB" if limit and rss > limit else ""

    def _obituary(self) -> str:
        assert self._process is not None
        self._process.join(1.0)
        code = self._process.exitcode
        return f"the child was killed by signal {-code}" if code and code < 0 else f"the child ended with {code}"

    def _died(self, reason: str) -> WorkerDied:
        self.kill()
        self._on_restart(reason)
        _log.warning("pool.child.lost", slot=self.number, reason=reason)
        return WorkerDied(reason, remedy="a new child was started")


def _rss(pid: int) -> int:
    if not pid or sys.platform != "linux":
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _ignore(reason: str) -> None:
    """Tell nobody."""
