"""What runs inside a pool's child process. Imports nothing heavy: the first job decides what is needed.

The child ignores SIGINT and SIGTERM, because the parent drains; it dies with its parent, even a killed one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from apstream.errors import ApstreamError, BadSettings, UnfitImage, WorkerDied
from apstream.imports import load_object

__all__ = ["READY", "child_main", "resolve"]

#: First message of a child that has warmed up.
READY = "ready"
_PR_SET_PDEATHSIG = 1


def resolve(path: str) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Raises
    ------
    BadSettings
        If there is no such function.
    """
    function = load_object(path, "work of the children")
    if not callable(function):
        raise BadSettings(f"{path!r} is not a function")
    return function  # type: ignore[no-any-return]


def child_main(pipe: Connection, parent: int, warm_up: str) -> None:
    """Serve jobs from `pipe` until it closes: (path, request) in, (True, result) or (False, error) out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with(parent)
    pipe.send((READY, _attempt(warm_up, None) if warm_up else (True, None)))
    while True:
        try:
            path, request = pipe.recv()
        except (EOFError, OSError):
            return
        _answer(pipe, _attempt(path, request))


def _attempt(path: str, request: Any) -> tuple[bool, Any]:
    try:
        function = resolve(path)
        return True, function() if request is None else function(request)
    except ApstreamError as error:
        return False, error
    except MemoryError:
        return False, WorkerDied("the job ran out of memory")
    except Exception as error:
        sys.stderr.write(traceback.format_exc())
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        return False, UnfitImage(f"unexpected {type(error).__name__}: {error} [{place}]", remedy="please report this")


def _answer(pipe: Connection, answer: tuple[bool, Any]) -> None:
    try:
        pipe.send(answer)
    except (TypeError, AttributeError, ValueError) as error:  # not picklable
        pipe.send((False, BadSettings(f"the job's result cannot be sent: {error}")))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
