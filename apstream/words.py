"""Numbers and lists in messages for people."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["counted", "listed"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and what it counts: ``1 frame``, ``2 frames``; `plural` where it is not with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Iterable[object], *, most: int = 3, between: str = ", ") -> str:
    """Return the first few of a list in one line, and how many more there are; none of them is an empty text."""
    words = [str(item) for item in items]
    more = [f"and {len(words) - most} more"] if len(words) > most else []
    return between.join([*words[:most], *more])
