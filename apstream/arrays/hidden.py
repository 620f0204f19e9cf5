"""Sources hidden beside brighter ones: found in what is left when these are subtracted."""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.deblend import neighbour_lists
from apstream.arrays.types import F32, F64, IntArray

__all__ = ["find_hidden", "misfit"]

_LEAST_BOX = 2.5 * 3  # sum of 3 x 3 pixels, sigma of one: no source of the least significance is fainter


def find_hidden(
    images: tuple[F32, F32, F32],
    cube: F32,
    places: tuple[F64, F64],
    *,
    fwhm: float,
    n_sigma: float,
    model_error: float,
) -> tuple[F64, F64, F64, IntArray]:
    """Find the most significant point source in what each star leaves over near it.

    Parameters
    ----------
    images : three ndarray, shape (ny, nx), float32
        The image, the same less the stars, and its variance.
    cube, places
        PSFs at the stars, and their y and x in array pixels.
    fwhm
        Places between 0.4 and 2.5 FWHM from the star are tried.
    n_sigma
        Least significance, of noise and model error together.
    model_error
        Part of the stars' light that a wrong PSF may leave over; it counts as noise.

    Returns
    -------
    y, x, flux : ndarray, shape (m,)
        One at most for each star, and each only once.
    host : ndarray of int, shape (m,)
        The star it was found beside.
    """
    out = np.zeros((len(cube), 4))
    spots = np.column_stack([np.floor(places[0] + 0.5), np.floor(places[1] + 0.5)]).astype(np.int64)
    _search(images, cube, spots, float(fwhm), float(model_error), out)
    chosen = np.flatnonzero(out[:, 0] > n_sigma)
    chosen = chosen[np.argsort(-out[chosen, 0], kind="stable")]
    starts, links = neighbour_lists(out[chosen, 1], out[chosen, 2], fwhm / 2)
    first = np.ones(len(chosen), bool)
    for k in range(len(chosen)):
        near = links[starts[k] : starts[k + 1]]
        first[k] = not np.any(first[near[near < k]])
    rows = chosen[first]
    return out[rows, 1], out[rows, 2], out[rows, 3], rows


@njit(cache=True, nogil=True)
def _search(images, cube, spots, fwhm, error, out):  # type: ignore[no-untyped-def]
    _, residual, variance = images
    ny, nx = residual.shape
    reach, half = int(2.5 * fwhm), int(1.2 * fwhm) + 1
    boxes = np.empty((2 * reach + 3, 2 * reach + 3))
    for s in range(len(cube)):
        row, col = spots[s, 0], spots[s, 1]
        if row < 0 or col < 0 or row >= ny or col >= nx:
            continue
        top, left = max(1, row - reach), max(1, col - reach)
        bottom, right = min(ny - 1, row + reach + 1), min(nx - 1, col + reach + 1)
        _sum_boxes(residual, variance, (row, col, top, bottom, left, right), ((0.4 * fwhm) ** 2, reach**2), boxes)
        for r in range(top, bottom):
            for c in range(left, right):
                if _is_peak(boxes, r - top + 1, c - left + 1):
                    score, flux = _match(images, cube[s], r, c, half, error)
                    if score > out[s, 0]:
                        out[s, 0], out[s, 1], out[s, 2], out[s, 3] = score, r, c, flux


@njit(cache=True, nogil=True)
def _sum_boxes(residual, variance, window, limits, boxes):  # type: ignore[no-untyped-def]
    """Write sums of 3 x 3 pixels, zero where no source of the least significance can be, with a rim of zeros."""
    row, col, top, bottom, left, right = window
    boxes[:] = 0
    for r in range(top, bottom):
        before = residual[r - 1, left - 1] + residual[r, left - 1] + residual[r + 1, left - 1]
        here = residual[r - 1, left] + residual[r, left] + residual[r + 1, left]
        for c in range(left, right):
            after = residual[r - 1, c + 1] + residual[r, c + 1] + residual[r + 1, c + 1]
            total, v, gap = before + here + after, variance[r, c], (r - row) ** 2 + (c - col) ** 2
            if limits[0] <= gap <= limits[1] and v > 0 and total > 0 and total * total >= _LEAST_BOX**2 * v:
                boxes[r - top + 1, c - left + 1] = total
            before, here = here, after


@njit(cache=True, nogil=True)
def _is_peak(boxes, i, j):  # type: ignore[no-untyped-def]
    value = boxes[i, j]
    if not value > 0:
        return False
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            if boxes[a, b] > value:
                return False
    return True


@njit(cache=True, nogil=True)
def _match(images, stamp, row, col, half, error):  # type: ignore[no-untyped-def]
    """Significance and flux of a point source on a pixel of the residual."""
    image, residual, variance = images
    ny, nx = image.shape
    h, w = stamp.shape
    signal, noise, power = 0.0, 0.0, 0.0
    for i in range(max(-half, -row), min(half + 1, ny - row)):
        for j in range(max(-half, -col), min(half + 1, nx - col)):
            a, b = i + h // 2, j + w // 2
            v = variance[row + i, col + j]
            if a < 0 or b < 0 or a >= h or b >= w or not (v > 0 and v < np.inf):
                continue
            p = stamp[a, b]
            model = image[row + i, col + j] - residual[row + i, col + j]
            signal += p * residual[row + i, col + j]
            noise += p * p * v
            power += p * p * error * max(model, 0.0)
    if not power + noise > 0:
        return 0.0, 0.0
    scale = 0.0
    for i in range(-half, half + 1):
        for j in range(-half, half + 1):
            a, b = i + h // 2, j + w // 2
            if 0 <= a < h and 0 <= b < w:
                scale += stamp[a, b] ** 2
    # a wrong PSF errs alike over many pixels: its error adds up, noise adds in squares
    return signal / np.sqrt(noise + power * power), signal / scale


def misfit(image: F32, residual: F32, variance: F32, y: F64, x: F64, *, radius: float, model_error: float) -> F64:
    """Return the mean square of what is left around each place, in units of its noise and model error.

    Pixels within `radius`; one where only noise is left, more where the models do not explain the light.
    """
    out = np.zeros(len(y))
    _misfit(image, residual, variance, np.column_stack([y, x]), float(radius), float(model_error) ** 2, out)
    return out


@njit(cache=True, nogil=True)
def _misfit(image, residual, variance, places, radius, error2, out):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    reach = int(radius)
    for s in range(len(places)):
        row, col = int(places[s, 0] + 0.5), int(places[s, 1] + 0.5)
        total, count = 0.0, 0
        for r in range(max(0, row - reach), min(ny, row + reach + 1)):
            half = int(np.sqrt(radius * radius - (r - row) ** 2))
            c = slice(max(0, col - half), max(0, min(nx, col + half + 1)))
            part, number = _misfit_row(image[r, c], residual[r, c], variance[r, c], error2)
            total += part
            count += number
        out[s] = total / max(count, 1)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _misfit_row(image, residual, variance, error2):  # type: ignore[no-untyped-def]
    total, count = 0.0, np.int32(0)
    for i in range(len(image)):
        v, left = variance[i], np.float64(residual[i])
        good = (v > np.float32(0)) & (v < np.float32(np.inf))
        model = image[i] - left
        total += left * left / ((v if good else np.float32(1)) + error2 * model * model) if good else 0.0
        count += np.int32(good)
    return total, count
