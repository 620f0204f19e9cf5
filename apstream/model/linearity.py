"""Linearity of the amplifiers of a detector: what turns measured into true signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from apstream.arrays.types import F64

__all__ = ["Linearity"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearity:
    """How each amplifier departs from a straight line; applied to overscan-subtracted ADU.

    Parameters
    ----------
    names
        Names of the amplifiers, in the order of what follows.
    kind
        ``polynomial`` or ``table``.
    coefficients
        One array for each amplifier. Polynomial, shape (n,): c2, c3, ... of true = x + c2 x^2 + c3 x^3 + ...
        Table, shape (2, n): measured ADU, rising, and the ADU to add there; linear between, constant beyond.
    max_adu
        Above it, measured, the signal is not to be trusted (SUSPECT); infinite: no such limit.

    Raises
    ------
    ValueError
        If names repeat, numbers or shapes do not fit, a value is not finite, or a table does not rise.
    """

    names: tuple[str, ...]
    kind: Literal["polynomial", "table"]
    coefficients: tuple[F64, ...]
    max_adu: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"amplifier names must be given and differ: {', '.join(self.names) or 'none'}")
        if not len(self.names) == len(self.coefficients) == len(self.max_adu):
            raise ValueError(f"linearity of {len(self.names)} amplifiers needs as many coefficients and limits")
        if self.kind not in ("polynomial", "table"):
            raise ValueError(f"linearity is a polynomial or a table, not {self.kind!r}")
        for name, values, limit in zip(self.names, self.coefficients, self.max_adu, strict=True):
            self._check(name, values, limit)

    def _check(self, name: str, values: F64, limit: float) -> None:
        if not np.all(np.isfinite(values)) or not limit > 0:
            raise ValueError(f"linearity of amplifier {name} has a value that is not finite, or no positive limit")
        if self.kind == "polynomial" and values.ndim != 1:
            raise ValueError(f"linearity polynomial of amplifier {name} must be a row of numbers, not {values.shape}")
        if self.kind == "table":
            if values.ndim != 2 or len(values) != 2 or values.shape[1] < 2:
                raise ValueError(f"linearity table of amplifier {name} must be (2, n >= 2), not {values.shape}")
            if not np.all(np.diff(values[0]) > 0):
                raise ValueError(f"linearity table of amplifier {name}: measured ADU must rise")
