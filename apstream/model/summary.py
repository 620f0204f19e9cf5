"""What a calibrated exposure says without its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from apstream.model.exposures import CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf, PsfPart
from apstream.model.wcs import SkyWcs

__all__ = ["CalExpSummary"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CalExpSummary:
    """All of a calibrated exposure but pixels and stars; read from its file in no time."""

    info: ExposureInfo
    psf: Psf
    wcs: SkyWcs
    photo_calib: PhotoCalib
    box: Box
    metrics: dict[str, float] = field(default_factory=dict)
    psf_parts: tuple[PsfPart, ...] = ()

    @classmethod
    def of(cls, calexp: CalExp) -> CalExpSummary:
        """Take it from an exposure."""
        return cls(
            info=calexp.info,
            psf=calexp.psf,
            wcs=calexp.wcs,
            photo_calib=calexp.photo_calib,
            box=calexp.box,
            metrics=calexp.metrics,
            psf_parts=calexp.psf_parts,
        )
