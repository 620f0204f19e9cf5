"""Adaptive elliptical Gaussian moments (Bernstein & Jarvis 2002): centroid, size and shape."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray, Records

__all__ = ["FWHM_PER_SIGMA", "MOMENTS_DTYPE", "adaptive_moments"]

FWHM_PER_SIGMA = 2.3548200450309493
_LEAST_WEIGHT = 0.5  # pixel^2

#: yy, xx, xy in square pixels; NaN where the iteration failed.
MOMENTS_DTYPE = np.dtype([("y", "f8"), ("x", "f8"), ("yy", "f8"), ("xx", "f8"), ("xy", "f8"), ("flux", "f8"),
                          ("peak", "f8"), ("steps", "i8")])  # fmt: skip


@njit(cache=True, nogil=True)
def _sums(image, bad, y, x, m, half):  # type: ignore[no-untyped-def]
    """Return flux, first and second moments about (y, x) under the Gaussian of covariance `m` = (yy, xx, xy)."""
    ny, nx = image.shape
    det = m[0] * m[1] - m[2] * m[2]
    ayy, axx, axy = m[1] / det, m[0] / det, -m[2] / det
    out = np.zeros(7)
    r0, c0 = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    ry, rx = min(half, int(4 * np.sqrt(m[0])) + 1), min(half, int(4 * np.sqrt(m[1])) + 1)
    for r in range(max(0, r0 - ry), min(ny, r0 + ry + 1)):
        dy = r - y
        for c in range(max(0, c0 - rx), min(nx, c0 + rx + 1)):
            dx = c - x
            q = ayy * dy * dy + axx * dx * dx + 2 * axy * dy * dx
            if q > 16.0 or bad[r, c]:
                continue
            g = np.exp(-0.5 * q)
            w = g * image[r, c]
            out[0] += w
            out[1] += w * dy
            out[2] += w * dx
            out[3] += w * dy * dy
            out[4] += w * dx * dx
            out[5] += w * dy * dx
            out[6] += g
    return out


@njit(cache=True, nogil=True)
def _unweighted(m, w):  # type: ignore[no-untyped-def]
    """Return the covariance of the Gaussian that has moments `m` under the weight `w`."""
    det, wdet = m[0] * m[1] - m[2] * m[2], w[0] * w[1] - w[2] * w[2]
    if not (det > 0 and m[0] > 0):
        return np.zeros(3)
    a, b, c = m[1] / det - w[1] / wdet, m[0] / det - w[0] / wdet, -m[2] / det + w[2] / wdet
    inner = a * b - c * c
    if not (inner > 0 and a > 0):
        return 4 * m
    return np.array([b / inner, a / inner, -c / inner])


@njit(cache=True, nogil=True)
def _overlap(m, w):  # type: ignore[no-untyped-def]
    """Return the mean of a Gaussian of covariance `m` and peak one under the weight `w`; a half if they are alike."""
    det, wdet = m[0] * m[1] - m[2] * m[2], w[0] * w[1] - w[2] * w[2]
    total = (m[0] + w[0]) * (m[1] + w[1]) - (m[2] + w[2]) ** 2
    return np.sqrt(det / total) if det > 0 and wdet > 0 else 0.5


@njit(cache=True, nogil=True)
def _adapt(image, bad, sigma, half, limit, out):  # type: ignore[no-untyped-def]
    """Iterate weight = twice the weighted moments until size and position stand still; `out` holds the start."""
    m = np.array([sigma * sigma, sigma * sigma, 0.0])
    y, x, steps = out[0], out[1], 0
    s, weight, extra = np.zeros(7), m, 0.0
    while steps < limit:
        steps += 1
        # A weight narrower than a pixel sees one pixel only: widen it, and undo the weight exactly.
        extra = max(0.0, _LEAST_WEIGHT - min(m[0], m[1]))
        weight = np.array([m[0] + extra, m[1] + extra, m[2]])
        s = _sums(image, bad, y, x, weight, half)
        if not s[0] > 0:
            return
        dy, dx = s[1] / s[0], s[2] / s[0]
        new = np.array([2 * (s[3] / s[0] - dy * dy), 2 * (s[4] / s[0] - dx * dx), 2 * (s[5] / s[0] - dy * dx)])
        if extra > 0:
            new = _unweighted(new / 2, weight)
        y, x = y + 2 * dy, x + 2 * dx
        det = new[0] * new[1] - new[2] * new[2]
        small = not (new[0] > 0.06 and new[1] > 0.06 and det > 0.005)
        if small or new[0] + new[1] > half * half or abs(y - out[0]) + abs(x - out[1]) > 3 * sigma + 2:
            return
        change = np.abs(new - m).sum() / (m[0] + m[1]) + abs(dy) + abs(dx)
        m = new
        if change < 3e-4:
            break
    norm = 2 * np.pi * np.sqrt(m[0] * m[1] - m[2] * m[2])
    out[0], out[1], out[2], out[3], out[4], out[7] = y, x, m[0], m[1], m[2], steps
    overlap = _overlap(m, weight) if extra > 0 else 0.5
    out[5] = s[0] * norm / (s[6] * overlap) if s[6] > 0 else np.nan


@njit(cache=True, nogil=True)
def _adapt_all(image, bad, sigma, half, limit, out):  # type: ignore[no-untyped-def]
    for s in range(len(out)):
        r, c = int(out[s, 0] + 0.5), int(out[s, 1] + 0.5)
        _adapt(image, bad, sigma, half, limit, out[s])
        peak = -np.inf
        for i in range(max(0, r - 1), min(image.shape[0], r + 2)):
            for j in range(max(0, c - 1), min(image.shape[1], c + 2)):
                peak = max(peak, image[i, j])
        out[s, 6] = peak


def adaptive_moments(
    image: F32,
    bad: BoolArray,
    *,
    y: F64,
    x: F64,
    sigma: float,
    limit: int = 25,
) -> Records:
    """Measure adaptive moments of many sources.

    Parameters
    ----------
    image, bad : ndarray, shape (ny, nx)
        Background-subtracted; pixels under `bad` are left out.
    y, x : ndarray, shape (n,)
        First positions, array pixels.
    sigma
        First guess of the width, pixels.
    limit
        Most iterations.

    Returns
    -------
    ndarray, shape (n,)
        `MOMENTS_DTYPE`; the moments are those of the matched Gaussian (its sigma for a Gaussian star) and
        include the pixel. NaN where it did not converge to a source near the first position
        (which is then returned). `flux` is
        the flux of that Gaussian.
    """
    out = np.full((len(y), 8), np.nan)
    out[:, 0], out[:, 1], out[:, 7] = y, x, 0
    half = int(np.ceil(6 * sigma)) + 3
    image, bad = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(bad)
    _adapt_all(image, bad, float(sigma), half, limit, out)
    result = np.empty(len(y), MOMENTS_DTYPE)
    for column, name in enumerate(MOMENTS_DTYPE.names or ()):
        result[name] = out[:, column]
    return result
