"""Lanes: events that must stay in order, at most one of each lane in work, lanes served in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["Lanes", "OffsetTracker"]

Lane = TypeVar("Lane", bound=Hashable)
Item = TypeVar("Item")


class OffsetTracker:
    """The contiguous low-water mark of one partition.

    Offsets begin in rising order (gaps are allowed, as compaction leaves them) and finish in any order. The
    position is the offset that a successor should read first: below it everything has finished.
    """

    def __init__(self) -> None:
        self._begun: deque[int] = deque()
        self._finished: set[int] = set()
        self._next: int | None = None
        self._committed: int | None = None

    def begin(self, offset: int) -> None:
        """Note that `offset` was fetched."""
        if self._begun and offset <= self._begun[-1]:
            raise ValueError(f"offset {offset} after {self._begun[-1]}")
        self._begun.append(offset)

    def finish(self, offset: int) -> None:
        """Note that the work of `offset` is over; offsets never begun are ignored."""
        if offset in self._begun:
            self._finished.add(offset)
        while self._begun and self._begun[0] in self._finished:
            done = self._begun.popleft()
            self._finished.discard(done)
            self._next = done + 1

    @property
    def uncommitted(self) -> int | None:
        """The position to commit; None when nothing new has finished."""
        return self._next if self._next != self._committed else None

    def committed(self, position: int) -> None:
        """Note that `position` was committed."""
        self._committed = position


class Lanes(Generic[Lane, Item]):
    """Queues by lane. `take` gives the oldest item of the next lane that has nothing in work."""

    def __init__(self) -> None:
        self._queues: dict[Lane, deque[Item]] = {}
        self._in_work: dict[Lane, Item] = {}
        self._turn: deque[Lane] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._finishing = False

    def put(self, lane: Lane, items: Iterable[Item]) -> None:
        """Append items to a lane."""
        if lane not in self._queues:
            self._queues[lane] = deque()
            self._turn.append(lane)
        self._queues[lane].extend(items)
        self._changed.set()

    def adopt(self, lane: Lane, item: Item) -> None:
        """Say that `item`, which is still in work from before, occupies the lane."""
        self._in_work[lane] = item

    async def take(self) -> Item | None:
        """Wait for the next item; None when the lanes are closed (and empty)."""
        while True:
            item = self._next()
            if item is not None or self._closed or (self._finishing and not any(self._queues.values())):
                return item
            self._changed.clear()
            await self._changed.wait()

    def in_work(self, lane: Lane) -> Item | None:
        """Return the item of a lane that is in work."""
        return self._in_work.get(lane)

    def free(self, lane: Lane) -> None:
        """End the work of a lane."""
        self._in_work.pop(lane, None)
        self._changed.set()

    def drop(self, lane: Lane) -> Item | None:
        """Forget a lane with its queue; return what was in work there."""
        self._queues.pop(lane, None)
        if lane in self._turn:
            self._turn.remove(lane)
        return self._in_work.pop(lane, None)

    def clear(self) -> None:
        """Forget all that waits; work goes on."""
        for queue in self._queues.values():
            queue.clear()

    def close(self) -> None:
        """Let `take` return None at once where nothing can be taken."""
        self._closed = True
        self._changed.set()

    def finish(self) -> None:
        """Let `take` return None when the last item has been taken."""
        self._finishing = True
        self._changed.set()

    def waiting(self, lane: Lane) -> int:
        """Items that wait in a lane."""
        return len(self._queues.get(lane, ()))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in work."""
        return not self._in_work and not any(self._queues.values())

    def _next(self) -> Item | None:
        for _ in range(len(self._turn)):
            lane = self._turn[0]
            self._turn.rotate(-1)
            if self._queues[lane] and lane not in self._in_work:
                item = self._queues[lane].popleft()
                self._in_work[lane] = item
                return item
        return None
