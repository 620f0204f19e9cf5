"""Defects of a detector: boxes of pixels that are never good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import BoolArray
from apstream.model.geometry import Box

__all__ = ["Defects"]


@dataclass(frozen=True, slots=True)
class Defects:
    """Boxes of bad pixels on the assembled detector; they may overlap.

    Raises
    ------
    ValueError
        If a box is empty or begins below pixel 0.
    """

    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        for box in self.boxes:
            if box.is_empty or min(box.y0, box.x0) < 0:
                raise ValueError(f"no pixels of a detector: {box}")

    @classmethod
    def from_mask(cls, mask: BoolArray) -> Defects:
        """Return disjoint boxes that cover exactly the True pixels: runs along x, equal ones joined along y."""
        padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
        padded[:, 1:-1] = mask
        steps = np.diff(padded, axis=1)
        (y, x0), (_, x1) = np.nonzero(steps == 1), np.nonzero(steps == -1)
        order = np.lexsort((y, x1, x0))
        y, x0, x1 = y[order], x0[order], x1[order]
        begins = np.ones(len(y), bool)
        begins[1:] = (np.diff(y) != 1) | (np.diff(x0) != 0) | (np.diff(x1) != 0)
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(y))[: len(first)] - 1
        rows = np.stack([y[first], x0[first], y[last] + 1, x1[first]], axis=1)
        return cls(tuple(sorted((Box(*row) for row in rows.tolist()), key=lambda b: (b.y0, b.x0))))

    def mask(self, shape: tuple[int, int]) -> BoolArray:
        """Return a boolean image of `shape`, True on defects.

        Raises
        ------
        ValueError
            If a box reaches beyond `shape`: the list belongs to another detector.
        """
        bad = np.zeros(shape, bool)
        whole = Box.from_shape(shape)
        for box in self.boxes:
            bad[box.slices(whole)] = True
        return bad
