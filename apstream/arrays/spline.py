"""Cubic splines through small images, with numpy alone.

`interpolated` does what `scipy.ndimage.map_coordinates` does with order 3 and mode "constant", which takes a tenth of a
second to import: longer than all PSFs of a coadd.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from apstream.arrays.types import F64, FloatArray, IntArray

__all__ = ["interpolated", "interpolation"]


def interpolated(image: FloatArray, places: FloatArray) -> F64:
    """Return the values of the cubic spline through an image, zero beyond its outermost pixel centres.

    Parameters
    ----------
    image : ndarray, shape (n,) or (ny, nx)
        At least two pixels along each axis; mirrored at its outermost pixel centres.
    places : ndarray, shape (1, ...) or (2, ...)
        Positions along each axis.
    """
    image, flat = np.asarray(image, float), np.asarray(places, float).reshape(len(places), -1)
    last = np.array(image.shape)[:, None] - 1.0
    inside = ((flat >= 0) & (flat <= last)).all(axis=0)
    taps = [_taps(place, n) for place, n in zip(flat, image.shape, strict=True)]
    (wx, x), coefficients = taps[-1], image @ _coefficients(image.shape[-1]).T
    if image.ndim == 1:
        out = (wx * coefficients.take(x)).sum(axis=0)
    else:
        wy, y = taps[0]
        coefficients = _coefficients(len(image)) @ coefficients
        values = coefficients.ravel().take(y[:, None] * image.shape[1] + x)
        out = np.einsum("an,bn,abn->n", wy, wx, values)
    return np.where(inside, out, 0.0).reshape(np.shape(places)[1:])


def interpolation(places: FloatArray, n: int) -> F64:
    """Return the matrix, shape (m, n), that makes of n values along an axis those of their spline at m positions."""
    where: F64 = np.asarray(places, float)
    weights, pixels = _taps(where, n)
    out = np.zeros((len(where), n))
    np.add.at(out, (np.arange(len(where)), pixels), weights)
    out[(where < 0) | (where > n - 1)] = 0
    return np.asarray(out @ _coefficients(n))


@cache
def _coefficients(n: int) -> F64:
    """Return the matrix that makes of n values the coefficients of the spline through them."""
    values: F64 = np.eye(n) * 4 / 6 + np.eye(n, k=1) / 6 + np.eye(n, k=-1) / 6
    values[0, 1] = values[-1, -2] = 2 / 6
    return np.asarray(np.linalg.inv(values), float)


def _taps(place: F64, n: int) -> tuple[F64, IntArray]:
    # weights of the four pixels that a position is interpolated from, and which these are, shape (4, ...)
    whole = np.floor(place)
    t = place - whole
    u = 1 - t
    weights = np.stack([u * u * u, 4 - 3 * t * t * (1 + u), 4 - 3 * u * u * (1 + t), t * t * t]) / 6
    pixel = np.abs(whole.astype(int) + np.arange(-1, 3)[:, None])
    return weights, np.clip(np.minimum(pixel, 2 * (n - 1) - pixel), 0, n - 1)
