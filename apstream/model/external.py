"""An image reduced elsewhere, as its file gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apstream.arrays.types import F32, BoolArray
from apstream.model.exposures import ExposureInfo
from apstream.model.wcs import SkyWcs

__all__ = ["ExternalImage"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExternalImage:
    """Pixels in the file's own unit with whatever came beside them.

    Parameters
    ----------
    pixels : ndarray, shape (ny, nx)
        Counts, sky subtracted or not.
    bad : ndarray, shape (ny, nx), bool
        True where the file's mask says bad.
    saturated : ndarray, shape (ny, nx), bool
        True where the file's mask says saturated, if it can say.
    variance : ndarray, shape (ny, nx), or None
        In the square of the pixels' unit; None where the file has none.
    gain
        Electrons per unit; None where unknown.
    saturation
        In the pixels' unit, infinite where unknown.
    """

    pixels: F32
    bad: BoolArray
    saturated: BoolArray
    variance: F32 | None
    gain: float | None
    read_noise: float
    saturation: float
    info: ExposureInfo
    wcs: SkyWcs | None
    path: str
    header: dict[str, Any] = field(default_factory=dict)
