"""How the parts of an exposure become headers and HDUs; `parts` reads them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.arrays.types import IntArray
from apstream.model.cards import exact_card
from apstream.model.exposures import (
    Background,
    CalExp,
    CharacterizedExposure,
    DifferenceImage,
    Exposure,
    ExposureInfo,
    MatchingKernel,
)
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf, PsfPart
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.documents import plain_values
from apstream.repo.formats.layout import records_hdu

__all__ = ["AnyExposure", "background_hdus", "exposure_hdus", "mask_hdu", "primary_header", "psf_hdu"]

AnyExposure = Exposure | CharacterizedExposure | CalExp | DifferenceImage
_CALIB = {"NJYPERU": "njy_per_unit", "NJYERR": "error", "NJYSTARS": "n_stars", "NJYREL": "relative"}


def primary_header(value: AnyExposure) -> fits.Header:
    """Return the primary header: cards for other software, and all of it exactly as JSON in APSMETA."""
    info, header = value.info, fits.Header()
    header["APSTYPE"] = (type(value).__name__, "what this file holds")
    header["INSTRUME"] = _ascii(info.id.instrument)
    header["VISIT"], header["DETECTOR"] = info.id.visit, info.id.detector
    header["BAND"], header["FILTER"] = _ascii(info.band), _ascii(info.physical_filter)
    header["OBJECT"], header["OBSTYPE"] = _ascii(info.object_name), _ascii(info.observation_type)
    header.extend(_known_cards(info))
    if isinstance(value, Exposure) and value.psf is not None:
        header["APSPSF"] = (True, "a PSF came with the image")
    if isinstance(value, CalExp):
        header.extend(exact_card(key, getattr(value.photo_calib, name)) for key, name in _CALIB.items())
    if isinstance(value, CharacterizedExposure):
        header.append(exact_card("APCORR", value.aperture_correction, "aperture flux over PSF flux"))
    if isinstance(value, DifferenceImage):
        header["CONVOLVD"] = (_ascii(value.convolved), "which image was convolved")
    texts: dict[str, Any] = {"info": asdict(info), "metrics": value.metrics}
    if isinstance(value, CalExp) and value.photo_calib.box is not None:
        calib = asdict(value.photo_calib)
        texts["zero_point_map"] = {key: calib[key] for key in ("spatial_mag", "box")}
    header["APSMETA"] = _json(texts)
    return header


def _known_cards(info: ExposureInfo) -> list[fits.Card]:
    """Return the cards of time and place; what is not known has none."""
    cards = (
        ("MIDMJD", info.mid_mjd_tai, "[d] middle of the exposure, MJD TAI"),
        ("EXPTIME", info.exposure_s, "[s]"),
        ("RA", info.ra, "[deg] pointing"),
        ("DEC", info.dec, "[deg] pointing"),
    )
    return [exact_card(key, value, comment) for key, value, comment in cards if np.isfinite(value)]


def exposure_hdus(value: AnyExposure) -> list[Any]:
    """Return the HDUs after the primary one."""
    hdus = _planes(value.image, value.wcs)
    if value.psf is not None:
        hdus.append(psf_hdu(value.psf))
    if isinstance(value, CalExp | CharacterizedExposure):
        hdus.append(records_hdu("STARS", value.stars))
        if value.measured is not None and value.measured.dtype.names:
            hdus.append(records_hdu("MEASURED", value.measured))
    if isinstance(value, CalExp) and value.psf_parts:
        hdus += _psf_parts(value.psf_parts)
    if isinstance(value, CharacterizedExposure):
        hdus += background_hdus(value.background)
    if isinstance(value, DifferenceImage):
        hdus += _kernel(value.kernel)
        hdus.append(fits.ImageHDU(np.asarray(value.matched_template, np.float32), name="MATCHED"))
    return hdus


def mask_hdu(mask: IntArray) -> Any:
    """Return the HDU of a mask, with the value of every plane."""
    names = fits.Header([(f"MP_{p.name}"[:8], int(p), p.name) for p in MaskPlane])
    return fits.ImageHDU(mask, header=names, name="MASK")


def psf_hdu(psf: Psf) -> Any:
    """Return the HDU of a PSF."""
    return _boxed("PSF", psf.basis, psf.box)


def _psf_parts(parts: Sequence[PsfPart]) -> list[Any]:
    """Return the HDUs of the parts of a PSF: kernels, zeros where one lacks a term; then box, weight, outline."""
    terms, corners = (max(sizes) for sizes in zip(*((len(p.psf.basis), len(p.outline)) for p in parts), strict=True))
    bases = np.zeros((len(parts), terms, *parts[0].psf.shape), np.float32)
    rows = np.empty((len(parts), 5 + 2 * corners))
    for k, (part, box) in enumerate((part, part.psf.box) for part in parts):
        bases[k, : len(part.psf.basis)] = part.psf.basis
        outline = np.pad(part.outline, ((0, corners - len(part.outline)), (0, 0)), mode="edge")
        rows[k] = [box.y0, box.x0, box.y1, box.x1, part.weight, *outline.ravel()]
    return [fits.ImageHDU(bases, name="PSFPARTS"), fits.ImageHDU(rows, name="PSFAREAS")]


def background_hdus(background: Background) -> list[Any]:
    """Return the HDUs of a background mesh."""
    mesh = _boxed("BGMESH", background.mesh, background.box)
    mesh.header["CELL"] = (background.cell, "[pixel] side of a cell")
    return [mesh, fits.ImageHDU(background.rms, name="BGRMS")]


def _planes(image: MaskedImage, wcs: SkyWcs | None) -> list[Any]:
    header = _wcs_cards(wcs, image.box) if wcs is not None else fits.Header()
    header["BUNIT"] = image.unit
    for key, value in (("BOXY0", image.box.y0), ("BOXX0", image.box.x0)):
        header[key] = (value, "first pixel of the box")
    sci = fits.ImageHDU(image.image, name="SCI")
    sci.header.extend(header)
    return [sci, mask_hdu(image.mask), fits.ImageHDU(image.variance, name="VAR")]


def _wcs_cards(wcs: SkyWcs, box: Box) -> fits.Header:
    """Return the WCS counted from the array's first pixel, as other software expects; ours is kept beside it."""
    header = wcs.to_header()
    for axis, origin in ((1, box.x0), (2, box.y0)):
        value = float(header[f"CRPIX{axis}"])
        if origin:
            header[f"APSCRPX{axis}"] = (value, f"CRPIX{axis} in absolute pixels, exactly")
            header[f"CRPIX{axis}"] = value - origin
    return header


def _boxed(name: str, values: Any, box: Box) -> Any:
    hdu = fits.ImageHDU(values, name=name)
    for key, value in zip(("Y0", "X0", "Y1", "X1"), (box.y0, box.x0, box.y1, box.x1), strict=True):
        hdu.header[f"BOX{key}"] = value
    return hdu


def _kernel(kernel: MatchingKernel) -> list[Any]:
    return [
        _boxed("KBASIS", kernel.basis, kernel.box),
        fits.ImageHDU(kernel.coefficients, name="KCOEFF"),
        fits.ImageHDU(np.atleast_1d(kernel.background), name="KBACKGR"),
    ]


def _ascii(text: str) -> str:
    # for other software's eyes; ours is in APSMETA
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _json(value: dict[str, Any]) -> str:
    # quotes and ampersands have a meaning of their own in long FITS strings
    text = json.dumps(_finite(plain_values(value)), sort_keys=True, separators=(",", ":"))
    return text.replace("'", "\\u0027").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    # JSON knows no NaN; readers make floats of text
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
