"""Small images around positions, padded where they leave the image."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["add_models", "gather_stamps", "psf_stamps", "stamp_corners"]

T = TypeVar("T", bound=np.generic)


def stamp_corners(y: FloatArray, x: FloatArray, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixel (y, x) of the first element of stamps of `side` whose middle pixel holds (y, x)."""
    half = side // 2
    return (
        np.floor(np.asarray(y) + 0.5).astype(np.int64) - half,
        np.floor(np.asarray(x) + 0.5).astype(np.int64) - half,
    )


def gather_stamps(
    image: NDArray[T], corner_y: NDArray[np.int64], corner_x: NDArray[np.int64], *, side: int, fill: float
) -> NDArray[T]:
    """Cut square stamps out of an image.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Source image.
    corner_y, corner_x : ndarray, shape (n,)
        Array index of the first pixel of each stamp; may lie outside.
    side
        Side of the stamps in pixels.
    fill
        Value of pixels beyond the edge.

    Returns
    -------
    ndarray, shape (n, side, side)
        Copies, in the type of `image`.
    """
    stamps = np.empty((len(corner_y), side, side), image.dtype)
    _gather(image, np.asarray(corner_y, np.int64), np.asarray(corner_x, np.int64), image.dtype.type(fill), stamps)
    return stamps


@njit(cache=True, nogil=True)
def _gather(image, corner_y, corner_x, fill, stamps):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    side = stamps.shape[1]
    for k in range(len(stamps)):
        y, x = corner_y[k], corner_x[k]
        first, last = min(max(-x, 0), side), max(min(nx - x, side), 0)
        inside = first == 0 and last == side
        for i in range(side):
            if not (inside and 0 <= y + i < ny):
                stamps[k, i] = fill
            if 0 <= y + i < ny:
                for j in range(first, last):
                    stamps[k, i, j] = image[y + i, x + j]


@njit(cache=True, nogil=True)
def add_models(data: F32, cube: F32, rows: NDArray[np.int64], flux: F64) -> None:
    """Add to the k-th of some stamps, in place, the one of `cube` at rows[k] times its flux; middle upon middle.

    Parameters
    ----------
    data : ndarray, shape (m, side, side)
    cube : ndarray, shape (n, h, h)
        Sides are odd.
    flux : ndarray, shape (n,)
    """
    n = min(data.shape[1], cube.shape[1])
    a, b = (data.shape[1] - n) // 2, (cube.shape[1] - n) // 2
    for k in range(len(rows)):
        light = np.float32(flux[rows[k]])
        for i in range(n):
            line, model = data[k, a + i, a : a + n], cube[rows[k], b + i, b : b + n]
            for j in range(n):
                line[j] += light * model[j]


def psf_stamps(basis: F64, ty: FloatArray, tx: FloatArray) -> F64:
    """Evaluate a spatially varying pixel-basis PSF at many positions.

    Parameters
    ----------
    basis : ndarray, shape (n_terms, h, w)
        Pixel basis; the PSF is the sum of polynomial terms times planes.
    ty, tx : ndarray, shape (n,)
        Positions normalised to [-1, 1] over the domain of the polynomial.

    Returns
    -------
    ndarray, shape (n, h, w)
        PSFs summing to one.
    """
    terms = poly_terms(np.asarray(ty, float), np.asarray(tx, float), degree_of(basis.shape[0]))
    stamps: F64 = np.tensordot(terms.T, basis, axes=(1, 0))
    return np.asarray(stamps / stamps.sum(axis=(1, 2), keepdims=True))
