"""Sums over the stamps of sources: circular apertures, Kron ellipses, the sky around."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.stats import nth_value
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
    side = data.shape[1]
    gaps = np.empty((side, side), np.float32)
    line = gaps.reshape(side * side)
    for n in range(len(data)):
        _write_gaps((1.0, 1.0, 0.0), (side // 2 + y[n], side // 2 + x[n]), gaps)
        planes = data[n].reshape(side * side), variance[n].reshape(side * side), good[n].reshape(side * side)
        for k in range(len(radii)):
            a, b = _rows_near(side, y[n], radii[k] + 1)
            part = planes[0][a:b], planes[1][a:b], planes[2][a:b]
            out[0, n, k], out[1, n, k], _ = _sum_inside(part, line[a:b], radii[k], 1.0)


@njit(cache=True, nogil=True)
def _rows_near(side, y, reach):  # type: ignore[no-untyped-def]
    """Return where, in a stamp as one line, the rows within `reach` of a place begin and end."""
    first, last = int(max(side // 2 + y - reach, 0)), int(min(side // 2 + y + reach, side - 1)) + 1
    return first * side, last * side


@njit(cache=True, nogil=True)
def _write_gaps(form, centre, gaps):  # type: ignore[no-untyped-def]
    """Write the distance of each pixel, by the form of y y, x x and y x; whole rows at a time."""
    yy, xx, yx = np.float32(form[0]), np.float32(form[1]), np.float32(2 * form[2])
    for i in range(gaps.shape[0]):
        dy, first = np.float32(i - centre[0]), np.float32(-centre[1])
        for j in range(gaps.shape[1]):
            dx = first + np.float32(j)
            gaps[i, j] = np.sqrt(max(yy * dy * dy + (xx * dx + yx * dy) * dx, np.float32(0)))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _sum_inside(planes, gaps, limit, scale):  # type: ignore[no-untyped-def]
    """Return light, variance and number of pixels nearer than `limit`; those on the rim, 1 / scale wide, in part."""
    data, variance, good = planes
    flux, noise, inside = 0.0, 0.0, 0.0
    limit, scale = np.float32(limit * scale + 0.5), np.float32(scale)
    for i in range(len(gaps)):
        part = min(max(limit - gaps[i] * scale, np.float32(0)), np.float32(1)) * np.float32(good[i])
        flux += part * data[i]
        noise += part * part * variance[i]
        inside += part
    return flux, noise, inside


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
    gaps = np.empty((side, side), np.float32)
    line = gaps.reshape(side * side)
    for n in range(len(data)):
        yy, xx, yx = shape[n, 0], shape[n, 1], shape[n, 2]
        det = yy * xx - yx * yx
        if not det > 0:
            continue
        size = np.sqrt(np.sqrt(det))
        _write_gaps((xx / det, yy / det, -yx / det), (side // 2 + y[n], side // 2 + x[n]), gaps)
        planes = data[n].reshape(side * side), variance[n].reshape(side * side), good[n].reshape(side * side)
        first, total = _first_moment(planes[0], planes[2], line)
        radius = min(max(first / total, 1.0), 3.0) if total > 0 else 1.2533
        limit = _KRON_FACTOR * radius
        flux, noise, inside = _sum_inside(planes, line, limit, size)
        out[n, 0], out[n, 1], out[n, 2] = flux, np.sqrt(noise), radius * size
        out[n, 3] = min(inside / (np.pi * (limit * size) ** 2), 1.0)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _first_moment(data, good, gaps):  # type: ignore[no-untyped-def]
    first, total, reach = 0.0, 0.0, np.float32(_KRON_REACH)
    for i in range(len(gaps)):
        part = data[i] * np.float32(good[i] and gaps[i] < reach)
        first += gaps[i] * part
        total += part
    return first, total


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
        ring = values[:count]
        out[0, n] = nth_value(ring, count // 2)
        width = (nth_value(ring, int(0.84 * count)) - nth_value(ring, int(0.16 * count))) / 2
        out[1, n] = 1.2533 * width / np.sqrt(count)
