"""What the test servers have in common: ports, process ends, and sharing between pytest-xdist workers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Unavailable", "alive", "end", "exclusive", "free_port", "guard", "lease", "spawn", "wait_until"]


class Unavailable(Exception):
    """A server cannot be had on this machine; the message says what is missing."""


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return not Path("/proc/self").exists()


def end(pid: int, sent: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> None:
    """Send a signal and return when the process is gone; SIGKILL after the timeout."""
    for attempt in (sent, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, attempt)
        if wait_until(lambda: not alive(pid), timeout):
            return
    raise TimeoutError(f"process {pid} does not end")


def wait_until(condition: Callable[[], bool], timeout: float, pause: float = 0.05) -> bool:
    """Poll a condition; return whether it came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def spawn(command: list[str], log: Path) -> int:
    """Start a program in a session of its own, its output appended to a file; return its process id."""
    output = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), output, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=files, setsid=True)


def guard(pid: int) -> None:
    """End a server when the whole test run disappears, so that a killed pytest leaves no server behind."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    watch = f"while kill -0 {owner} && kill -0 {pid}; do sleep 2; done"
    spawn(["sh", "-c", f"{watch}; kill -INT {pid} && sleep 10 && kill -KILL {pid}"], Path(os.devnull))


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file lock among processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def lease(state: Path, start: Callable[[], Any], attach: Callable[[Path], Any]) -> Iterator[Any]:
    """Share one server among the workers of a run: the first starts it, the last stops it.

    Parameters
    ----------
    state
        File all workers see; it counts the users and names the server's directory.
    start
        Starts a server and returns it; it has a `directory` and a `remove()`.
    attach
        Makes a handle on the running server from its directory.
    """
    lock = state.with_suffix(".lock")
    with exclusive(lock):
        known = json.loads(state.read_text()) if state.exists() else None
        server = attach(Path(known["directory"])) if known else start()
        users = known["users"] + 1 if known else 1
        state.write_text(json.dumps({"directory": str(server.directory), "users": users}))
    try:
        yield server
    finally:
        with exclusive(lock):
            users = json.loads(state.read_text())["users"] - 1
            state.write_text(json.dumps({"directory": str(server.directory), "users": users}))
            if users == 0:
                server.remove()
                state.unlink()
