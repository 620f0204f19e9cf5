"""Mask bits under sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.types import IntArray, Records

__all__ = ["center_bits", "footprint_bits"]


def center_bits(mask: IntArray, y: IntArray, x: IntArray) -> NDArray[np.int32]:
    """Return the mask bits set in the 3 x 3 pixels around pixel (y, x) of each source, 0 off the image."""
    bits = np.zeros(len(y), np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            v, u = y + dy, x + dx
            inside = (v >= 0) & (u >= 0) & (v < mask.shape[0]) & (u < mask.shape[1])
            bits[inside] |= mask[v[inside], u[inside]].astype(np.int32)
    return bits


def footprint_bits(mask: IntArray, labels: NDArray[np.int32], footprints: Records) -> NDArray[np.int32]:
    """Return the mask bits set anywhere in each footprint (rows of FOOTPRINT_DTYPE)."""
    bits = np.zeros(len(footprints), np.int32)
    _footprint_bits(mask, labels, footprints, bits)
    return bits


@njit(cache=True, nogil=True)
def _footprint_bits(mask, labels, footprints, bits):  # type: ignore[no-untyped-def]
    for n in range(len(footprints)):
        f = footprints[n]
        for y in range(f.y0, f.y1):
            for x in range(f.x0, f.x1):
                if labels[y, x] == f.label:
                    bits[n] |= mask[y, x]
