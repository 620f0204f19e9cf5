"""The mask planes: one fixed bit each, True means flagged."""

from __future__ import annotations

import enum
from functools import reduce
from operator import or_

__all__ = ["MaskPlane", "plane_names", "planes"]


class MaskPlane(enum.IntFlag):
    """Bits of an int32 mask image."""

    BAD = 1 << 0
    SAT = 1 << 1
    INTRP = 1 << 2
    CR = 1 << 3
    EDGE = 1 << 4
    DETECTED = 1 << 5
    DETECTED_NEGATIVE = 1 << 6
    SUSPECT = 1 << 7
    NO_DATA = 1 << 8
    CROSSTALK = 1 << 9
    STREAK = 1 << 10
    BRIGHT_OBJECT = 1 << 11
    CLIPPED = 1 << 12
    REJECTED = 1 << 13
    SENSOR_EDGE = 1 << 14
    INEXACT_PSF = 1 << 15
    HIGH_VARIANCE = 1 << 16
    SAT_TEMPLATE = 1 << 17
    INJECTED = 1 << 18


def planes(*names: str) -> int:
    """Return the bits of the named planes; ValueError lists the planes that exist."""
    unknown = [name for name in names if name not in MaskPlane.__members__]
    if unknown:
        raise ValueError(f"no mask plane {', '.join(unknown)}; there are {', '.join(MaskPlane.__members__)}")
    return int(reduce(or_, (MaskPlane[name] for name in names), MaskPlane(0)))


def plane_names(bits: int) -> list[str]:
    """Return the names of the planes set in `bits`."""
    return [plane.name for plane in MaskPlane if bits & plane and plane.name]
