"""Interpolation of pixels that lie on successive source pixels: kernels of `arrays.warp`."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.lanczos import CENTRE, TAPS
from apstream.arrays.positions import BLOCK, FX, FY, SCALE
from apstream.arrays.types import F32

__all__ = ["Run", "run_end_padded", "run_image", "run_variance"]

#: Pixels on successive source pixels: row and first column there, target row, first pixel of the block, and which
#: pixels of the block.
Run = tuple[int, int, int, int, int, int]
#: Pixels of a run that are dealt with in one go.
_CHUNK = 16
_B, _WX = np.uintp(BLOCK), np.uintp(TAPS * BLOCK)
_FY, _FX, _SCALE = np.uintp(FY * BLOCK), np.uintp(FX * BLOCK), np.uintp(SCALE * BLOCK)


@njit(cache=True, nogil=True)
def run_end_padded(shape: tuple[int, int], where: Run, block: int) -> int:
    """Return the end of a run, later if it fits: whole chunks are fast, and what follows in the block is written later.

    Parameters
    ----------
    shape
        Of the source.
    block
        Pixels of the block that there are.
    """
    start, end = where[4], where[5]
    later = start + -(-(end - start) // _CHUNK) * _CHUNK
    return later if later <= block and where[1] + later - start + TAPS - CENTRE <= shape[1] else end


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def run_image(image: F32, found: F32, where: Run, out: F32) -> None:
    """Interpolate the image of a run with the weights found, in place; many pixels at a time."""
    y, x, row = np.uintp(where[0]), np.uintp(where[1]), np.uintp(where[2])
    begin, start, whole = np.uintp(where[3]), np.uintp(where[4]), where[5] - where[4]
    top, left = y - np.uintp(CENTRE), x - np.uintp(CENTRE)
    for first in range(0, whole - _CHUNK + 1, _CHUNK):
        j, n = start + np.uintp(first), left + np.uintp(first)
        for k in range(_CHUNK):
            _pixel(image, found, (top, n + np.uintp(k)), j + np.uintp(k), (row, begin), out)
    for k in range(whole // _CHUNK * _CHUNK, whole):
        _pixel(image, found, (top, left + np.uintp(k)), start + np.uintp(k), (row, begin), out)


@njit(inline="always", fastmath={"reassoc", "contract"})
def _pixel(image: F32, found: F32, corner: tuple[int, int], j: int, place: tuple[int, int], out: F32) -> None:
    top, x = corner
    u1, u2, u3, u4, u5 = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4), np.uintp(5)
    w0, w1, w2 = found[_WX + j], found[_WX + _B + j], found[_WX + u2 * _B + j]
    w3, w4, w5 = found[_WX + u3 * _B + j], found[_WX + u4 * _B + j], found[_WX + u5 * _B + j]
    total = np.float32(0)
    for k in range(TAPS):
        y = top + np.uintp(k)
        total += found[np.uintp(k) * _B + j] * (
            w0 * image[y, x] + w1 * image[y, x + u1] + w2 * image[y, x + u2]
            + w3 * image[y, x + u3] + w4 * image[y, x + u4] + w5 * image[y, x + u5]
        )  # fmt: skip
    out[place[0], place[1] + j] = found[_SCALE + j] * total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def run_variance(variance: F32, found: F32, where: Run, out: F32) -> None:
    """Interpolate the variance of a run linearly, in place."""
    y, left, row = np.uintp(where[0]), np.uintp(where[1]), np.uintp(where[2])
    begin, start, whole = np.uintp(where[3]), np.uintp(where[4]), where[5] - where[4]
    for first in range(0, whole - _CHUNK + 1, _CHUNK):
        j, x = start + np.uintp(first), left + np.uintp(first)
        for k in range(_CHUNK):
            _pixel_variance(variance, found, (y, x + np.uintp(k)), j + np.uintp(k), (row, begin), out)
    for k in range(whole // _CHUNK * _CHUNK, whole):
        _pixel_variance(variance, found, (y, left + np.uintp(k)), start + np.uintp(k), (row, begin), out)


@njit(inline="always", fastmath={"reassoc", "contract"})
def _pixel_variance(
    variance: F32, found: F32, corner: tuple[int, int], j: int, place: tuple[int, int], out: F32
) -> None:
    y, x = corner
    one = np.uintp(1)
    fy, fx, scale = found[_FY + j], found[_FX + j], found[_SCALE + j]
    upper = variance[y, x] + fx * (variance[y, x + one] - variance[y, x])
    lower = variance[y + one, x] + fx * (variance[y + one, x + one] - variance[y + one, x])
    out[place[0], place[1] + j] = scale * scale * (upper + fy * (lower - upper))
