"""Convex polygons on the pixel grid, corners (y, x)."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["in_polygon", "shrunk_polygon"]


def in_polygon(polygon: F64, y: FloatArray, x: FloatArray) -> BoolArray:
    """Tell which positions lie in a convex polygon, shape (k, 2), or on its rim; corners in either sense."""
    start, step = polygon, np.roll(polygon, -1, axis=0) - polygon
    y, x = np.asarray(y, float)[..., None], np.asarray(x, float)[..., None]
    side = step[:, 1] * (y - start[:, 0]) - step[:, 0] * (x - start[:, 1])
    return np.asarray((side >= 0).all(axis=-1) | (side <= 0).all(axis=-1))


def shrunk_polygon(polygon: F64, pixels: float) -> F64:
    """Return a convex polygon whose sides have moved inwards by `pixels`.

    Parameters
    ----------
    polygon : ndarray, shape (k, 2)
        Corners (y, x), in either sense.

    Returns
    -------
    ndarray, shape (k, 2)
        All corners at the middle if nothing is left.
    """
    step = np.roll(polygon, -1, axis=0) - polygon
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.hypot(*step.T)[:, None]
    middle = polygon.mean(axis=0)
    inwards = normal * np.sign(np.einsum("ij,ij->i", normal, middle - polygon))[:, None]
    if np.min(np.einsum("ij,ij->i", inwards, middle - polygon)) <= pixels:
        return np.repeat(middle[None], len(polygon), axis=0)
    offset = np.einsum("ij,ij->i", inwards, polygon) + pixels
    before = np.roll(np.arange(len(polygon)), 1)
    sides = np.stack([inwards[before], inwards], axis=1)
    return np.asarray(np.linalg.solve(sides, np.stack([offset[before], offset], axis=1)[..., None])[..., 0])
