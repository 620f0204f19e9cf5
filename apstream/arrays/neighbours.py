"""The largest value within some pixels of every pixel; `scipy.ndimage.maximum_filter` does the same slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray, IntArray

__all__ = ["just_beyond", "largest_near", "mark_beside", "true_near"]

#: Pixels of a row that are passed over in one go.
_RUN = 64


def largest_near(image: NDArray[Any], reach: int) -> NDArray[Any]:
    """Return the largest value of each square of 2 `reach` + 1 pixels a side, cut off at the border.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Numbers of any kind, finite.
    """
    out = np.empty(image.shape, image.dtype)
    _largest(np.ascontiguousarray(image), reach, out)
    return out


def true_near(where: BoolArray, reach: int) -> BoolArray:
    """Tell, shape (ny, nx), where something is true within `reach` pixels along y and along x."""
    return np.asarray(largest_near(np.ascontiguousarray(where).view(np.uint8), reach).view(bool))


def just_beyond(where: BoolArray, reach: int) -> BoolArray:
    """Tell, shape (ny, nx), where something is false and true within `reach` pixels; fast where most is true."""
    out = np.zeros(where.shape, np.bool_)
    _mark_beyond(np.ascontiguousarray(where), reach, out)
    return out


def mark_beside(weight: F32, mask: IntArray, bit: int) -> None:
    """Set a bit, in place, where the weight is positive but that of one of the eight pixels around is not."""
    _mark_beside(weight, mask, np.int32(bit))


@njit(cache=True, nogil=True)
def _mark_beyond(where: BoolArray, reach: int, out: BoolArray) -> None:
    # what lies around is looked at run by run, and pixel by pixel only where it is not all the same
    ny, nx = where.shape
    for i in range(ny):
        for left in range(0, nx, _RUN):
            right = min(left + _RUN, nx)
            if _all_true(where, i, left, right):
                continue
            first, last = max(0, i - reach), min(ny, i + reach + 1)
            if not where[first:last, max(0, left - reach) : min(nx, right + reach)].any():
                continue
            for j in range(left, right):
                if not where[i, j]:
                    out[i, j] = where[first:last, max(0, j - reach) : min(nx, j + reach + 1)].any()


@njit(cache=True, nogil=True)
def _all_true(where: BoolArray, i: int, left: int, right: int) -> bool:
    row, all_ = np.uintp(i), True
    for j in range(np.uintp(left), np.uintp(right)):
        all_ &= where[row, j]
    return all_


@njit(cache=True, nogil=True)
def _mark_beside(weight: F32, mask: IntArray, bit: np.int32) -> None:
    ny, nx = weight.shape
    for i in range(ny):
        row, empty = np.uintp(i), np.int32(0)
        for j in range(np.uintp(nx)):
            empty |= np.int32(not weight[row, j] > 0)
        for j in range(nx if empty else 0):
            if not weight[i, j] > 0:
                for y in range(max(0, i - 1), min(ny, i + 2)):
                    for x in range(max(0, j - 1), min(nx, j + 2)):
                        if weight[y, x] > 0:
                            mask[y, x] |= bit


@njit(cache=True, nogil=True)
def _largest(image: NDArray[Any], reach: int, out: NDArray[Any]) -> None:
    ny, nx = image.shape
    line = np.empty(nx + 2 * reach, image.dtype)
    middle = line[reach : reach + nx]
    for i in range(ny):
        first, last = max(0, i - reach), min(ny, i + reach + 1)
        middle[:] = image[first]
        for k in range(first + 1, last):
            _raise_to(middle, image[k])
        line[:reach], line[reach + nx :] = middle[0], middle[nx - 1]  # the end itself is near enough to count
        row = out[i]
        row[:] = middle
        for k in range(2 * reach + 1):
            _raise_to(row, line[k : k + nx])


@njit(cache=True, nogil=True)
def _raise_to(row: NDArray[Any], other: NDArray[Any]) -> None:
    for j in range(row.size):
        row[j] = other[j] if other[j] > row[j] else row[j]
