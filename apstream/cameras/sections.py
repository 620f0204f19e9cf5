"""FITS section strings: the one place where 1-based, inclusive [x1:x2,y1:y2] becomes a box."""

from __future__ import annotations

import re
from dataclasses import dataclass

from apstream.model.geometry import Box

__all__ = ["Section", "format_section", "parse_section"]

_SECTION = re.compile(r"^\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*$")


@dataclass(frozen=True, slots=True)
class Section:
    """A box, and whether the section ran backwards along an axis."""

    box: Box
    flip_x: bool = False
    flip_y: bool = False


def parse_section(text: str) -> Section:
    """Read ``[x1:x2,y1:y2]``; a range that runs backwards (``[2048:1025,...]``) means mirrored.

    Raises
    ------
    ValueError
        If the text is not a section or starts below pixel 1.
    """
    found = _SECTION.match(str(text))
    if not found:
        raise ValueError(f"{text!r} is not a FITS section such as [1:1024,1:4096]")
    x1, x2, y1, y2 = (int(group) for group in found.groups())
    if min(x1, x2, y1, y2) < 1:
        raise ValueError(f"section {text!r} starts below pixel 1; FITS counts from 1")
    box = Box(min(y1, y2) - 1, min(x1, x2) - 1, max(y1, y2), max(x1, x2))
    return Section(box, flip_x=x2 < x1, flip_y=y2 < y1)


def format_section(box: Box) -> str:
    """Write a box as a FITS section string."""
    return f"[{box.x0 + 1}:{box.x1},{box.y0 + 1}:{box.y1}]"
