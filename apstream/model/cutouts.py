"""Stacks of small images around the sources of one detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.types import F32, F64, IntArray

__all__ = ["CutoutStack", "Cutouts"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CutoutStack:
    """The cutouts of all sources from one image.

    Parameters
    ----------
    image : ndarray, shape (n, side, side), float32
        Pixel values in the unit of `Cutouts`; NaN beyond the edge of the image.
    mask : ndarray, shape (n, side, side), int32
        Bits of `MaskPlane`; NO_DATA beyond the edge.
    variance : ndarray, shape (n, side, side), float32
        Variance in the square of the unit; NaN beyond the edge.
    psf : ndarray, shape (n, h, w), float32
        The PSF at each source, summing to one, centred on its middle pixel.

    Raises
    ------
    ValueError
        If the shapes do not agree.
    """

    image: F32
    mask: IntArray
    variance: F32
    psf: F32

    def __post_init__(self) -> None:
        shapes = {self.image.shape, self.mask.shape, self.variance.shape}
        if len(shapes) != 1 or self.image.ndim != 3 or len(self.psf) != len(self.image):
            raise ValueError(
                f"image {self.image.shape}, mask {self.mask.shape}, variance {self.variance.shape} "
                f"must have one 3-D shape and psf {self.psf.shape} as many entries"
            )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cutouts:
    """Science, template and difference around n sources; row i belongs to source i.

    Parameters
    ----------
    corner_y, corner_x : ndarray, shape (n,), int
        Absolute pixel of element [0, 0] of each cutout (may lie outside the image).
    y, x : ndarray, shape (n,)
        Absolute pixel position of the source; the reference point of the local WCS.
    ra, dec : ndarray, shape (n,)
        Sky position of (y, x), ICRS degrees; NaN without a WCS.
    cd : ndarray, shape (n, 2, 2)
        Local linear WCS in FITS order, degrees per pixel: [[CD1_1, CD1_2], [CD2_1, CD2_2]], first axis
        x then y, tangent plane at (ra, dec); NaN without a WCS.
    unit
        Unit of the image stacks, ``nJy``, ``electron`` or ``adu``.

    Raises
    ------
    ValueError
        If the numbers of rows differ.
    """

    science: CutoutStack
    template: CutoutStack
    difference: CutoutStack
    corner_y: NDArray[np.int64]
    corner_x: NDArray[np.int64]
    y: F64
    x: F64
    ra: F64
    dec: F64
    cd: F64
    unit: str

    def __post_init__(self) -> None:
        stacks = (self.science.image, self.template.image, self.difference.image)
        columns = (self.corner_y, self.corner_x, self.y, self.x, self.ra, self.dec, self.cd)
        if len({len(rows) for rows in (*stacks, *columns)}) != 1:
            raise ValueError("stacks and columns of cutouts must have one number of rows")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def side(self) -> int:
        """Side of a cutout in pixels."""
        return int(self.difference.image.shape[1])
