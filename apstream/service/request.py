"""What crosses to a child process and back: requests and the header's identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apstream.model.events import ExposureEvent
from apstream.model.ids import VisitDetector
from apstream.model.products import KnownObjects, SkyCircle

__all__ = ["HeaderRequest", "Identity", "PixelRequest"]


@dataclass(frozen=True, slots=True)
class HeaderRequest:
    """Look at a file's header only.

    Parameters
    ----------
    event
        The event that named the file.
    path
        The file, resolved inside the configured roots.
    settings
        The `pixels` branch of the settings tree.
    """

    event: ExposureEvent
    path: str
    settings: Any


@dataclass(frozen=True, slots=True)
class Identity:
    """What a header says: which unit of work, and roughly where on the sky (None if it is silent)."""

    id: VisitDetector
    region: SkyCircle | None


@dataclass(frozen=True, slots=True, eq=False)
class PixelRequest:
    """Turn one raw file into `PixelProducts`.

    Parameters
    ----------
    event
        The event that named the file.
    path
        The file, resolved inside the configured roots.
    known
        Objects that want forced photometry.
    settings
        The `pixels` branch of the settings tree.
    """

    event: ExposureEvent
    path: str
    known: KnownObjects
    settings: Any
