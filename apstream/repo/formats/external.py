"""Plain FITS images from anywhere: SCI/VAR/ERR/MASK/DQ extensions are used when they are there, or files beside."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.card import Undefined
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.types import F32, BoolArray
from apstream.errors import BadFile, BadHeader, WrongSize
from apstream.model.exposures import ExposureInfo
from apstream.model.external import ExternalImage
from apstream.model.filters import band_of
from apstream.model.ids import VisitDetector
from apstream.model.mask import MaskPlane
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.hdus import float_image, int_image, open_fits
from apstream.repo.formats.sdss import sdss_image, sdss_middle

__all__ = ["ExternalOptions", "read_external"]

_GAIN = ("GAIN", "EGAIN", "CCDGAIN", "GAINA", "GAIN1", "AVGAIN")
_READ_NOISE = ("RDNOISE", "READNOIS", "RON", "RDNOISEA", "READNOISE", "ENOISE", "RDNOISE1")
_SATURATION = ("SATURATE", "SATURATA", "SATLEVEL", "MAXLIN", "SATURAT", "NONLIN")
_SCI, _VAR, _ERR, _MASK = ("SCI", "IMAGE"), ("VAR", "VARIANCE"), ("ERR", "ERROR", "SIGMA"), ("MASK", "DQ", "FLAGS")
_ELECTRONS = re.compile(r"^\s*(e(-|lectrons?)?|photo-?electrons?)\s*$", re.IGNORECASE)
_COUNTS = re.compile(r"^\s*(adus?|counts?|cts?|dn|du|data ?(numbers?|values?|units?)|unknown|none|)\s*$", re.IGNORECASE)
_PER_PIXEL = re.compile(r"\s*(/|per)?\s*pix(els?)?(\^?-1|\*\*-1)?\s*$", re.IGNORECASE)
_EXPOSURE = ("EXPTIME", "EXPOSURE", "ITIME")


class ExternalOptions(BaseModel):
    """What a user may say of an image that its header does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Electrons per count; default: GAIN, EGAIN, ... of the header"
    )
    read_noise: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Electrons; default: RDNOISE, READNOIS, ... or zero"
    )
    saturation: float | None = Field(None, gt=0, description="Counts; default: SATURATE, ... or a plateau at the top")
    bad_bits: int | None = Field(None, description="Mask bits that mean bad; default: every nonzero value")
    hdu: int | str | None = Field(None, description="Extension of the image; default: SCI, IMAGE or the first image")
    variance_file: Path | None = Field(None, description="FITS image of the variance, in the square of the counts")
    weight_file: Path | None = Field(None, description="FITS image of 1 / variance; zero: no data")
    mask_file: Path | None = Field(None, description="FITS image of the mask, with bits as for bad_bits")
    band: str = Field("", description="Band; default: that of FILTER of the header, or FILTER itself")


