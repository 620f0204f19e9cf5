"""Sky pixels: where a row lies, what a region covers, what a unit of work locks.

HEALPix in nested order, so that neighbours on the sky are neighbours in the index and a region is a few
ranges. Measured with hpgeom.
"""

from __future__ import annotations

import hpgeom
import numpy as np
from numpy.typing import NDArray

from apstream.arrays.types import FloatArray
from apstream.model.products import SkyCircle

__all__ = ["PIXELIZATION", "lock_pixels", "pixel_ids", "pixel_ranges"]

_NSIDE = 1 << 16  # 3.2 arcsec
_LOCK_NSIDE = 1 << 7  # 27 arcmin: a detector locks a few pixels, a wide camera some hundred
_LOCK_MARGIN_DEG = 10 / 3600  # more than any gate: two units that could share an object share a pixel
_MAX_RANGES = 24

#: Stored in the database; another pixelization is another database.
PIXELIZATION = f"healpix-nested-{_NSIDE}"


def pixel_ids(ra: FloatArray, dec: FloatArray) -> NDArray[np.int64]:
    """Return the pixels of positions in degrees."""
    return np.asarray(hpgeom.angle_to_pixel(_NSIDE, np.asarray(ra, float), np.asarray(dec, float)), np.int64)


def pixel_ranges(region: SkyCircle) -> list[tuple[int, int]]:
    """Return the ranges [first, last] of pixels that cover `region`; they may cover somewhat more.

    The covering is made with pixels as fine as give few ranges, since each range costs an index lookup.
    """
    nside = _NSIDE
    while nside > 1 and hpgeom.nside_to_resolution(nside) < region.radius / 8:
        nside //= 2
    while True:
        ranges = hpgeom.query_circle(
            nside, region.ra % 360, region.dec, region.radius, inclusive=True, return_pixel_ranges=True
        )
        if len(ranges) <= _MAX_RANGES or nside == 1:
            break
        nside //= 2
    fine = (_NSIDE // nside) ** 2
    return [(int(low) * fine, int(high) * fine - 1) for low, high in ranges]


def lock_pixels(region: SkyCircle) -> list[int]:
    """Return the coarse pixels that a unit of work on `region` locks, in ascending order."""
    pixels = hpgeom.query_circle(
        _LOCK_NSIDE, region.ra % 360, region.dec, region.radius + _LOCK_MARGIN_DEG, inclusive=True
    )
    return sorted(int(pixel) for pixel in pixels)
