"""Raw frames: a file and a camera description make a `RawExposure`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.cameras import Camera, HduChoice
from apstream.cameras.suggest import suggesting_cameras
from apstream.errors import BadFile, BadHeader, UnknownEvent
from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.repo.formats.companions import images_of, read_companions
from apstream.repo.formats.hdus import float_image, open_fits

__all__ = ["PixelLayout", "list_detectors", "pixel_layout", "read_raw", "read_raw_info"]


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """Where the pixels of an image lie in its file: rows of `dtype` from `offset` on; value = zero + scale * pixel."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    scale: float
    zero: float


def read_raw(path: Path | str, camera: Camera, *, detector: int | None = None) -> RawExposure:
    """Read the raw frame of one detector, with its mask and variance where the camera says where they are.

    Parameters
    ----------
    path
        FITS file, compressed or not.
    camera
        Whose description says where everything is.
    detector
        Which detector, for files that hold several.

    Raises
    ------
    FileMissing, BadFile, BadHeader, WrongSize, UnknownEvent
        As their names say; each names the file.
    """
    with open_fits(path) as hdus:
        hdu, header = _select(hdus, camera, detector, path)
        pixels = float_image(hdu)
        variance, mask = read_companions(hdus, hdu, header, camera, path=path)
    with suggesting_cameras(camera, header, str(path)):
        chip, info = camera.detector(header, str(path)), camera.exposure_info(header, str(path))
    return RawExposure(
        pixels=pixels,
        detector=chip,
        info=info,
        wcs=camera.initial_wcs(header),
        header=header,
        variance=variance,
        mask=mask,
    )


def read_raw_info(path: Path | str, camera: Camera, *, detector: int | None = None) -> ExposureInfo:
    """Read only what the header says of a raw frame; errors as `read_raw`."""
    with open_fits(path) as hdus:
        _, header = _select(hdus, camera, detector, path)
    with suggesting_cameras(camera, header, str(path)):
        return camera.exposure_info(header, str(path))


def pixel_layout(path: Path | str, camera: Camera, *, detector: int | None = None) -> PixelLayout | None:
    """Return where the pixels of a raw frame lie, None if they are compressed or have blanks; errors as `read_raw`."""
    with open_fits(path) as hdus:
        hdu, _ = _select(hdus, camera, detector, path)
        header = hdu.header
        if _is_compressed(path) or isinstance(hdu, fits.CompImageHDU) or "BLANK" in header:
            return None
        return PixelLayout(
            offset=int(hdu.fileinfo()["datLoc"]),
            dtype=np.dtype(f">{'f' if header['BITPIX'] < 0 else 'i' if header['BITPIX'] > 8 else 'u'}"
                           f"{abs(header['BITPIX']) // 8}"),
            shape=(int(header["NAXIS2"]), int(header["NAXIS1"])),
            scale=float(header.get("BSCALE", 1)),
            zero=float(header.get("BZERO", 0)),
        )


def _is_compressed(path: Path | str) -> bool:
    with open(path, "rb") as file:
        return file.read(6) != b"SIMPLE"


def list_detectors(path: Path | str, camera: Camera) -> list[ExposureInfo]:
    """Return what the headers say of every detector in a raw file, by detector number; pixels are not read.

    Extensions that are none of the camera's detectors (guiders, focus chips) are left out. A file with one image has
    one entry, whatever its extension is called.

    Raises
    ------
    FileMissing, BadFile, BadHeader, UnknownEvent
        As their names say; UnknownEvent where all images are of detectors that the camera does not have.
    """
    with open_fits(path) as hdus:
        images = images_of(hdus)
        headers = [_header(hdus, hdu) for hdu in images if len(images) == 1 or _is_detector(hdus, hdu, camera)]
    if camera.detectors.hdu.name is None or not headers:
        return [read_raw_info(path, camera)]
    infos = [camera.exposure_info(header, str(path)) for header in headers]
    return sorted(infos, key=lambda info: info.id.detector)


def _is_detector(hdus: fits.HDUList, hdu: Any, camera: Camera) -> bool:
    """Return whether an extension is where the camera has the detector that its header names."""
    try:
        number = camera.detector_number(_header(hdus, hdu))
    except (BadHeader, UnknownEvent):
        return False
    return bool(camera.select_hdu(number).name == hdu.name)


def _select(
    hdus: fits.HDUList, camera: Camera, detector: int | None, path: Path | str
) -> tuple[Any, dict[str, Any]]:
    choice = camera.select_hdu(detector) if detector is not None else HduChoice()
    try:
        hdu = _choose(hdus, choice)
    except (KeyError, IndexError, StopIteration):
        hdu = _only_image(hdus, camera, detector)
    if hdu is None and detector is None:
        remedy = "give tables of a reference catalogue as files with --refcat main; else check the camera file"
        raise BadFile("no image in the file", where=str(path), remedy=remedy)
    if hdu is None:
        raise BadFile(
            f"no image of detector {detector} in the file", where=str(path), remedy="check the camera file"
        )
    return hdu, _header(hdus, hdu)


def _only_image(hdus: fits.HDUList, camera: Camera, detector: int | None) -> Any:
    """Return the image of a file that holds one, if it is of `detector`: a CCD taken out of its mosaic."""
    images = images_of(hdus)
    if len(images) != 1 or camera.detector_number(_header(hdus, images[0])) != detector:
        return None
    return images[0]


def _header(hdus: fits.HDUList, hdu: Any) -> dict[str, Any]:
    """Return the cards of the file and, before them, those of one HDU."""
    header = {k: v for k, v in hdus[0].header.items() if k and k not in ("COMMENT", "HISTORY")}
    header.update({k: v for k, v in hdu.header.items() if k and k not in ("COMMENT", "HISTORY")})
    return header


def _choose(hdus: fits.HDUList, choice: HduChoice) -> Any:
    if choice.name is not None:
        return hdus[choice.name]
    if choice.index is not None:
        return hdus[choice.index]
    return next(iter(images_of(hdus)))
