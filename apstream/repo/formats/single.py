"""WCS, PSF and background in files of their own, in our FITS layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from apstream.errors import BadFile
from apstream.model.exposures import Background
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.layout import OurFits, open_ours, write_ours
from apstream.repo.formats.parts import background, psf
from apstream.repo.formats.sheets import background_hdus, psf_hdu

__all__ = ["read_background", "read_psf", "read_wcs", "write_background", "write_psf", "write_wcs"]


def write_wcs(path: Path, value: SkyWcs) -> None:
    """Write a WCS as the header of a FITS file without pixels."""
    _write(path, value, [], cards=value.to_header().cards)


def read_wcs(path: Path) -> SkyWcs:
    """Read a WCS; errors as `open_ours`."""
    with open_ours(path) as file:
        _require(file, SkyWcs)
        wcs = SkyWcs.from_header(file.header)
    if wcs is None:
        raise BadFile("the header has no WCS", where=str(path), remedy="write it again")
    return wcs


def write_psf(path: Path, value: Psf) -> None:
    """Write a PSF."""
    _write(path, value, [psf_hdu(value)])


def read_psf(path: Path) -> Psf:
    """Read a PSF; errors as `open_ours`."""
    with open_ours(path) as file:
        _require(file, Psf)
        return psf(file)


def write_background(path: Path, value: Background) -> None:
    """Write a background mesh."""
    _write(path, value, background_hdus(value))


def read_background(path: Path) -> Background:
    """Read a background mesh; errors as `open_ours`."""
    with open_ours(path) as file:
        _require(file, Background)
        return background(file)


def _write(path: Path, value: Any, hdus: Sequence[Any], *, cards: Sequence[fits.Card] = ()) -> None:
    header = fits.Header([("APSTYPE", type(value).__name__, "what this file holds"), *cards])
    write_ours(path, header, hdus)


def _require(file: OurFits, kind: type[Any]) -> None:
    if (found := file.header.get("APSTYPE")) != kind.__name__:
        message = f"the file holds a {found}, not a {kind.__name__}"
        raise BadFile(message, where=file.where, remedy=f"name a {kind.__name__}")
