"""Reading the catalogues of positions and of magnitudes that an image is calibrated on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from apstream.model.exposures import CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.products import SkyCircle
from apstream.model.refcat import RefCat, References
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.hats import is_hats
from apstream.tasks.calibrate import CalibrateConfig

__all__ = ["notes_on", "read_references", "region_of", "warn_of"]

#: Degrees that a catalogue's stars may have moved.
_MOTION = 0.1
_log = logging.getLogger(__name__)


def read_references(
    positions: Path | str,
    magnitudes: Path | str | None,
    info: ExposureInfo,
    config: CalibrateConfig,
    *,
    region: SkyCircle | None = None,
    magnitude: str | None = None,
) -> RefCat | References:
    """Read one catalogue, or where `magnitudes` names another for fluxes, both.

    The magnitude is that of the image's band; where `config` has a colour term for its filter, the primary band's,
    with the colour beside it. Where the catalogue has no magnitude of the band, another is used: see `notes_on`.

    Parameters
    ----------
    region
        Of the sky that is wanted; None: all of it.
    magnitude
        Name of the magnitude column, where the band or colour term does not decide.

    Raises
    ------
    BadCatalog
        If a catalogue lacks a band that a colour term names, or as `read_refcat`.
    """
    term = config.photometry.color_term(info)
    color = None if term is None else (term.primary, term.secondary)
    chosen = magnitude if term is None else term.primary
    fluxes = read_refcat(magnitudes or positions, band=info.band, magnitude=chosen, color=color, region=region)
    if magnitudes is None:
        return fluxes
    return References(read_refcat(positions, band=info.band, region=region), fluxes)


def notes_on(reference: RefCat | References | CalExp | None, band: str) -> tuple[str, ...]:
    """Return what a user has to know of the catalogues: which magnitude stands for that of the image's band."""
    fluxes = reference.photometry if isinstance(reference, References) else reference
    if not isinstance(fluxes, RefCat) or not fluxes.substitute:
        return ()
    used = f"{fluxes.substitute} is used instead, and zero points refer to it"
    return (f"{fluxes.origin}: no magnitude of band {band}; {used}",)


@lru_cache
def warn_of(notes: tuple[str, ...]) -> None:
    """Log them, once in a process and not for each of its images."""
    for note in notes:
        _log.warning(note)


def region_of(
    paths: Sequence[Path | str | None], wcs: SkyWcs | None, box: Box, config: CalibrateConfig
) -> SkyCircle | None:
    """Return the sky of which catalogues are read: of tables all, with a HATS one what is near the image."""
    if wcs is None or not any(path is not None and is_hats(path) for path in paths):
        return None
    ra, dec, radius = wcs.circle(box)
    return SkyCircle(ra, dec, radius + config.astrometry.max_offset_arcsec / 3600 + _MOTION)
