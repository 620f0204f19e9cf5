"""The largest value within some pixels of every pixel; `scipy.ndimage.maximum_filter` does the same slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apstream.arrays.types import BoolArray

__all__ = ["just_beyond", "largest_near", "true_near"]


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


@njit(cache=True, nogil=True)
def _mark_beyond(where: BoolArray, reach: int, out: BoolArray) -> None:
    ny, nx = where.shape
    for i in range(ny):
        if where[i].all():
            continue
        first, last = max(0, i - reach), min(ny, i + reach + 1)
        for j in range(nx):
            if not where[i, j]:
                out[i, j] = where[first:last, max(0, j - reach) : min(nx, j + reach + 1)].any()


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
