"""Gather: everything one raw frame needs is read here, in the child process, before any computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apstream.arrays.types import F32
from apstream.errors import DatasetNotFound, NoTemplateOverlap
from apstream.model.calibs import IsrCalibs
from apstream.model.exposures import CalExp, ExposureInfo, RawExposure
from apstream.model.products import KnownObjects, SkyCircle
from apstream.model.refcat import RefCat
from apstream.pipeline.pixels import PixelInputs
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.fits import read_calexp
from apstream.repo.repository import FileRepository
from apstream.tasks.template import TemplateInput

__all__ = ["gather_calibs", "gather_inputs", "gather_reference"]

#: Degrees by which a header's pointing may be wrong.
_POINTING_MARGIN = 0.02
#: Degrees around a frame from which reference stars are read: motions, and pointings worse than that.
_REFERENCE_MARGIN = 0.1


def gather_inputs(
    repository: FileRepository,
    raw: RawExposure,
    known: KnownObjects,
    *,
    templates: FileRepository,
    template_id: dict[str, int] | None = None,
) -> PixelInputs:
    """Read calibrations, reference and templates of a raw frame.

    Parameters
    ----------
    repository
        Where calibrations and the catalogue are.
    templates
        Where coadds or calexps are.
    template_id
        Data id of calexps to use as template instead of coadds.

    Raises
    ------
    NoTemplateOverlap
        If no template covers the pointing.
    """
    found = _templates(templates, raw, template_id)
    reference = gather_reference(repository, raw)
    return PixelInputs(
        calibs=gather_calibs(repository, raw.info),
        reference=reference if reference is not None else found[0],
        templates=[TemplateInput.from_image(t, _name(t)) for t in found],
        known=known,
    )


def gather_calibs(repository: FileRepository, info: ExposureInfo) -> IsrCalibs:
    """Read the masters of a detector; those that the repository lacks are None."""
    detector, band = info.id.detector, info.band
    flat = repository.locate("flat", detector=detector, band=band)
    defects = _optional(repository, "defects", detector=detector)
    return IsrCalibs(
        bias=_optional(repository, "bias", detector=detector),
        dark=_optional(repository, "dark", detector=detector),
        flat=_optional(repository, "flat", detector=detector, band=band if flat else "any"),
        defects=None if defects is None else defects != 0,
    )


def gather_reference(repository: FileRepository, raw: RawExposure) -> RefCat | None:
    """Read the part of the reference catalogue near a raw frame; None if the repository has none."""
    location = repository.locate("refcat", name="main")
    if location is None:
        return None
    region = _region(raw)
    if region is not None:
        region = SkyCircle(region.ra, region.dec, region.radius + _REFERENCE_MARGIN)
    return read_refcat(location, band=raw.info.band, region=region)


def _optional(repository: FileRepository, dataset_type: str, **data_id: object) -> F32 | None:
    try:
        value: F32 = repository.get(dataset_type, **data_id)
    except DatasetNotFound:
        return None
    return value


def _templates(repository: FileRepository, raw: RawExposure, template_id: dict[str, int] | None) -> Sequence[CalExp]:
    region, kind = _region(raw), "calexp" if template_id else "deepCoadd"
    known: dict[str, Any] = {**template_id} if template_id else {"band": raw.info.band}
    entries = repository.overlapping(kind, region, **known) if region else repository.find(kind, **known)
    if not entries:
        raise NoTemplateOverlap(
            f"no location for {kind} that covers {raw.info.id} band={raw.info.band}",
            where=raw.info.origin,
            remedy="make one with apstream coadd, or name a calexp with --template-id visit=N",
        )
    return [read_calexp(repository.root / entry.path) for entry in entries]


def _region(raw: RawExposure) -> SkyCircle | None:
    if raw.wcs is not None:
        ra, dec, radius = raw.wcs.circle(raw.detector.box)
        return SkyCircle(ra, dec, radius + _POINTING_MARGIN)
    if not np.isfinite(raw.info.ra):
        return None
    ny, nx = raw.detector.shape
    radius = np.hypot(ny, nx) / 2 * raw.detector.pixel_scale_arcsec / 3600
    return SkyCircle(raw.info.ra, raw.info.dec, radius + _POINTING_MARGIN)


def _name(template: CalExp) -> str:
    return str(template.info.id)
