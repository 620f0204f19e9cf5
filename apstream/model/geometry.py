"""Boxes in pixel space: absolute, half-open, [y, x], pixel centres at integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, FloatArray

__all__ = ["Box"]


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open pixel box [y0, y1) x [x0, x1) in absolute coordinates."""

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise ValueError(f"box ends before it starts: {self}")

    @classmethod
    def from_shape(cls, shape: tuple[int, ...], y0: int = 0, x0: int = 0) -> Box:
        """Make the box of an array of `shape` whose first pixel is (y0, x0)."""
        return cls(y0, x0, y0 + shape[0], x0 + shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.y1 == self.y0 or self.x1 == self.x0

    @property
    def center(self) -> tuple[float, float]:
        """(y, x) of the centre."""
        return (self.y0 + self.y1 - 1) / 2, (self.x0 + self.x1 - 1) / 2

    def intersect(self, other: Box) -> Box:
        """Return the common part, possibly empty."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, x0, max(y0, min(self.y1, other.y1)), max(x0, min(self.x1, other.x1)))

    def grow(self, pixels: int) -> Box:
        """Return the box grown by `pixels` on every side."""
        return Box(self.y0 - pixels, self.x0 - pixels, self.y1 + pixels, self.x1 + pixels)

    def slices(self, origin: Box) -> tuple[slice, slice]:
        """Return the slices of this box in an array whose box is `origin`; it must lie inside."""
        if self.intersect(origin) != self:
            raise ValueError(f"{self} is not inside {origin}")
        return (
            slice(self.y0 - origin.y0, self.y1 - origin.y0),
            slice(self.x0 - origin.x0, self.x1 - origin.x0),
        )

    def contains(self, y: FloatArray, x: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Tell which positions lie on a pixel of the box."""
        return (y >= self.y0 - 0.5) & (y < self.y1 - 0.5) & (x >= self.x0 - 0.5) & (x < self.x1 - 0.5)

    def normalize(self, y: FloatArray | float, x: FloatArray | float) -> tuple[F64, F64]:
        """Map positions to [-1, 1] over the box, the domain of every spatial polynomial."""
        (cy, cx), (ny, nx) = self.center, self.shape
        return (np.asarray(y, float) - cy) / max(ny / 2, 1), (np.asarray(x, float) - cx) / max(nx / 2, 1)

    def corners(self) -> tuple[F64, F64]:
        """Return y and x of the four outer pixel centres."""
        ys = np.array([self.y0, self.y0, self.y1 - 1, self.y1 - 1], float)
        return ys, np.array([self.x0, self.x1 - 1, self.x1 - 1, self.x0], float)

    def outline(self, steps: int) -> tuple[F64, F64]:
        """Return y and x of positions around the outer edges of the pixels, `steps` along each side, not closed."""
        y0, x0, y1, x1 = self.y0 - 0.5, self.x0 - 0.5, self.y1 - 0.5, self.x1 - 0.5
        t = np.arange(steps) / steps
        ys = np.concatenate([np.full(steps, y0), y0 + (y1 - y0) * t, np.full(steps, y1), y1 - (y1 - y0) * t])
        xs = np.concatenate([x0 + (x1 - x0) * t, np.full(steps, x1), x1 - (x1 - x0) * t, np.full(steps, x0)])
        return ys, xs

    @staticmethod
    def bounding(boxes: Iterable[Box]) -> Box:
        """Return the smallest box around all `boxes`."""
        items = list(boxes)
        return Box(
            min(b.y0 for b in items),
            min(b.x0 for b in items),
            max(b.y1 for b in items),
            max(b.x1 for b in items),
        )
