"""A coarse mesh of local medians for what background a subtraction left behind."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, BoolArray

__all__ = ["median_mesh", "subtract_mesh"]

_CLIP, _STEP, _LEAST = 3.0, 2, 50


def median_mesh(image: F32, variance: F32, usable: BoolArray, *, cell: int) -> F32:
    """Return the median of the faint pixels of each cell of a difference image.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx)
        Difference image and its variance.
    usable : ndarray, shape (ny, nx), bool
        Pixels to take; those beyond 3 sigma of the median are left out, which masks what is detected.
    cell
        Side of a cell in pixels; every second pixel of it in y and x is sampled.

    Returns
    -------
    ndarray, float32
        One value per cell, smoothed by a 3 x 3 median; zero where a cell has too few pixels.
    """
    shape = tuple(max(1, round(n / cell)) for n in image.shape)
    mesh = np.zeros(shape, np.float32)
    _median_mesh(image, variance, usable, mesh)
    padded = np.pad(mesh, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.asarray(np.median(windows, axis=(2, 3)), np.float32)


@njit(cache=True, nogil=True)
def _median_mesh(image, variance, usable, mesh):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    rows, columns = mesh.shape
    for a in range(rows):
        for b in range(columns):
            y0, y1 = a * ny // rows, (a + 1) * ny // rows
            x0, x1 = b * nx // columns, (b + 1) * nx // columns
            values = np.empty(((y1 - y0) // _STEP + 1) * ((x1 - x0) // _STEP + 1), np.float32)
            middle = np.float32(0)
            for clip in (np.inf, _CLIP):
                count = 0
                for y in range(y0, y1, _STEP):
                    for x in range(x0, x1, _STEP):
                        off = image[y, x] - middle
                        if usable[y, x] and off * off < clip * clip * variance[y, x]:
                            values[count] = image[y, x]
                            count += 1
                middle = np.median(values[:count]) if count >= _LEAST else np.float32(0)
            mesh[a, b] = middle


def subtract_mesh(image: F32, mesh: F32) -> F32:
    """Return the image minus the mesh, interpolated bilinearly between cell centres, flat beyond them."""
    out = np.empty_like(image)
    _subtract_mesh(image, mesh, out)
    return out


@njit(cache=True, nogil=True)
def _subtract_mesh(image, mesh, out):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    rows, columns = mesh.shape
    line = np.empty(columns, np.float32)
    for y in range(ny):
        a = min(max((y + 0.5) * rows / ny - 0.5, 0.0), rows - 1.0)
        low = min(int(a), rows - 1)
        high = min(low + 1, rows - 1)
        for b in range(columns):
            line[b] = mesh[low, b] + np.float32(a - low) * (mesh[high, b] - mesh[low, b])
        for x in range(nx):
            c = min(max((x + 0.5) * columns / nx - 0.5, 0.0), columns - 1.0)
            left = min(int(c), columns - 1)
            right = min(left + 1, columns - 1)
            out[y, x] = image[y, x] - (line[left] + np.float32(c - left) * (line[right] - line[left]))
