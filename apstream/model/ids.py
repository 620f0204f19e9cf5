"""Data ids and the deterministic identifiers built from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SOURCES", "VisitDetector", "pack_source_ids", "unpack_source_id"]

_VISIT_BITS, _DETECTOR_BITS, _ORDINAL_BITS = 41, 8, 14
#: Most DIASources that one visit and detector can have.
MAX_SOURCES = 1 << _ORDINAL_BITS


@dataclass(frozen=True, slots=True, order=True)
class VisitDetector:
    """The unit of work: one detector of one visit of one instrument."""

    instrument: str
    visit: int
    detector: int

    def __post_init__(self) -> None:
        if not 0 <= self.visit < 1 << _VISIT_BITS:
            raise ValueError(f"visit {self.visit} is not in [0, 2^{_VISIT_BITS})")
        if not 0 <= self.detector < 1 << _DETECTOR_BITS:
            raise ValueError(f"detector {self.detector} is not in [0, {1 << _DETECTOR_BITS})")

    def __str__(self) -> str:
        return f"{self.instrument} visit={self.visit} detector={self.detector}"


def pack_source_ids(visit: int, detector: int, count: int) -> NDArray[np.int64]:
    """Return `count` 63-bit source ids: 41 bits of visit, 8 of detector, 14 of ordinal.

    Raises
    ------
    ValueError
        If visit, detector or count do not fit.
    """
    VisitDetector("", visit, detector)
    if count > MAX_SOURCES:
        raise ValueError(f"{count} sources in one detector; ids allow {MAX_SOURCES}")
    base = (visit << _DETECTOR_BITS | detector) << _ORDINAL_BITS
    return base + np.arange(count, dtype=np.int64)


def unpack_source_id(source_id: int) -> tuple[int, int, int]:
    """Return (visit, detector, ordinal) of a source id."""
    ordinal = source_id & (MAX_SOURCES - 1)
    rest = source_id >> _ORDINAL_BITS
    return rest >> _DETECTOR_BITS, rest & ((1 << _DETECTOR_BITS) - 1), ordinal
