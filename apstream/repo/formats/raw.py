"""Raw frames: a file and a camera description make a `RawExposure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astropy.io import fits

from apstream.cameras import Camera, HduChoice
from apstream.errors import BadFile
from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.repo.formats.hdus import float_image, open_fits

__all__ = ["read_raw", "read_raw_info"]


def read_raw(path: Path | str, camera: Camera, *, detector: int | None = None) -> RawExposure:
    """Read the raw frame of one detector.

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
    return RawExposure(
        pixels=pixels,
        detector=camera.detector(header, str(path)),
        info=camera.exposure_info(header, str(path)),
        wcs=camera.initial_wcs(header),
        header=header,
    )


def read_raw_info(path: Path | str, camera: Camera, *, detector: int | None = None) -> ExposureInfo:
    """Read only what the header says of a raw frame; errors as `read_raw`."""
    with open_fits(path) as hdus:
        _, header = _select(hdus, camera, detector, path)
    return camera.exposure_info(header, str(path))


def _select(
    hdus: fits.HDUList, camera: Camera, detector: int | None, path: Path | str
) -> tuple[Any, dict[str, Any]]:
    choice = camera.select_hdu(detector) if detector is not None else HduChoice()
    try:
        hdu = _choose(hdus, choice)
    except (KeyError, IndexError, StopIteration):
        raise BadFile(
            f"no image of detector {detector} in the file", where=str(path), remedy="check the camera file"
        ) from None
    header = {k: v for k, v in hdus[0].header.items() if k and k not in ("COMMENT", "HISTORY")}
    header.update({k: v for k, v in hdu.header.items() if k and k not in ("COMMENT", "HISTORY")})
    return hdu, header


def _choose(hdus: fits.HDUList, choice: HduChoice) -> Any:
    if choice.name is not None:
        return hdus[choice.name]
    if choice.index is not None:
        return hdus[choice.index]
    return next(h for h in hdus if h.is_image and h.header.get("NAXIS") == 2)
