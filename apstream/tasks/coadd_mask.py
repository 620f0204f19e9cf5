"""The mask of a coadd: what the pixels used say, and what happened to the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.neighbours import just_beyond, true_near
from apstream.arrays.running_mean import FoundMean, usable
from apstream.arrays.types import F32, BoolArray
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane

__all__ = ["coadd_mask", "ends_of", "mark_edges"]


def coadd_mask(found: FoundMean) -> NDArray[np.int32]:
    """Return the union of the planes of the pixels used, and of what happened to the others.

    EDGE of an input becomes SENSOR_EDGE, clipping CLIPPED, any other reason REJECTED; with each of these, and
    where an input ends, the PSF is inexact. SAT stands where more than the asked fraction is saturated.
    """
    inexact = int(MaskPlane.INEXACT_PSF)
    out = found.mask & ~int(MaskPlane.EDGE | MaskPlane.SAT)
    for where, bits in (
        (found.clipped, int(MaskPlane.CLIPPED) | inexact),
        (found.rejected, int(MaskPlane.REJECTED) | inexact),
        (found.edge, int(MaskPlane.SENSOR_EDGE) | inexact),
        (found.end, inexact),
        (found.saturated, int(MaskPlane.SAT)),
    ):
        if where.any():
            out |= where * np.int32(bits)
    return np.where(found.count > 0, out, np.int32(MaskPlane.NO_DATA))


def ends_of(part: MaskedImage, inner: tuple[slice, slice], reach: int) -> BoolArray | None:
    """Return the pixels of `inner` just beyond the end of an input; None if it covers the whole part."""
    valid = usable(part.image, part.image, part.mask, int(MaskPlane.NO_DATA))
    if valid.all() or not valid.any():
        return None
    return just_beyond(valid, reach)[inner]


def mark_edges(mask: NDArray[np.int32], weight: F32) -> None:
    """Set EDGE, in place, on pixels next to one without weight."""
    empty = ~(weight > 0)
    if empty.any() and not empty.all():
        rim = true_near(empty, 1) & ~empty
        mask[rim] |= np.int32(MaskPlane.EDGE)
