"""Sums over the stamps of sources: circular apertures, Kron ellipses, the sky around."""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["circle_sums", "kron_sums", "ring_medians"]

_KRON_REACH = 6.0  # ellipse in which the Kron radius is measured, sigma of the source
_KRON_FACTOR = 2.5


def circle_sums(data: F32, variance: F32, good: BoolArray, *, y: F64, x: F64, radii: F64) -> tuple[F64, F64]:
    """Return sums and their errors in circles, shape (n, len(radii)); pixels on the rim count in part.

    Parameters
    ----------
    data, variance : ndarray, shape (n, side, side)
    good : ndarray, shape (n, side, side), bool
        Other pixels give nothing.
    y, x : ndarray, shape (n,)
        Centres, from the middle pixel.
    radii : ndarray, shape (k,)
        Pixels, increasing.
    """
    out = np.zeros((2, len(data), len(radii)))
    _circles(data, variance, good, np.asarray(y, float), np.asarray(x, float), np.asarray(radii, float), out)
    return out[0], np.sqrt(out[1])


@njit(cache=True, nogil=True)
def _circles(data, variance, good, y, x, radii, out):  # type: ignore[no-untyped-def]
    side, outer = data.shape[1], (radii[-1] + 0.5) ** 2 if len(radii) else 0.0
    for n in range(len(data)):
        for i in range(side):
            for j in range(side):
                if not good[n, i, j]:
                    continue
                square = (i - side // 2 - y[n]) ** 2 + (j - side // 2 - x[n]) ** 2
                if square >= outer:
                    continue
                gap = np.sqrt(square)
                for k in range(len(radii) - 1, -1, -1):
                    part = min(radii[k] + 0.5 - gap, 1.0)
                    if part <= 0:
                        break
                    out[0, n, k] += part * data[n, i, j]
                    out[1, n, k] += part * part * variance[n, i, j]


def kron_sums(data: F32, variance: F32, good: BoolArray, *, y: F64, x: F64, shape: F64) -> F64:
    """Measure Kron fluxes (Kron 1980, as SExtractor's FLUX_AUTO): 2.5 first-moment radii, along the source's ellipse.

    Parameters
    ----------
    shape : ndarray, shape (n, 3)
        Second moments iyy, ixx, iyx in square pixels.

    Returns
    -------
    ndarray, shape (n, 4)
        Flux, error, Kron radius in pixels (geometric mean of the axes), and the part of the ellipse on good pixels.
        The radius is between 1 and 3 sigma of the source's Gaussian. NaN where the shape is not known.
    """
    out = np.full((len(data), 4), np.nan)
    _kron(data, variance, good, np.asarray(y, float), np.asarray(x, float), np.asarray(shape, float), out)
    return out


@njit(cache=True, nogil=True)
def _kron(data, variance, good, y, x, shape, out):  # type: ignore[no-untyped-def]
    side = data.shape[1]
    for n in range(len(data)):
        yy, xx, yx = shape[n, 0], shape[n, 1], shape[n, 2]
        det = yy * xx - yx * yx
        if not det > 0:
            continue
        size = np.sqrt(np.sqrt(det))
        first, total = 0.0, 0.0
        for i in range(side):
            for j in range(side):
                dy, dx = i - side // 2 - y[n], j - side // 2 - x[n]
                gap = np.sqrt(max((xx * dy * dy + yy * dx * dx - 2 * yx * dy * dx) / det, 0.0))
                if good[n, i, j] and gap < _KRON_REACH:
                    first += gap * data[n, i, j]
                    total += data[n, i, j]
        radius = min(max(first / total, 1.0), 3.0) if total > 0 else 1.2533
        limit, flux, noise, inside = _KRON_FACTOR * radius, 0.0, 0.0, 0.0
        for i in range(side):
            for j in range(side):
                dy, dx = i - side // 2 - y[n], j - side // 2 - x[n]
                gap = np.sqrt(max((xx * dy * dy + yy * dx * dx - 2 * yx * dy * dx) / det, 0.0))
                part = min(max((limit - gap) * size + 0.5, 0.0), 1.0)
                if part > 0 and good[n, i, j]:
                    flux += part * data[n, i, j]
                    noise += part * part * variance[n, i, j]
                    inside += part
        out[n, 0], out[n, 1], out[n, 2] = flux, np.sqrt(noise), radius * size
        out[n, 3] = min(inside / (np.pi * (limit * size) ** 2), 1.0)


def ring_medians(data: F32, good: BoolArray, *, inner: float) -> tuple[F64, F64]:
    """Return medians of good pixels beyond `inner` pixels of the middles, every second one, and their errors."""
    out = np.full((2, len(data)), np.nan)
    _rings(data, good, float(inner), out)
    return out[0], out[1]


@njit(cache=True, nogil=True)
def _rings(data, good, inner, out):  # type: ignore[no-untyped-def]
    side = data.shape[1]
    values = np.empty(side * side, data.dtype)
    for n in range(len(data)):
        count = 0
        for i in range(0, side, 2):
            for j in range(i // 2 % 2, side, 2):
                if good[n, i, j] and (i - side // 2) ** 2 + (j - side // 2) ** 2 > inner * inner:
                    values[count] = data[n, i, j]
                    count += 1
        if count < 20:
            continue
        ranked = np.sort(values[:count])
        out[0, n] = ranked[count // 2]
        width = (ranked[int(0.84 * count)] - ranked[int(0.16 * count)]) / 2
        out[1, n] = 1.2533 * width / np.sqrt(count)
