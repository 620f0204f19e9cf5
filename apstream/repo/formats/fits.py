"""Our FITS files: SCI, MASK, VAR, PSF and STARS extensions with the nouns' attributes in the headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.errors import BadFile
from apstream.model.exposures import (
    STAR_DTYPE,
    CalExp,
    DifferenceImage,
    Exposure,
    ExposureInfo,
    MatchingKernel,
)
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs
from apstream.repo.atomic import atomic_path
from apstream.repo.formats.hdus import float_image, int_image, open_fits

__all__ = ["FORMAT_VERSION", "read_calexp", "read_difference", "read_exposure", "write_image"]

#: Version of the layout; readers refuse a newer one.
FORMAT_VERSION = 1


def write_image(path: Path, value: Exposure | CalExp | DifferenceImage) -> None:
    """Write an exposure, a calexp or a difference image atomically."""
    hdus = [_primary(value), *_planes(value.image, value.wcs)]
    if not isinstance(value, Exposure):
        hdus.append(_psf(value.psf))
    if isinstance(value, CalExp):
        hdus.append(fits.BinTableHDU(value.stars, name="STARS"))
    if isinstance(value, DifferenceImage):
        hdus += _kernel(value)
    with atomic_path(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True, output_verify="silentfix")


def read_exposure(path: Path) -> Exposure:
    """Read a file written by `write_image` from an `Exposure`."""
    with open_fits(path) as hdus:
        header = _checked(hdus, path)
        return Exposure(
            image=_read_planes(hdus), info=_info(header), wcs=_wcs(hdus), metrics=_metrics(header)
        )


def read_calexp(path: Path) -> CalExp:
    """Read a file written by `write_image` from a `CalExp`."""
    with open_fits(path) as hdus:
        header = _checked(hdus, path)
        wcs = _wcs(hdus)
        if wcs is None or "NJYPERU" not in header:
            raise BadFile("the file holds no calexp", where=str(path), remedy="name a calexp")
        return CalExp(
            image=_read_planes(hdus),
            info=_info(header),
            psf=_read_psf(hdus["PSF"]),
            wcs=wcs,
            photo_calib=_photo_calib(header),
            stars=_stars(hdus),
            metrics=_metrics(header),
        )


def read_difference(path: Path) -> DifferenceImage:
    """Read a file written by `write_image` from a `DifferenceImage`."""
    with open_fits(path) as hdus:
        header = _checked(hdus, path)
        return DifferenceImage(
            image=_read_planes(hdus),
            info=_info(header),
            psf=_read_psf(hdus["PSF"]),
            wcs=_wcs(hdus),
            kernel=_read_kernel(hdus),
            matched_template=float_image(hdus["MATCHED"]),
            convolved=header["CONVOLVD"],
            metrics=_metrics(header),
        )


def _primary(value: Exposure | CalExp | DifferenceImage) -> fits.PrimaryHDU:
    info, header = value.info, fits.Header()
    header["APSTYPE"] = (type(value).__name__, "what this file holds")
    header["APSVERS"] = (FORMAT_VERSION, "version of the layout")
    header["INSTRUME"], header["VISIT"], header["DETECTOR"] = info.id.instrument, info.id.visit, info.id.detector
    header["BAND"], header["FILTER"] = info.band, info.physical_filter
    header["MIDMJD"] = (_card(info.mid_mjd_tai), "[d] middle of the exposure, MJD TAI")
    header["EXPTIME"] = (_card(info.exposure_s), "[s]")
    header["RA"], header["DEC"] = (_card(info.ra), "[deg] pointing"), (_card(info.dec), "[deg] pointing")
    header["OBJECT"] = info.object_name.encode("ascii", "replace").decode()
    header["OBSTYPE"] = info.observation_type
    if isinstance(value, CalExp):
        calib = value.photo_calib
        header["NJYPERU"] = (calib.njy_per_unit, "[nJy] of one uncalibrated unit")
        header["NJYERR"], header["NJYSTARS"], header["NJYREL"] = calib.error, calib.n_stars, calib.relative
    if isinstance(value, DifferenceImage):
        header["CONVOLVD"] = (value.convolved, "which image was convolved")
    metrics = {key: _card(number) for key, number in sorted(value.metrics.items())}
    header["APSMETA"] = json.dumps({"origin": info.origin, "object": info.object_name, "metrics": metrics})
    return fits.PrimaryHDU(header=header)


def _card(value: float) -> float | str:
    return float(value) if np.isfinite(value) else "NaN"


def _planes(image: MaskedImage, wcs: SkyWcs | None) -> list[Any]:
    header = fits.Header()
    if wcs is not None:
        header.update(wcs.to_header())
    header["BUNIT"] = image.unit
    for key, value in (("BOXY0", image.box.y0), ("BOXX0", image.box.x0)):
        header[key] = (value, "first pixel of the box")
    if wcs is not None and (image.box.y0 or image.box.x0):
        header["CRPIX1"] -= image.box.x0
        header["CRPIX2"] -= image.box.y0
    names = fits.Header([(f"MP_{p.name}"[:8], int(p), p.name) for p in MaskPlane])
    return [
        fits.ImageHDU(image.image, header=header, name="SCI"),
        fits.ImageHDU(image.mask, header=names, name="MASK"),
        fits.ImageHDU(image.variance, name="VAR"),
    ]


def _psf(psf: Psf) -> Any:
    hdu = fits.ImageHDU(psf.basis.astype(np.float32), name="PSF")
    _box_cards(hdu.header, psf.box)
    return hdu


def _box_cards(header: fits.Header, box: Box) -> None:
    for key, value in zip(("Y0", "X0", "Y1", "X1"), (box.y0, box.x0, box.y1, box.x1), strict=True):
        header[f"BOX{key}"] = value


def _box(header: fits.Header) -> Box:
    return Box(header["BOXY0"], header["BOXX0"], header["BOXY1"], header["BOXX1"])


def _kernel(value: DifferenceImage) -> list[Any]:
    basis = fits.ImageHDU(value.kernel.basis.astype(np.float32), name="KBASIS")
    _box_cards(basis.header, value.kernel.box)
    return [
        basis,
        fits.ImageHDU(value.kernel.coefficients, name="KCOEFF"),
        fits.ImageHDU(np.atleast_1d(value.kernel.background), name="KBACKGR"),
        fits.ImageHDU(np.asarray(value.matched_template, np.float32), name="MATCHED"),
    ]


def _read_kernel(hdus: fits.HDUList) -> MatchingKernel:
    return MatchingKernel(
        basis=np.asarray(hdus["KBASIS"].data, float),
        coefficients=np.asarray(hdus["KCOEFF"].data, float),
        background=np.asarray(hdus["KBACKGR"].data, float),
        box=_box(hdus["KBASIS"].header),
    )


def _checked(hdus: fits.HDUList, path: Path) -> fits.Header:
    header = hdus[0].header
    version = header.get("APSVERS")
    if version is None or "SCI" not in hdus:
        raise BadFile("not a file of ours", where=str(path), remedy="use a file written by apstream")
    if version > FORMAT_VERSION:
        raise BadFile(
            f"layout {version} is newer than {FORMAT_VERSION}", where=str(path), remedy="upgrade apstream"
        )
    return header


def _read_planes(hdus: fits.HDUList) -> MaskedImage:
    sci = hdus["SCI"]
    image = float_image(sci)
    box = Box.from_shape(image.shape, sci.header.get("BOXY0", 0), sci.header.get("BOXX0", 0))
    return MaskedImage(
        image=image,
        mask=int_image(hdus["MASK"]),
        variance=float_image(hdus["VAR"]),
        unit=sci.header["BUNIT"],
        box=box,
    )


def _wcs(hdus: fits.HDUList) -> SkyWcs | None:
    header = hdus["SCI"].header.copy()
    for axis, key in ((1, "BOXX0"), (2, "BOXY0")):
        if f"CRPIX{axis}" in header:
            header[f"CRPIX{axis}"] += header.get(key, 0)
    return SkyWcs.from_header(header)


def _read_psf(hdu: Any) -> Psf:
    return Psf(np.asarray(hdu.data, float), _box(hdu.header))


def _stars(hdus: fits.HDUList) -> Any:
    table = hdus["STARS"].data
    stars = np.zeros(len(table), STAR_DTYPE)
    for name in STAR_DTYPE.names or ():
        stars[name] = table[name]
    return stars


def _photo_calib(header: fits.Header) -> PhotoCalib:
    return PhotoCalib(
        njy_per_unit=header["NJYPERU"],
        error=header["NJYERR"],
        n_stars=header["NJYSTARS"],
        relative=header["NJYREL"],
    )


def _info(header: fits.Header) -> ExposureInfo:
    texts = json.loads(header["APSMETA"])
    return ExposureInfo(
        id=VisitDetector(header["INSTRUME"], header["VISIT"], header["DETECTOR"]),
        band=header["BAND"],
        physical_filter=header["FILTER"],
        mid_mjd_tai=float(header["MIDMJD"]),
        exposure_s=float(header["EXPTIME"]),
        ra=float(header["RA"]),
        dec=float(header["DEC"]),
        object_name=texts["object"],
        observation_type=header["OBSTYPE"],
        origin=texts["origin"],
    )


def _metrics(header: fits.Header) -> dict[str, float]:
    return {k: float(v) for k, v in json.loads(header["APSMETA"])["metrics"].items()}
