"""Adaptive moments of many sources on stamps, fast: the Gaussian weight is stepped along rows without exponentials.

Plain, slow equivalent: `arrays.adaptive.adaptive_moments`; where all pixels are good both give the same.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.adaptive import MOMENTS_DTYPE
from apstream.arrays.types import F32, F64, BoolArray, Records

__all__ = ["stamp_moments"]

_ROUNDS, _TOLERANCE, _REACH = 25, 5e-4, 4.0


def stamp_moments(data: F32, good: BoolArray, *, y: F64, x: F64, start: F64) -> Records:
    """Measure second moments with an elliptical Gaussian weight matched to the source (Bernstein & Jarvis 2002).

    Parameters
    ----------
    data : ndarray, shape (n, side, side)
    good : ndarray, shape (n, side, side), bool
        Other pixels are left out.
    y, x : ndarray, shape (n,)
        Centroids, from the middle pixels; the centre moves with the weight.
    start : ndarray, shape (n,)
        First guess of the variance per axis, square pixels.

    Returns
    -------
    ndarray of MOMENTS_DTYPE
        Where the iteration does not converge, or leaves the stamp, moments are NaN.
    """
    out = np.zeros((len(data), 6))
    out[:, 0] = out[:, 1] = start
    out[:, 3], out[:, 4] = y, x
    _all(data, good, out)
    result = np.zeros(len(data), MOMENTS_DTYPE)
    result["y"], result["x"], result["converged"] = out[:, 3], out[:, 4], out[:, 5] > 0
    for k, name in enumerate(("iyy", "ixx", "iyx")):
        result[name] = np.where(result["converged"], out[:, k], np.nan)
    return result


@njit(cache=True, nogil=True)
def _all(data, good, out):  # type: ignore[no-untyped-def]
    sums = np.zeros(6)
    limit = (data.shape[1] / 4.0) ** 2
    for n in range(len(data)):
        yy, xx, yx, y, x = out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4]
        y0, x0 = y, x
        for _ in range(_ROUNDS):
            det = yy * xx - yx * yx
            if not det > 1e-6:
                break
            _weighted(data[n], good[n], (y, x), (xx / det, yy / det, -yx / det), (yy, xx), sums)
            if not sums[0] > 0:
                break
            my, mx = sums[1] / sums[0], sums[2] / sums[0]
            sy, sx, sm = sums[3] / sums[0] - my * my, sums[4] / sums[0] - mx * mx, sums[5] / sums[0] - my * mx
            inner = sy * sx - sm * sm
            if not (inner > 1e-6 and sy > 0 and sx > 0):
                break
            a, b, c = sx / inner - xx / det, sy / inner - yy / det, -sm / inner + yx / det
            both = a * b - c * c
            if both > 1e-9 and a > 0 and b > 0:
                ny, nx, nm = min(b / both, 3 * yy), min(a / both, 3 * xx), -c / both
            else:  # wider than any Gaussian seen through this weight
                ny, nx, nm = 1.5 * yy, 1.5 * xx, 1.5 * yx
            if not ny * nx > nm * nm:
                nm = 0.0
            change = abs(ny - yy) + abs(nx - xx) + abs(nm - yx)
            small = change < _TOLERANCE * (yy + xx) and abs(my) + abs(mx) < 2e-3
            y, x, yy, xx, yx = y + 2 * my, x + 2 * mx, ny, nx, nm
            if max(yy, xx) > limit or (y - y0) ** 2 + (x - x0) ** 2 > limit:
                break
            if small:
                out[n, 5] = 1
                break
        out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = yy, xx, yx, y, x


@njit(cache=True, nogil=True)
def _weighted(data, good, centre, form, variances, sums):  # type: ignore[no-untyped-def]
    """Sum the moments under exp(-q / 2), q = ayy dy^2 + axx dx^2 + 2 ayx dy dx, in a box of 4 sigma."""
    ayy, axx, ayx = form
    side = data.shape[0]
    sums[:] = 0
    cy, cx = side // 2 + centre[0], side // 2 + centre[1]
    ry, rx = _REACH * np.sqrt(variances[0]), _REACH * np.sqrt(variances[1])
    j0, j1 = max(0, int(cx - rx)), min(side, int(cx + rx) + 2)
    step = np.exp(-axx)
    for i in range(max(0, int(cy - ry)), min(side, int(cy + ry) + 2)):
        dy, dx = i - cy, j0 - cx
        weight = np.exp(-0.5 * (ayy * dy * dy + axx * dx * dx + 2 * ayx * dy * dx))
        ratio = np.exp(-0.5 * (axx * (2 * dx + 1) + 2 * ayx * dy))
        s0, s1, s2 = 0.0, 0.0, 0.0
        for j in range(j0, j1):
            if good[i, j]:
                value = weight * data[i, j]
                s0 += value
                s1 += value * dx
                s2 += value * dx * dx
            weight *= ratio
            ratio *= step
            dx += 1
        sums[0] += s0
        sums[1] += s0 * dy
        sums[2] += s1
        sums[3] += s0 * dy * dy
        sums[4] += s2
        sums[5] += s1 * dy
