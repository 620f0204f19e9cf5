"""Many raw frames of one detector, and what became of them in a calibration product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from apstream.arrays.types import F32
from apstream.model.exposures import RawExposure

__all__ = ["CalibReport", "Master", "MemoryFrames", "RawFrames", "Rejected"]


class RawFrames(Protocol):
    """Raw frames of one detector that need not fit into memory together."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def frame(self, index: int) -> RawExposure:
        """Return a whole frame."""
        ...

    def rows(self, index: int, y0: int, y1: int) -> F32:
        """Return rows y0 to y1 (half-open) of the raw array of a frame, ADU."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryFrames:
    """Raw frames that are in memory."""

    frames: Sequence[RawExposure]

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> RawExposure:
        """Return a whole frame."""
        return self.frames[index]

    def rows(self, index: int, y0: int, y1: int) -> F32:
        """Return rows y0 to y1 (half-open) of the raw array of a frame, ADU."""
        return self.frames[index].pixels[y0:y1]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A frame that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibReport:
    """What a calibration product was made of, and how good it is.

    Parameters
    ----------
    kind
        Dataset type of the product.
    used
        Names of the frames that went in.
    rejected
        Frames that were left out.
    metrics
        Numbers by name; units stand in the names.
    """

    kind: str
    used: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Master:
    """A combined frame on the assembled detector.

    Parameters
    ----------
    image, noise : ndarray, shape (ny, nx), float32
        The mean and its standard error; NaN where no frame has a value.
    report
        How it was made.
    """

    image: F32
    noise: F32
    report: CalibReport
