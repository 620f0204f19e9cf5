"""Polygons on the pixel grid, corners (y, x)."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["clip_polygon", "in_polygon", "polygon_area", "shrunk_polygon"]


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


def clip_polygon(y: F64, x: F64, low: tuple[float, float], high: tuple[float, float]) -> tuple[F64, F64]:
    """Cut a polygon to a rectangle (Sutherland and Hodgman 1974).

    Parameters
    ----------
    y, x : ndarray, shape (n,)
        Corners in order, not closed; the polygon may be concave.
    low, high
        (y, x) of the lowest and highest corner of the rectangle.

    Returns
    -------
    ndarray, shape (m,)
        y and x of what is left; none where they do not meet.
    """
    points = np.stack([np.asarray(y, float), np.asarray(x, float)])
    for axis in (0, 1):
        points = _below(points, axis, high[axis])
        points = -_below(-points, axis, -low[axis])
    return points[0], points[1]


def polygon_area(y: F64, x: F64) -> float:
    """Return the area inside corners in order, whichever way round."""
    if len(y) < 3:
        return 0.0
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))


def _below(points: F64, axis: int, limit: float) -> F64:
    # every corner, and after it where its edge crosses the limit; those that count are kept, in order
    if not points.shape[1]:
        return points
    after = np.roll(points, -1, axis=1)
    inside = points[axis] <= limit
    crosses = inside != (after[axis] <= limit)
    span = np.where(crosses, after[axis] - points[axis], 1.0)
    cut = points + (after - points) * ((limit - points[axis]) / span)
    cut[axis] = limit
    both = np.stack([points, cut], axis=2).reshape(2, -1)
    kept: F64 = both[:, np.stack([inside, crosses], axis=1).ravel()]
    return kept
