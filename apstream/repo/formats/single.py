"""WCS, PSF, background and mask in files of their own, in our FITS layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

from apstream.arrays.types import IntArray
from apstream.errors import BadFile, WrongSize
from apstream.model.exposures import Background
from apstream.model.geometry import Box
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.hdus import open_fits
from apstream.repo.formats.layout import OurFits, open_ours, write_ours
from apstream.repo.formats.parts import background, psf
from apstream.repo.formats.sheets import background_hdus, mask_hdu, psf_hdu

__all__ = [
    "read_any_psf",
    "read_background",
    "read_mask",
    "read_mask_box",
    "read_psf",
    "read_wcs",
    "write_background",
    "write_mask",
    "write_psf",
    "write_wcs",
]

_MASK = "Mask"


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


def read_any_psf(path: Path, box: Box) -> Psf:
    """Read the PSF of one of our files, or the first image of any FITS file as a PSF that holds everywhere in `box`.

    Raises
    ------
    BadFile
        If it is neither, or the image cannot be a PSF: sides that are even, values not finite, a sum not positive.
    """
    with open_fits(path) as hdus:
        ours = "APSTYPE" in hdus[0].header
        image = next((hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None), None)
        kernel = None if ours or image is None else np.array(image, np.float64)
    if ours:
        with open_ours(path) as file:
            return psf(file)
    if kernel is None or kernel.ndim != 2 or not kernel.sum() > 0:
        raise BadFile("no image of a PSF", where=str(path), remedy="name a FITS image of the PSF, sides odd")
    try:
        return Psf((kernel / kernel.sum())[None], box)
    except ValueError as error:
        raise BadFile(str(error), where=str(path), remedy="cut it so that the star is on the middle pixel") from error


def write_background(path: Path, value: Background) -> None:
    """Write a background mesh."""
    _write(path, value, background_hdus(value))


def read_background(path: Path) -> Background:
    """Read a background mesh; errors as `open_ours`."""
    with open_ours(path) as file:
        _require(file, Background)
        return background(file)


def write_mask(path: Path, value: IntArray) -> None:
    """Write the mask of an image; TypeError for what is not a 2-D array of int32."""
    if value.ndim != 2 or value.dtype != np.int32:
        raise TypeError(f"a mask is 2-D int32, not {value.ndim}-D {value.dtype}: convert it first")
    write_ours(path, fits.Header([("APSTYPE", _MASK, "what this file holds")]), [mask_hdu(value)])


def read_mask(path: Path) -> IntArray:
    """Read a mask; errors as `open_ours`."""
    return _mask(path, None)


def read_mask_box(source: BinaryIO, box: Box) -> IntArray:
    """Read the rows of `box` from an open file and return the box; WrongSize if it reaches outside the mask."""
    return _mask(source, box)


def _mask(source: Path | BinaryIO, box: Box | None) -> IntArray:
    with open_ours(source) as file:
        _require(file, _MASK)
        if box is None:
            return np.asarray(file.array("MASK"))
        header = file.hdu("MASK").header
        whole = Box.from_shape((header["NAXIS2"], header["NAXIS1"]))
        if box.intersect(whole) != box:
            raise WrongSize(f"{box} is not inside {whole}", where=file.where, remedy="ask for a box inside the mask")
        return np.ascontiguousarray(file.array("MASK", (box.y0, box.y1))[:, box.x0 : box.x1])


def _write(path: Path, value: Any, hdus: Sequence[Any], *, cards: Sequence[fits.Card] = ()) -> None:
    header = fits.Header([("APSTYPE", type(value).__name__, "what this file holds"), *cards])
    write_ours(path, header, hdus)


def _require(file: OurFits, kind: type[Any] | str) -> None:
    name = kind if isinstance(kind, str) else kind.__name__
    if (found := file.header.get("APSTYPE")) != name:
        raise BadFile(f"the file holds a {found}, not a {name}", where=file.where, remedy=f"name a {name}")
