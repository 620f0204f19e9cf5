"""Stamps of one image around point positions, ready for the fits of `arrays.photometry`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.photometry import point_fluxes, spline_psfs
from apstream.arrays.stamps import gather_stamps, stamp_corners
from apstream.arrays.types import F32, F64, BoolArray, Records
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.psf import Psf

__all__ = ["UNUSABLE", "PointStamps", "cut_points"]

#: Pixels that no measurement uses.
UNUSABLE = planes("NO_DATA", "BAD", "EDGE")
LEAST_COVERAGE = 0.4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PointStamps:
    """Stamps (n, side, side) whose middle pixels are at absolute (y, x), with PSF splines (n, h, w)."""

    data: F32
    variance: F32
    good: BoolArray
    psfs: F64
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    inside: BoolArray  # (n, side, side): on the image

    def fluxes(self, y: F64, x: F64, *, half: int) -> Records:
        """Return point-source fluxes at absolute positions near the middle pixels."""
        fits = point_fluxes(
            self.data, self.variance, self.good, self.psfs, y=y - self.y, x=x - self.x, half=half
        )
        bad = fits["coverage"] < LEAST_COVERAGE
        fits["flux"][bad] = fits["flux_err"][bad] = np.nan
        return fits

    def touches_edge(self, half: int) -> BoolArray:
        """Tell which stamps leave the image within `half` pixels of the middle."""
        middle = self.data.shape[1] // 2
        part = slice(middle - half, middle + half + 1)
        return ~np.asarray(self.inside[:, part, part].all(axis=(1, 2)))


def cut_points(
    image: MaskedImage,
    psf: Psf,
    y: F64,
    x: F64,
    *,
    side: int,
    labels: NDArray[np.int32] | None = None,
    own: NDArray[np.int32] | None = None,
) -> PointStamps:
    """Cut stamps around absolute positions.

    Parameters
    ----------
    side
        Odd side in pixels.
    labels : ndarray, shape of the image
        Footprint labels; pixels of footprints other than `own` are not good.
    own : ndarray, shape (n,)
        The label of each source.
    """
    corner_y, corner_x = stamp_corners(y, x, side)
    row, column = corner_y - image.box.y0, corner_x - image.box.x0
    data = gather_stamps(image.image, row, column, side=side, fill=np.nan)
    variance = gather_stamps(image.variance, row, column, side=side, fill=np.nan)
    mask = gather_stamps(image.mask, row, column, side=side, fill=-1)
    good = ((mask & UNUSABLE) == 0) & np.isfinite(data) & (variance > 0) & np.isfinite(variance)
    if labels is not None and own is not None:
        near = gather_stamps(labels, row, column, side=side, fill=0)
        good &= (near == 0) | (near == own[:, None, None])
    return PointStamps(
        data=np.where(good, data, np.float32(0)),
        variance=np.where(good, variance, np.float32(1)),
        good=good,
        psfs=spline_psfs(psf.basis, *psf.box.normalize(y, x)),
        y=corner_y + side // 2,
        x=corner_x + side // 2,
        inside=mask != -1,
    )
