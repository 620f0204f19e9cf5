"""What crosses from pixels to catalogues, and from catalogues to the database and the topic."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apstream.arrays.types import F64, Records
from apstream.model.exposures import ExposureInfo

__all__ = [
    "Alert",
    "Association",
    "CatalogProducts",
    "CutoutTriplet",
    "History",
    "KnownObjects",
    "PixelProducts",
    "SkyCircle",
]


@dataclass(frozen=True, slots=True)
class SkyCircle:
    """A circle on the sky, ICRS degrees."""

    ra: float
    dec: float
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class KnownObjects:
    """Where forced photometry is wanted: ids (n,), ra and dec in degrees (n,)."""

    ids: np.ndarray[tuple[int], np.dtype[np.int64]]
    ra: F64
    dec: F64

    @classmethod
    def none(cls) -> KnownObjects:
        """No known objects."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True)
class CutoutTriplet:
    """The three cutouts of one source as FITS bytes, never empty."""

    science: bytes
    template: bytes
    difference: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelProducts:
    """All that the pixel half returns: small tables and cutouts, no image.

    Parameters
    ----------
    dia_sources
        Rows of `columns.DIA_SOURCE`; ids set, objects not yet.
    forced
        Rows of `columns.DIA_FORCED_SOURCE` at the known objects inside the image.
    cutouts
        One per row of `dia_sources`.
    region
        Circle around the image.
    metrics
        Quality numbers under dotted stage names.
    timings_s
        Seconds spent per stage.
    notes
        What a user has to know of the inputs, a sentence each.
    """

    info: ExposureInfo
    dia_sources: Records
    forced: Records
    cutouts: tuple[CutoutTriplet, ...]
    region: SkyCircle
    metrics: dict[str, float] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.cutouts) != len(self.dia_sources):
            raise ValueError(f"{len(self.cutouts)} cutouts for {len(self.dia_sources)} sources")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What the APDB knows of a region: latest objects, their sources and forced sources in the window."""

    objects: Records  # columns.DIA_OBJECT
    sources: Records  # columns.DIA_SOURCE
    forced: Records  # columns.DIA_FORCED_SOURCE


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """The result of associating sources with objects.

    `sources` carry their diaObjectId; `object_ids` are the touched objects, `is_new` tells which began here.
    """

    sources: Records
    object_ids: np.ndarray[tuple[int], np.dtype[np.int64]]
    is_new: np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert ready to send: `key` orders an object's alerts, `payload` is the Avro datum with framing."""

    id: int
    key: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CatalogProducts:
    """All that one commit stores, and the alerts that follow it."""

    info: ExposureInfo
    sources: Records
    objects: Records
    forced: Records
    alerts: tuple[Alert, ...]
    region: SkyCircle
