"""Companions of a reduced image: find, read and bundle what stands in the files beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from apstream.arrays.types import F32, IntArray
from apstream.cameras import Camera
from apstream.cameras.companions import CompanionSpec, MaskSpec
from apstream.cameras.headers import Header
from apstream.errors import BadFile, FileMissing, WrongSize
from apstream.repo.formats.hdus import open_fits

__all__ = ["bundle_raw", "companion_paths", "images_of", "read_companions"]

_BUNDLED = ("_WEIGHT", "_VARIANCE", "_MASK")


def images_of(hdus: fits.HDUList) -> list[Any]:
    """Return the HDUs with a two-dimensional image, companions bundled with them left out."""
    images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]
    return [hdu for hdu in images if not hdu.name.endswith(_BUNDLED)]


def companion_paths(path: Path | str, camera: Camera) -> dict[str, Path]:
    """Return the companion files there are, by kind (``weight``, ``variance``, ``mask``).

    They are looked for beside `path`, and beside the file it is a link to.
    """
    found = {kind: _beside(Path(path), spec) for kind, spec in camera.companions.items().items()}
    return {kind: place for kind, place in found.items() if place is not None}


def read_companions(
    hdus: fits.HDUList, hdu: Any, header: Header, camera: Camera, *, path: Path | str
) -> tuple[F32 | None, IntArray | None]:
    """Return the variance and the mask planes that belong to one image; None for what there is not.

    Parameters
    ----------
    hdus, hdu, header
        The open file, its image and the header of both.

    Raises
    ------
    FileMissing
        If a companion that the camera requires is not there.
    BadFile, WrongSize
        If it holds no such image, or one of another size.
    """
    variance, mask = None, None
    for kind, spec in camera.companions.items().items():
        plane = _plane(hdus, hdu, kind, spec, path=Path(path))
        if plane is None:
            continue
        if isinstance(spec, MaskSpec):
            mask = spec.decode(np.asarray(plane, np.int32), header)
        else:
            variance = np.asarray(plane, np.float32) if kind == "variance" else _inverse(plane)
    return variance, mask


def bundle_raw(path: Path | str, camera: Camera, target: Path) -> None:
    """Write one file that holds an image file and its companions, for places where files do not stand side by side.

    The companions' extensions are called after the image's: ``N6`` has ``N6_WEIGHT`` and ``N6_MASK``. Of several
    images all are taken. `read_companions` finds them there.

    Raises
    ------
    FileMissing, BadFile, WrongSize
        As `read_companions`.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        copies = [hdu.copy() for hdu in hdus]
        if not isinstance(copies[0], fits.PrimaryHDU):
            copies.insert(0, fits.PrimaryHDU())
        for hdu in images_of(hdus):
            for kind, spec in camera.companions.items().items():
                plane = _plane(hdus, hdu, kind, spec, path=path)
                if plane is not None:
                    copies.append(fits.ImageHDU(np.asarray(plane), name=_name(hdu, kind)))
        fits.HDUList(copies).writeto(target, overwrite=True)


def _beside(path: Path, spec: CompanionSpec) -> Path | None:
    for place in (path, Path(os.path.realpath(path))):
        name = spec.sibling(place.name)
        if name is not None and (place.parent / name).is_file():
            return place.parent / name
    return None


def _name(hdu: Any, kind: str) -> str:
    return f"{hdu.name or 'IMAGE'}_{kind.upper()}"


def _plane(
    hdus: fits.HDUList, hdu: Any, kind: str, spec: CompanionSpec, *, path: Path
) -> np.ndarray[Any, Any] | None:
    """Return the pixels of one companion, out of the same file or the one beside it."""
    if _name(hdu, kind) in hdus:
        plane, where = hdus[_name(hdu, kind)].data, path
    elif (beside := _beside(path, spec)) is not None:
        plane, where = _read_beside(beside, hdu.name), beside
    elif spec.required:
        name = spec.sibling(path.name) or f"a file with {spec.replace[1]} instead of {spec.replace[0]}"
        remedy = f"put {name} beside it, or set `required: false` for the {kind} in the camera file"
        raise FileMissing(f"no {kind} of this image", where=str(path), remedy=remedy)
    else:
        return None
    shape = (hdu.header["NAXIS2"], hdu.header["NAXIS1"])
    if plane.shape != shape:
        raise WrongSize(f"the {kind} is {plane.shape}, the image {shape}", where=str(where), remedy="make them equal")
    return np.asarray(plane)


def _read_beside(path: Path, name: str) -> np.ndarray[Any, Any]:
    with open_fits(path) as hdus:
        images = images_of(hdus)
        chosen = next((h for h in images if name and h.name == name), images[0] if len(images) == 1 else None)
        if chosen is None:
            raise BadFile(f"no image {name or ''} in it", where=str(path), remedy="get the one of the same exposure")
        return np.asarray(chosen.data)


def _inverse(weight: np.ndarray[Any, Any]) -> F32:
    """Return the variance; infinite where the weight is nothing."""
    known = np.isfinite(weight) & (weight > 0)
    return np.asarray(np.divide(1.0, weight, where=known, out=np.full(weight.shape, np.inf)), np.float32)
