"""Jobs for real child processes."""

from __future__ import annotations

import os
import time

from apstream.errors import TooFewStars


def double(number: int) -> int:
    return 2 * number


def pid(_: int) -> int:
    return os.getpid()


def hang(_: int) -> None:
    time.sleep(600)


def vanish(code: int) -> None:
    os._exit(code)


def swell(size: int) -> int:
    block = bytearray(size)
    time.sleep(30)
    return len(block)


def refuse(_: int) -> None:
    raise TooFewStars("3 stars", where="a.fits")


def stumble(_: int) -> None:
    raise ValueError("no such thing")


def unsendable(_: int) -> object:
    return lambda: None


def big(size: int) -> bytes:
    return bytes(size)


def threads(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def broken_warm_up() -> None:
    raise TooFewStars("cold")
