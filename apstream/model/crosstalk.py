"""Crosstalk between the amplifiers of a detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64

__all__ = ["Crosstalk"]


@dataclass(frozen=True, slots=True, eq=False)
class Crosstalk:
    """How much of each amplifier's signal shows up in the others.

    Parameters
    ----------
    names
        Names of the amplifiers, in the order of the matrix.
    matrix : ndarray, shape (n, n), float64
        ``matrix[i, j]`` is the fraction of source amplifier j's signal that appears in amplifier i.

    Raises
    ------
    ValueError
        If names repeat, the shape does not fit them, the diagonal is not zero, or a value is not finite or
        not below one in size.
    """

    names: tuple[str, ...]
    matrix: F64

    def __post_init__(self) -> None:
        n = len(self.names)
        if n == 0 or len(set(self.names)) != n:
            raise ValueError(f"amplifier names must be given and differ: {', '.join(self.names) or 'none'}")
        if self.matrix.shape != (n, n):
            raise ValueError(f"crosstalk of {n} amplifiers must be {(n, n)}, not {self.matrix.shape}")
        if not np.all(np.abs(self.matrix) < 1):  # NaN fails too
            raise ValueError("crosstalk has a coefficient that is not finite or not below one")
        if np.diagonal(self.matrix).any():
            raise ValueError("crosstalk of an amplifier on itself must be zero")

    def between(self, source: str, victim: str) -> float:
        """Return the fraction of `source` that appears in `victim`; ValueError for an unknown name."""
        return float(self.matrix[self.names.index(victim), self.names.index(source)])
