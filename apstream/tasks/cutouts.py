"""Cut science, template and difference out around each source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from apstream.arrays.stamps import gather_stamps, psf_stamps, stamp_corners
from apstream.arrays.types import F64
from apstream.model.cutouts import Cutouts, CutoutStack
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Template
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.model.wcs import SkyWcs

__all__ = ["CutoutsConfig", "cut", "local_cd"]


class CutoutsConfig(BaseModel):
    """How large the cutouts are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_px: int = Field(31, ge=9, le=103, description="Side of the square cutouts in pixels; odd.")

    @field_validator("side_px")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("the side must be odd, so that a source has a middle pixel")
        return value


def cut(
    difference: DifferenceImage,
    science: CalExp | CharacterizedExposure,
    template: Template,
    y: F64,
    x: F64,
    config: CutoutsConfig,
) -> Cutouts:
    """Cut out every source; the template is the matched one, on the grid and scale of the science image.

    Parameters
    ----------
    y, x : ndarray, shape (n,)
        Absolute pixel positions.

    Returns
    -------
    Cutouts
        Rows in the order of the positions; beyond the edge NaN and NO_DATA.
    """
    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    corner_y, corner_x = stamp_corners(y, x, config.side_px)
    corners = (corner_y, corner_x, config.side_px)
    matched = template.image.with_image(difference.matched_template)
    template_psf = science.psf if difference.convolved == "template" else template.psf
    ra, dec = _sky(difference.wcs, y, x)
    return Cutouts(
        science=_stack(science.image, science.psf, y, x, corners),
        template=_stack(matched, template_psf, y, x, corners),
        difference=_stack(difference.image, difference.psf, y, x, corners),
        corner_y=corner_y,
        corner_x=corner_x,
        y=y,
        x=x,
        ra=ra,
        dec=dec,
        cd=local_cd(difference.wcs, y, x),
        unit=difference.image.unit,
    )


def _stack(
    image: MaskedImage,
    psf: Psf,
    y: F64,
    x: F64,
    corners: tuple[NDArray[np.int64], NDArray[np.int64], int],
) -> CutoutStack:
    row, column, side = corners[0] - image.box.y0, corners[1] - image.box.x0, corners[2]
    return CutoutStack(
        image=gather_stamps(image.image, row, column, side=side, fill=np.nan),
        mask=gather_stamps(image.mask, row, column, side=side, fill=int(MaskPlane.NO_DATA)),
        variance=gather_stamps(image.variance, row, column, side=side, fill=np.nan),
        psf=psf_stamps(psf.basis, *psf.box.normalize(y, x)).astype(np.float32),
    )


def _sky(wcs: SkyWcs | None, y: F64, x: F64) -> tuple[F64, F64]:
    if wcs is None or len(y) == 0:
        return np.full(len(y), np.nan), np.full(len(y), np.nan)
    return wcs.pixel_to_sky(y, x)


def local_cd(wcs: SkyWcs | None, y: F64, x: F64) -> F64:
    """Return the local linear WCS at positions.

    Parameters
    ----------
    y, x : ndarray, shape (n,)
        Absolute pixel positions.

    Returns
    -------
    ndarray, shape (n, 2, 2)
        Degrees on the tangent plane (towards east, towards north) per pixel (along x, along y), from
        central differences over one pixel, distortion included; NaN without a WCS.
    """
    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    cd = np.full((len(y), 2, 2), np.nan)
    if wcs is None or len(y) == 0:
        return cd
    _, dec0 = wcs.pixel_to_sky(y, x)
    for axis, (dy, dx) in enumerate(((0.0, 0.5), (0.5, 0.0))):
        ra1, dec1 = wcs.pixel_to_sky(y - dy, x - dx)
        ra2, dec2 = wcs.pixel_to_sky(y + dy, x + dx)
        turn = (ra2 - ra1 + 180) % 360 - 180
        cd[:, 0, axis] = turn * np.cos(np.deg2rad(dec0))
        cd[:, 1, axis] = dec2 - dec1
    return cd
