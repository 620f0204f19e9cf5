"""The mask of a coadd: what the pixels used say, and what happened to the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.found_mean import FoundMean
from apstream.arrays.neighbours import just_beyond, mark_beside
from apstream.arrays.running_mean import CLIPPED, EDGE, END, REJECTED, SATURATED, there
from apstream.arrays.types import F32, BoolArray
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane

__all__ = ["coadd_mask", "ends_of", "mark_edges"]


def coadd_mask(found: FoundMean, out: NDArray[np.int32]) -> None:
    """Fill `out`, shape (ny, nx), with the planes of the pixels used, and what happened to the others.

    EDGE of an input becomes SENSOR_EDGE, clipping CLIPPED, any other reason REJECTED; with each of these, and
    where an input ends, the PSF is inexact. SAT stands where more than the asked fraction is saturated.
    """
    inexact = int(MaskPlane.INEXACT_PSF)
    bits = {
        CLIPPED: int(MaskPlane.CLIPPED) | inexact,
        REJECTED: int(MaskPlane.REJECTED) | inexact,
        EDGE: int(MaskPlane.SENSOR_EDGE) | inexact,
        END: inexact,
        SATURATED: int(MaskPlane.SAT),
    }
    found.mask_with(bits, int(MaskPlane.EDGE | MaskPlane.SAT), int(MaskPlane.NO_DATA), out)


def ends_of(
    part: MaskedImage, inner: tuple[slice, slice], reach: int, good: BoolArray | None = None
) -> BoolArray | None:
    """Return the pixels of `inner` just beyond the end of an input; None if it covers the whole part.

    `good` pixels, if they are known, have data.
    """
    near = tuple(
        slice(max(0, cut.start - reach), min(side, cut.stop + reach))
        for cut, side in zip(inner, part.image.shape, strict=True)
    )
    known = None if good is None else good[near]
    valid = there(part.image[near], part.mask[near], int(MaskPlane.NO_DATA), known)
    if valid.all() or not valid.any():
        return None
    own = tuple(slice(cut.start - wide.start, cut.stop - wide.start) for cut, wide in zip(inner, near, strict=True))
    return just_beyond(valid, reach)[own]


def mark_edges(mask: NDArray[np.int32], weight: F32) -> None:
    """Set EDGE, in place, on pixels next to one without weight."""
    mark_beside(weight, mask, int(MaskPlane.EDGE))
