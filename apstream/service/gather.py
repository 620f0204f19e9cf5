"""Gather: everything one raw frame needs is read here, in the child process, before any computing."""

from __future__ import annotations

from typing import Any

import numpy as np

from apstream.errors import DatasetNotFound, naming
from apstream.model.calibs import IsrCalibs, defect_map
from apstream.model.exposures import CalExp, RawExposure
from apstream.model.products import KnownObjects, SkyCircle
from apstream.model.refcat import RefCat, References
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import PixelInputs
from apstream.repo.entries import Entry
from apstream.repo.repository import Repository
from apstream.service.calib_files import require_usable
from apstream.service.footprint import Footprint, template_entries, template_name
from apstream.service.references import read_references
from apstream.tasks.calibrate import CalibrateConfig
from apstream.tasks.template import TemplateInput

__all__ = ["footprint_of", "gather_calibs", "gather_inputs", "gather_reference", "refcat_locations"]

#: Degrees by which a header's pointing may be wrong.
_POINTING_MARGIN = 0.02
#: Degrees around a frame from which reference stars are read: motions, and pointings worse than that.
_REFERENCE_MARGIN = 0.1


def gather_inputs(
    repository: Repository,
    raw: RawExposure,
    known: KnownObjects,
    *,
    templates: Repository,
    config: PixelConfig,
    template_id: dict[str, int] | None = None,
) -> PixelInputs:
    """Read calibrations, reference and templates of a raw frame.

    Parameters
    ----------
    repository
        Where calibrations and the catalogue are.
    templates
        Where coadds or calexps are.
    config
        Says what ISR applies, and names the reference catalogues.
    template_id
        Data id of calexps to use as template instead of coadds.

    Raises
    ------
    NoTemplateOverlap
        If no template covers the pointing.
    """
    found = _templates(templates, raw, template_id)
    reference = gather_reference(repository, raw, config.calibrate)
    return PixelInputs(
        calibs=gather_calibs(repository, raw, config),
        reference=reference if reference is not None else found[0][1],
        templates=[TemplateInput.from_image(image, name) for name, image in found],
        known=known,
    )


def gather_calibs(repository: Repository, raw: RawExposure, config: PixelConfig) -> IsrCalibs:
    """Read the calibrations valid at the time of a frame; those that the repository never had are None.

    So are those that the settings switch off, unless a function of the camera's own takes the place of ISR.

    Raises
    ------
    BadValidity
        If there are some, but none (or several) for that time.
    WrongSize, BadFile
        If one does not fit the frame or is no such calibration; names both files.
    """
    info, isr, own = raw.info, config.isr, "isr" in config.replace
    at: dict[str, Any] = {"detector": info.id.detector, "mjd": info.mid_mjd_tai}
    places: dict[str, str] = {}

    def read(dataset_type: str, wanted: bool, **band: str) -> Any:
        entry = repository.entry(dataset_type, **at, **band) if wanted or own else None
        if entry is None:
            return None
        places[dataset_type] = repository.location(entry)
        return repository.get_entry(entry)

    band = info.band if repository.entry("flat", band=info.band, **at) else "any"
    defects, kernel = read("defects", True), read("bfKernel", isr.brighter_fatter is not None)
    with naming(f"{info.origin} with {places.get('defects')}"):
        bad = None if defects is None else defect_map(defects, raw.detector.shape)
    calibs = IsrCalibs(
        bias=read("bias", isr.bias),
        dark=read("dark", isr.dark),
        flat=read("flat", isr.flat, band=band),
        defects=bad,
        crosstalk=read("crosstalk", isr.crosstalk),
        linearity=read("linearity", isr.linearity),
        fringe=read("fringe", isr.fringe is not None and info.band in isr.fringe.bands, band=info.band),
        brighter_fatter=None if kernel is None else np.asarray(kernel, np.float64),
        transfer=read("ptc", isr.transfer),
    )
    if not own:
        require_usable(calibs, raw.detector, info.origin, places)
    return calibs


def gather_reference(
    repository: Repository, raw: RawExposure, config: CalibrateConfig | None = None
) -> RefCat | References | None:
    """Read the part of the reference catalogues near a raw frame.

    Parameters
    ----------
    config
        Names the catalogues; None: ``main`` alone.

    Returns
    -------
    RefCat, References or None
        One catalogue, or two where positions and magnitudes have their own; None if the repository has no ``main``
        and no other is named.

    Raises
    ------
    DatasetNotFound
        If a catalogue that the settings name is not there.
    """
    config = config or CalibrateConfig()
    locations = refcat_locations(repository, config)
    if not locations:
        return None
    region = _region(raw)
    if region is not None:
        region = SkyCircle(region.ra, region.dec, region.radius + _REFERENCE_MARGIN)
    return read_references(locations[0], locations[1] if locations[1:] else None, raw.info, config, region=region)


def refcat_locations(repository: Repository, config: CalibrateConfig) -> list[str]:
    """Return where the catalogues lie that the settings name: one, or that of positions and that of magnitudes.

    None at all where only ``main`` is wanted and the repository has none.

    Raises
    ------
    DatasetNotFound
        If one that the settings name is not there.
    """
    names = [config.astrometry_refcat]
    if config.photometry_refcat not in (None, config.astrometry_refcat):
        names.append(str(config.photometry_refcat))
    found = [repository.entry("refcat", name=name) for name in names]
    if names == ["main"] and found == [None]:
        return []
    return [_located(repository, entry, name) for entry, name in zip(found, names, strict=True)]


def _located(repository: Repository, entry: Entry | None, name: str) -> str:
    if entry is None:
        raise DatasetNotFound(
            f"no location for refcat with name={name}",
            where=repository.root,
            remedy="apstream repo ingest it with --refcat NAME, or change calibrate.astrometry_refcat or "
            "calibrate.photometry_refcat",
        )
    repository.note(entry)
    return repository.location(entry)


def _templates(
    repository: Repository, raw: RawExposure, template_id: dict[str, int] | None
) -> list[tuple[str, CalExp]]:
    where = footprint_of(raw)
    with naming(raw.info.origin):
        entries = template_entries(repository, where, raw.info.band, template_id, whom=str(raw.info.id))
    return [(template_name(entry), repository.get_entry(entry)) for entry in entries]


def footprint_of(raw: RawExposure) -> Footprint:
    """Return where a raw frame is, as its header says, give or take."""
    if raw.wcs is not None:
        return Footprint.of(raw.wcs, raw.detector.box, _POINTING_MARGIN)
    return Footprint(wcs=None, box=raw.detector.box, region=_region(raw))


def _region(raw: RawExposure) -> SkyCircle | None:
    if raw.wcs is not None:
        ra, dec, radius = raw.wcs.circle(raw.detector.box)
        return SkyCircle(ra, dec, radius + _POINTING_MARGIN)
    if not np.isfinite(raw.info.ra):
        return None
    ny, nx = raw.detector.shape
    radius = np.hypot(ny, nx) / 2 * raw.detector.pixel_scale_arcsec / 3600
    return SkyCircle(raw.info.ra, raw.info.dec, radius + _POINTING_MARGIN)
