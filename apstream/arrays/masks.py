"""Masks: grow them, and sort usable pixels from others in one pass."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray, IntArray

__all__ = [
    "clear_of",
    "count_above",
    "count_flags",
    "dilate",
    "mark",
    "split_usable",
    "subtract_sky",
    "tell_above",
    "usable_planes",
]

_BLOCK = 64  # pixels of a row that are looked at together


@njit(cache=True, nogil=True)
def count_above(line, limit):  # type: ignore[no-untyped-def]
    """Return how many elements of a line are above a limit; many are compared at a time."""
    count = np.int32(0)
    for i in range(len(line)):
        count += np.int32(line[i] > limit)
    return count


@njit(cache=True, nogil=True)
def tell_above(line, limit, out):  # type: ignore[no-untyped-def]
    """Write 1 where a line is above a limit, else 0; many are compared at a time."""
    for i in range(len(line)):
        out[i] = line[i] > limit


@njit(cache=True, nogil=True)
def dilate(flags: BoolArray, radius: int) -> BoolArray:
    """Return True within a square of half-side `radius` around the True pixels of `flags`."""
    ny, nx = flags.shape
    out = np.empty((ny, nx), np.bool_)
    last = np.full(nx, -radius - 1, np.int32)  # last row with a wide True in each column
    latest = -radius - 1  # in any column
    for r in range(ny + radius):
        if r < ny and _mark_row(flags[r], radius, np.int32(r), last):
            latest = r
        o = r - radius
        if o >= 0:
            _since(last, np.int32(o - radius), latest >= o - radius, out[o])
    return out


@njit(cache=True, nogil=True)
def _mark_row(flags, radius, r, last):  # type: ignore[no-untyped-def]
    """Write `r` to all columns within `radius` of a True one; tell whether there is any."""
    nx, done = len(flags), 0
    for start in range(0, nx, _BLOCK):
        block = flags[start : start + _BLOCK]
        if count_above(block, False) == 0:
            continue
        for c in range(start, start + len(block)):
            if flags[c]:
                end = min(nx, c + radius + 1)
                for j in range(max(done, c - radius), end):
                    last[j] = r
                done = end
    return done > 0


@njit(cache=True, nogil=True)
def _since(last, row, some, out):  # type: ignore[no-untyped-def]
    if not some:
        out[:] = False
        return
    for c in range(len(out)):
        out[c] = last[c] >= row


@njit(cache=True, nogil=True)
def _split(image, variance, mask, bits, data, noise):  # type: ignore[no-untyped-def]
    """Write image and variance of the pixels that can be used; return how many are not finite. Vectorises."""
    wrong, endless = 0, np.float32(np.inf)
    for r in range(image.shape[0]):
        given, spread, flags, light, out = image[r], variance[r], mask[r], data[r], noise[r]
        count = np.int32(0)
        for c in range(len(given)):
            finite = abs(given[c]) < endless
            good = finite & (spread[c] > 0) & (spread[c] < endless) & ((flags[c] & bits) == 0)
            light[c] = given[c] if finite else np.float32(0)
            out[c] = spread[c] if good else np.float32(np.nan)
            count += np.int32(not finite)
        wrong += int(count)
    return wrong


def usable_planes(image: F32, variance: F32, mask: IntArray, *, bits: int, no_data: int) -> tuple[F32, F32, IntArray]:
    """Do what `split_usable` does without telling which pixels are bad; the mask is the one given if it stays alike."""
    data, noise = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    flags = np.asarray(mask, np.int32)
    if _split(image, variance, flags, np.int32(bits), data, noise):
        flags = np.where(np.isfinite(image), flags, flags | np.int32(no_data))
    return data, noise, flags


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
        A copy.
    """
    data, noise, flags = usable_planes(image, variance, mask, bits=bits, no_data=no_data)
    return data, noise, np.isnan(noise), flags.copy() if flags is mask else flags


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


@njit(cache=True, nogil=True)
def clear_of(mask: IntArray, bits: int) -> BoolArray:
    """Return True where none of `bits` is set."""
    out = np.empty(mask.shape, np.bool_)
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            out[r, c] = (mask[r, c] & bits) == 0
    return out


@njit(cache=True, nogil=True)
def mark(mask: IntArray, where: BoolArray, bit: int) -> IntArray:
    """Return a copy of `mask` in which one bit is set where it is asked for, and nowhere else."""
    out, one = np.empty(mask.shape, np.int32), np.int32(bit)
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            out[r, c] = (mask[r, c] & ~one) | (one if where[r, c] else np.int32(0))
    return out