def read_external(path: Path | str, options: ExternalOptions) -> ExternalImage:
    """Read an image reduced elsewhere.

    Raises
    ------
    FileMissing, BadFile
        If there is no readable FITS image.
    BadHeader
        If gain is neither in the header nor given and the file has no variance; so too for a unit that is neither
        counts nor electrons. If exposure time or read noise are impossible.
    WrongSize
        If mask or variance differ in shape from the image.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        image = _image_hdu(hdus, options.hdu, path)
        pixels = float_image(image)
        if pixels.size == 0:
            raise BadFile("the image has no pixels", where=str(path), remedy="give a 2-D image")
        header = fits.Header()
        for card in (card for hdu in dict.fromkeys((hdus[0], image)) for card in hdu.header.cards):
            with suppress(ValueError):  # as values: cards that cannot be parsed cannot be copied
                header.update([(card.keyword, card.value, card.comment)])
        variance = _variance(hdus, pixels.shape, path)
        bad, saturated = _masks(hdus, pixels.shape, options.bad_bits, path)
        sdss = sdss_image(hdus, header, pixels, str(path))
    variance, bad = _given(options, pixels.shape, variance, bad)
    read_noise = 0.0
    _require_possible(header, options, path)
    if sdss is None:
        gain = _gain(header, options, path, needed=variance is None)
    else:
        pixels, variance = sdss.pixels, sdss.variance if variance is None else variance / np.float32(sdss.unit**2)
        gain, read_noise = options.gain or sdss.gain, sdss.read_noise
    return ExternalImage(
        pixels=pixels,
        bad=bad,
        saturated=saturated,
        variance=variance,
        gain=gain,
        read_noise=_number(header, _READ_NOISE, options.read_noise, read_noise),
        saturation=_number(header, _SATURATION, options.saturation, float("inf")),
        info=_info(header, path, options.band),
        wcs=_wcs(header, path),
        path=str(path),
        header=_plain(header),
    )


def _image_hdu(hdus: fits.HDUList, wanted: int | str | None, path: Path) -> Any:
    candidates = [h for h in hdus if h.is_image and h.header.get("NAXIS") == 2]
    if wanted is not None:
        try:
            chosen = hdus[wanted]
        except (KeyError, IndexError):
            chosen = None
        candidates = [chosen] if chosen in candidates else []
    if not candidates:
        remedy = "name the extension with -c image.hdu=N" if len(hdus) > 1 else "give a 2-D image"
        place = "the file" if wanted is None else f"extension {wanted!r}"
        raise BadFile(f"no 2-D image in {place}", where=str(path), remedy=remedy)
    return next((h for h in candidates if h.name in _SCI), candidates[0])


def _wcs(header: fits.Header, path: Path) -> SkyWcs | None:
    try:
        return SkyWcs.from_header(header)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        remedy = "correct its cards, or remove CTYPE1 to match by star patterns"
        raise BadHeader(f"the WCS cannot be used: {reason}", where=str(path), remedy=remedy) from error


def _given(
    options: ExternalOptions, shape: tuple[int, ...], variance: F32 | None, bad: BoolArray
) -> tuple[F32 | None, BoolArray]:
    """Put what stands in files of its own in the place of what the image's file has."""
    if options.variance_file is not None:
        variance = _beside(options.variance_file, shape, float_image)
    elif options.weight_file is not None:
        weight = _beside(options.weight_file, shape, float_image)
        with np.errstate(divide="ignore"):
            variance = np.where(weight > 0, 1 / weight, np.float32(np.nan))
    if options.mask_file is not None:
        mask = _beside(options.mask_file, shape, int_image)
        bad = (mask != 0) if options.bad_bits is None else (mask & options.bad_bits) != 0
    return variance, bad


def _beside(path: Path, shape: tuple[int, ...], read: Callable[[Any], Any]) -> Any:
    with open_fits(path) as hdus:
        pixels = read(_image_hdu(hdus, None, path))
    if pixels.shape != shape:
        raise WrongSize(f"it is {pixels.shape}, the image {shape}", where=str(path), remedy="make them equal")
    return pixels


def _plane(hdus: fits.HDUList, names: Sequence[str], shape: tuple[int, ...], path: Path) -> Any:
    hdu = next((h for h in hdus if h.name in names and h.data is not None), None)
    if hdu is not None and hdu.data.shape != shape:
        raise WrongSize(
            f"extension {hdu.name} is {hdu.data.shape}, the image {shape}", where=str(path), remedy="make them equal"
        )
    return hdu


def _variance(hdus: fits.HDUList, shape: tuple[int, ...], path: Path) -> F32 | None:
    if (hdu := _plane(hdus, _VAR, shape, path)) is not None:
        return float_image(hdu)
    if (hdu := _plane(hdus, _ERR, shape, path)) is not None:
        return np.square(float_image(hdu))
    return None


def _masks(hdus: fits.HDUList, shape: tuple[int, ...], bits: int | None, path: Path) -> tuple[BoolArray, BoolArray]:
    hdu = _plane(hdus, _MASK, shape, path)
    if hdu is None:
        return np.zeros(shape, bool), np.zeros(shape, bool)
    mask = int_image(hdu)
    if "MP_BAD" in hdu.header:  # our own planes say which is which
        ours = MaskPlane.BAD | MaskPlane.NO_DATA | MaskPlane.EDGE | MaskPlane.CR
        return (mask & int(ours)) != 0, (mask & int(MaskPlane.SAT)) != 0
    return (mask != 0) if bits is None else (mask & bits) != 0, np.zeros(shape, bool)


