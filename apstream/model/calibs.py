"""Calibration products that ISR applies."""

from __future__ import annotations

from dataclasses import dataclass

from apstream.arrays.types import F32, BoolArray

__all__ = ["IsrCalibs"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IsrCalibs:
    """Masters on the assembled detector; None where a step has no calibration.

    Parameters
    ----------
    bias : ndarray, shape (ny, nx)
        ADU, overscan-subtracted.
    dark : ndarray, shape (ny, nx)
        ADU per second.
    flat : ndarray, shape (ny, nx)
        Relative response, mean one.
    defects : ndarray, shape (ny, nx), bool
        True means bad.
    """

    bias: F32 | None = None
    dark: F32 | None = None
    flat: F32 | None = None
    defects: BoolArray | None = None
