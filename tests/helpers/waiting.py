"""Waiting in tests: for a condition, and never for ever."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Poll a condition (plain or async) until it holds; TimeoutError otherwise."""
    async with asyncio.timeout(timeout_s):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(0.02)