def _gain(header: fits.Header, options: ExternalOptions, path: Path, *, needed: bool) -> float | None:
    unit = _PER_PIXEL.sub("", str(header.get("BUNIT", "")))
    if options.gain is None and _ELECTRONS.match(unit):
        return 1.0
    if options.gain is None and not (_COUNTS.match(unit) or isinstance(header.get("BUNIT"), Undefined)):
        if not needed:
            return None
        raise BadHeader(
            f"BUNIT = {header['BUNIT']!r}: known are adu, count, ct, DN, electron and e-",
            where=str(path),
            remedy="give electrons per unit with -c image.gain=NUMBER, or a variance or weight",
        )
    gain = _number(header, _GAIN, options.gain, 0.0)
    if gain > 0:
        return gain
    if needed:
        if refused := next((key for key in _GAIN if _said(header, key)), None):
            raise BadHeader(
                f"{refused} = {header[refused]!r} is no gain",
                where=str(path),
                remedy="correct it, or give it with -c image.gain=ELECTRONS_PER_COUNT",
            )
        raise BadHeader(
            f"no gain: none of {', '.join(_GAIN)} in the header and no VAR extension",
            where=str(path),
            remedy="give it with -c image.gain=ELECTRONS_PER_COUNT",
        )
    return None


def _said(header: fits.Header, key: str) -> bool:
    return key in header and not isinstance(header[key], Undefined) and str(header[key]).strip() != ""


def _require_possible(header: fits.Header, options: ExternalOptions, path: Path) -> None:
    """Refuse an exposure time that is negative or no number, and a negative read noise."""
    exposure = next((key for key in _EXPOSURE if _said(header, key)), None)
    if exposure and not _float(header[exposure]) >= 0:
        raise BadHeader(
            f"{exposure} = {header[exposure]!r} is no exposure time",
            where=str(path),
            remedy="write seconds there, or remove the card",
        )
    noise = next((key for key in _READ_NOISE if _said(header, key)), None)
    if noise and options.read_noise is None and _float(header[noise]) < 0:
        raise BadHeader(
            f"{noise} = {header[noise]!r} is no read noise",
            where=str(path),
            remedy="correct it, or give it with -c image.read_noise=ELECTRONS",
        )


def _float(value: Any) -> float:
    """Return a value as a number, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _number(header: fits.Header, keys: Sequence[str], given: float | None, default: float) -> float:
    if given is not None:
        return given
    for key in keys:
        try:
            value = float(header[key])
        except (KeyError, TypeError, ValueError):
            continue
        if np.isfinite(value) and value > 0:
            return value
    return default


def _info(header: fits.Header, path: Path, band: str) -> ExposureInfo:
    filter_name = str(header.get("FILTER", header.get("FILTER1", ""))).strip()
    return ExposureInfo(
        id=VisitDetector(str(header.get("INSTRUME", "unknown")).strip(), 0, 0),
        band=band or band_of(filter_name),
        physical_filter=filter_name,
        mid_mjd_tai=_middle(header),
        exposure_s=_number(header, _EXPOSURE, None, float("nan")),
        object_name=str(header.get("OBJECT", "")),
        origin=str(path),
    )


def _middle(header: fits.Header) -> float:
    """Return the middle of the exposure in MJD TAI; NaN if the header does not tell."""
    from astropy.time import Time

    if isinstance(header.get("MIDMJD"), float):
        return float(header["MIDMJD"])
    exposure = _number(header, ("EXPTIME", "EXPOSURE"), None, 0.0)
    if (drift := sdss_middle(header, exposure)) is not None:
        return drift
    half = exposure / 2 / 86400
    for key, form in (("MJD-OBS", "mjd"), ("DATE-OBS", "fits")):
        try:
            return float(Time(header[key], format=form, scale="utc").tai.mjd) + half
        except (KeyError, ValueError, TypeError):
            continue
    return float("nan")


def _plain(header: fits.Header) -> dict[str, Any]:
    return {key: value for key, value in header.items() if key and key not in ("COMMENT", "HISTORY")}
