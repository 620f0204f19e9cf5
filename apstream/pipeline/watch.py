"""How a pipeline tells the shell what it is doing: one context manager around each stage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Watch", "unwatched"]

#: Called with a stage's name; the returned context spans the stage.
Watch = Callable[[str], AbstractContextManager[None]]


def unwatched(stage: str) -> AbstractContextManager[None]:
    """Watch nothing."""
    return nullcontext()
