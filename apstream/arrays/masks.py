"""Masks: grow them, and sort usable pixels from others in one pass."""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.types import F32, BoolArray, IntArray

__all__ = ["count_flags", "dilate", "split_usable", "subtract_sky"]


@njit(cache=True, nogil=True)
def dilate(flags: BoolArray, radius: int) -> BoolArray:
    """Return True within a square of half-side `radius` around the True pixels of `flags`."""
    ny, nx = flags.shape
    out = np.zeros((ny, nx), np.bool_)
    last = np.full(nx, -radius - 1, np.int64)  # last row with a wide True in each column
    wide = np.zeros((2 * radius + 1, nx), np.bool_)
    for r in range(ny + radius):
        line = wide[r % (2 * radius + 1)]
        line[:] = False
        if r < ny:
            done = 0
            for c in range(nx):
                if flags[r, c]:
                    end = min(nx, c + radius + 1)
                    for j in range(max(done, c - radius), end):
                        line[j] = True
                    done = end
            for c in range(nx):
                if line[c]:
                    last[c] = r
        o = r - radius
        if o >= 0:
            for c in range(nx):
                out[o, c] = last[c] >= o - radius
    return out


@njit(cache=True, nogil=True)
def _split(image, variance, mask, bits, no_data, data):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    noise = np.empty((ny, nx), np.float32)
    bad = np.empty((ny, nx), np.bool_)
    flags = np.empty((ny, nx), np.int32)
    for r in range(ny):
        for c in range(nx):
            v, d, m = variance[r, c], image[r, c], mask[r, c]
            finite = np.isfinite(d)
            worse = not (finite and v > 0 and v < np.inf and (m & bits) == 0)
            data[r, c] = d if finite else np.float32(0)
            noise[r, c] = np.float32(np.nan) if worse else v
            bad[r, c] = worse
            flags[r, c] = m if finite else m | no_data
    return noise, bad, flags


def split_usable(
    image: F32, variance: F32, mask: IntArray, *, bits: int, no_data: int
) -> tuple[F32, F32, BoolArray, IntArray]:
    """Sort the pixels that can be used from the others.

    Parameters
    ----------
    image, variance, mask : ndarray, shape (ny, nx)
    bits
        Mask bits that make a pixel unusable.
    no_data
        Bit to set where the image is not finite.

    Returns
    -------
    data : ndarray, float32
        The image, zero where it was not finite.
    variance : ndarray, float32
        NaN where a pixel cannot be used.
    bad : ndarray, bool
        True where the image is not finite, a bit is set, or variance is not positive and finite.
    mask : ndarray, int32
    """
    data = np.empty(image.shape, np.float32)
    noise, bad, flags = _split(image, variance, np.asarray(mask, np.int32), bits, no_data, data)
    return data, noise, bad, flags


@njit(cache=True, nogil=True)
def subtract_sky(data: F32, sky: F32, bad: BoolArray, mask: IntArray, keep: int) -> None:
    """Write data - sky into `sky`; zero where `bad`, unless a bit of `keep` is set in `mask`."""
    for r in range(data.shape[0]):
        for c in range(data.shape[1]):
            if bad[r, c] and (mask[r, c] & keep) == 0:
                sky[r, c] = 0
            else:
                sky[r, c] = data[r, c] - sky[r, c]


@njit(cache=True, nogil=True)
def count_flags(mask: IntArray, bits: IntArray) -> IntArray:
    """Return how many pixels of `mask` have any bit of each element of `bits`."""
    out = np.zeros(len(bits), np.int64)
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            m = mask[r, c]
            if m:
                for k in range(len(bits)):
                    if m & bits[k]:
                        out[k] += 1
    return out
