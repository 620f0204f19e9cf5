"""Adaptive second moments of sources on stamps (Bernstein & Jarvis 2002)."""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.types import F32, F64, BoolArray, FloatArray, Records

__all__ = ["MOMENTS_DTYPE", "adaptive_moments", "principal_axes"]

#: Moments in pixel^2 of the best-fitting elliptical Gaussian; y, x are offsets from the middle pixel.
MOMENTS_DTYPE = np.dtype([("iyy", "f8"), ("ixx", "f8"), ("iyx", "f8"), ("y", "f8"), ("x", "f8"), ("converged", "?")])

_ITERATIONS, _TOLERANCE = 60, 1e-4


def adaptive_moments(
    data: F32 | F64,
    good: BoolArray,
    *,
    y: FloatArray,
    x: FloatArray,
    sign: FloatArray,
    start: FloatArray,
) -> Records:
    """Measure second moments with an elliptical Gaussian weight matched to the source.

    Parameters
    ----------
    data : ndarray, shape (n, side, side)
        Stamps.
    good : ndarray, shape (n, side, side), bool
        Pixels to use; the others take the value of the current Gaussian, which leaves the moments unbiased.
    y, x : ndarray, shape (n,)
        Centroids, offsets from the middle pixels; the centre moves with the weight.
    sign : ndarray, shape (n,)
        +1 or -1: negative sources are turned over.
    start : ndarray, shape (n,)
        First guess of the variance per axis, pixel^2, such as that of the PSF.

    Returns
    -------
    ndarray of MOMENTS_DTYPE
        Where the iteration does not converge, or leaves the stamp, moments are NaN.
    """
    results = np.zeros(len(data), MOMENTS_DTYPE)
    results["y"], results["x"] = y, x
    results["iyy"] = results["ixx"] = start
    _adaptive_moments(data, good, np.asarray(sign, float), results)
    for name in ("iyy", "ixx", "iyx"):
        results[name][~results["converged"]] = np.nan
    return results


@njit(cache=True, nogil=True)
def _adaptive_moments(data, good, sign, results):  # type: ignore[no-untyped-def]
    for n in range(len(data)):
        r = results[n]
        y0, x0 = r.y, r.x
        limit = (data.shape[1] / 4.0) ** 2
        for _ in range(_ITERATIONS):
            total, my, mx, yy, xx, yx = _weighted(data[n], good[n], sign[n], r)
            if not total > 0:
                break
            my, mx = my / total, mx / total
            # M = C/2 for a Gaussian seen through its own weight: C = 2 M, reached by undoing the weight.
            yy, xx, yx = yy / total - my * my, xx / total - mx * mx, yx / total - my * mx
            det = yy * xx - yx * yx
            weight_det = r.iyy * r.ixx - r.iyx**2
            if not (det > 1e-6 and yy > 0 and xx > 0):
                break
            a, b, c = (
                xx / det - r.ixx / weight_det,
                yy / det - r.iyy / weight_det,
                -yx / det + r.iyx / weight_det,
            )
            inner = a * b - c * c
            if not (inner > 1e-9 and a > 0 and b > 0):
                # The source is wider than any Gaussian seen through this weight: widen the weight.
                a, b, c, inner = 1.0, 1.0, 0.0, 0.0
                iyy, ixx, iyx = r.iyy * 1.5, r.ixx * 1.5, r.iyx * 1.5
            else:
                iyy, ixx, iyx = b / inner, a / inner, -c / inner
            change = abs(iyy - r.iyy) + abs(ixx - r.ixx) + abs(iyx - r.iyx)
            size = r.iyy + r.ixx
            iyy, ixx, iyx = min(iyy, 3 * r.iyy), min(ixx, 3 * r.ixx), iyx
            if not iyy * ixx > iyx * iyx:
                iyx = 0.0
            r.y, r.x = r.y + 2 * my, r.x + 2 * mx
            r.iyy, r.ixx, r.iyx = iyy, ixx, iyx
            shifted = (r.y - y0) ** 2 + (r.x - x0) ** 2
            if max(iyy, ixx) > limit or shifted > limit:
                break
            if change < _TOLERANCE * size and abs(my) + abs(mx) < 1e-3:
                r.converged = True
                break


@njit(cache=True, nogil=True)
def _weighted(data, good, sign, r):  # type: ignore[no-untyped-def]
    side = data.shape[0]
    det = r.iyy * r.ixx - r.iyx**2
    ayy, axx, ayx = r.ixx / det, r.iyy / det, -r.iyx / det
    reach = 4 * np.sqrt(max(r.iyy, r.ixx)) + 1
    cy, cx = side // 2 + r.y, side // 2 + r.x
    total, my, mx, yy, xx, yx = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    amplitude, power = 0.0, 0.0
    i0, i1 = max(0, int(cy - reach)), min(side, int(cy + reach) + 2)
    j0, j1 = max(0, int(cx - reach)), min(side, int(cx + reach) + 2)
    for i in range(i0, i1):
        for j in range(j0, j1):
            dy, dx = i - cy, j - cx
            weight = np.exp(-0.5 * (ayy * dy * dy + axx * dx * dx + 2 * ayx * dy * dx))
            if good[i, j]:
                value = sign * data[i, j]
                amplitude += weight * value
                power += weight * weight
    amplitude = amplitude / power if power > 0 else 0.0
    for i in range(i0, i1):
        for j in range(j0, j1):
            dy, dx = i - cy, j - cx
            weight = np.exp(-0.5 * (ayy * dy * dy + axx * dx * dx + 2 * ayx * dy * dx))
            value = weight * (sign * data[i, j] if good[i, j] else amplitude * weight)
            total += value
            my += value * dy
            mx += value * dx
            yy += value * dy * dy
            xx += value * dx * dx
            yx += value * dy * dx
    return total, my, mx, yy, xx, yx


def principal_axes(iyy: FloatArray, ixx: FloatArray, iyx: FloatArray) -> tuple[F64, F64, F64]:
    """Return major and minor variance and the angle of the major axis in radians, from +x towards +y."""
    mean, half = (iyy + ixx) / 2, (ixx - iyy) / 2
    root = np.hypot(half, iyx)
    return (
        np.asarray(mean + root, float),
        np.asarray(mean - root, float),
        np.asarray(np.arctan2(iyx, half) / 2, float),
    )
