"""Warping: resampling a masked image onto another pixel grid."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.lanczos import bilinear_table, lanczos3_table
from apstream.arrays.types import F64, FloatArray
from apstream.arrays.warp import PixelMap, map_grid, resample
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.wcs import SkyWcs

__all__ = ["PixelMap", "WarpConfig", "warp", "wcs_map"]


class WarpConfig(BaseModel):
    """How images are resampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: Literal["lanczos3", "bilinear"] = Field("lanczos3", description="Interpolation kernel.")


def warp(image: MaskedImage, pixel_map: PixelMap, target: Box, config: WarpConfig) -> MaskedImage:
    """Resample `image` onto `target`.

    Parameters
    ----------
    image
        The source. Pixels that are NaN or NO_DATA are left out.
    pixel_map
        Callable that takes (y, x) on the target grid to (y, x) on the source grid, both absolute.
    target
        Where the result lies.

    Returns
    -------
    MaskedImage
        Flux per pixel, scaled by the local area ratio so that the flux of a star is conserved. NaN with
        NO_DATA where the source does not reach; EDGE where a few pixels under the kernel were missing. The
        variance is that of the source scaled by the area ratio squared: right for anything as wide as a star,
        larger than the scatter of single pixels, whose noise the kernel correlates.
    """
    grid = map_grid(pixel_map, target.shape, (target.y0, target.x0), (image.box.y0, image.box.x0))
    table = lanczos3_table() if config.kernel == "lanczos3" else bilinear_table()
    bits = (int(MaskPlane.NO_DATA), int(MaskPlane.EDGE))
    planes = resample(image.image, image.mask, image.variance, grid, shape=target.shape, table=table, bits=bits)
    return MaskedImage.make(*planes, image.unit, target)


def wcs_map(target: SkyWcs, source: SkyWcs) -> PixelMap:
    """Return the map of target to source pixels through the sky; NaN where a position does not project."""

    def through_sky(y: FloatArray, x: FloatArray) -> tuple[F64, F64]:
        sy, sx = source.sky_to_pixel(*target.pixel_to_sky(y, x))
        return np.asarray(sy), np.asarray(sx)

    return through_sky
