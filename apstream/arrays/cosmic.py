"""Cosmic rays: pixels that rise above their neighbours more steeply than the PSF can.

A pixel is compared with the means of opposite neighbours in four directions, at one and two pixels. No star, wherever
it is centred, exceeds such a mean by more than the PSF's own ratio; a ray does in at least one direction. The idea
is that of the SDSS photometric pipeline (Lupton et al. 2001); the growth along tracks is our own: found pixels
are replaced by what surrounds them, and their neighbours are tested again with a lower threshold.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.psf import shift_kernel
from apstream.arrays.types import F32, F64, BoolArray, FloatArray

__all__ = ["find_cosmic_rays", "repair", "sharpness_limits"]

# Directions of opposite neighbours (dy, dx), at one and at two pixels.
_PAIRS = np.array([[0, 1], [1, 0], [1, 1], [1, -1], [0, 2], [2, 0], [2, 2], [2, -2]])


def sharpness_limits(kernel: FloatArray) -> F64:
    """Return for each direction the largest ratio of a pixel to the mean of its opposite neighbours in a star.

    Parameters
    ----------
    kernel : ndarray, shape (h, w)
        PSF, centred; it is tried at subpixel positions.

    Returns
    -------
    ndarray, shape (8,)
        For the pairs at one pixel (x, y, two diagonals), then at two pixels.
    """
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    limits = np.zeros(len(_PAIRS))
    floor = 1e-3 * float(kernel.max())
    for dy in np.linspace(-0.5, 0.5, 5):
        for dx in np.linspace(-0.5, 0.5, 5):
            moved = shift_kernel(kernel, dy, dx)
            for k, (py, px) in enumerate(_PAIRS):
                pair = (moved[half_y + py, half_x + px] + moved[half_y - py, half_x - px]) / 2
                limits[k] = max(limits[k], moved[half_y, half_x] / max(pair, floor))
    return limits


@njit(cache=True, nogil=True)
def _is_sharp(image, variance, flags, r, c, limits, margin, n_sigma, pairs):  # type: ignore[no-untyped-def]
    """Tell whether pixel (r, c) exceeds the PSF's ratio in some direction; flagged neighbours do not count."""
    ny, nx = image.shape
    v = image[r, c]
    for k in range(len(limits)):
        total, noise, count = 0.0, 0.0, 0
        for sign in (-1, 1):
            i, j = r + sign * pairs[k, 0], c + sign * pairs[k, 1]
            if 0 <= i < ny and 0 <= j < nx and flags[i, j] != 2:
                total += image[i, j]
                noise += variance[i, j]
                count += 1
        if count < 2:
            continue
        mean = max(total / count, 0.0)
        ratio = limits[k] * margin
        sigma = np.sqrt(variance[r, c] + ratio * ratio * noise / (count * count))
        if v - ratio * mean > n_sigma * sigma:
            return True
    return False


@njit(cache=True, nogil=True)
def _seed(image, variance, flags, limits, margin, high, n_sigma, pairs):  # type: ignore[no-untyped-def]
    """Return the pixels above `high` sigma that are sharp; flags: 0 good, 1 ray, 2 not to be used."""
    found = [(0, 0) for _ in range(0)]
    ny, nx = image.shape
    for r in range(ny):
        for c in range(nx):
            v = image[r, c]
            if v <= 0 or flags[r, c] != 0 or v * v <= high * high * variance[r, c]:
                continue
            if _is_sharp(image, variance, flags, r, c, limits, margin, n_sigma, pairs):
                found.append((r, c))
    return found


@njit(cache=True, nogil=True)
def _fill(image, flags, r, c):  # type: ignore[no-untyped-def]
    """Return the value around a flagged pixel: the flattest opposite pair within three pixels, or a local mean."""
    ny, nx = image.shape
    best, value = np.inf, np.nan
    for py, px in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for d in range(1, 4):
            i, j, k, m = r + d * py, c + d * px, r - d * py, c - d * px
            if min(i, j, k, m) < 0 or max(i, k) >= ny or max(j, m) >= nx:
                break
            if flags[i, j] == 0 and flags[k, m] == 0:
                a, b = image[i, j], image[k, m]
                # The pair of least sum crosses the track; one along it still holds its light.
                score = abs(a + b) * d
                if score < best:
                    best, value = score, (a + b) / 2
                break
    if np.isfinite(value):
        return value
    total, weight = 0.0, 0.0
    for i in range(max(0, r - 4), min(ny, r + 5)):
        for j in range(max(0, c - 4), min(nx, c + 5)):
            if flags[i, j] == 0:
                w = 1.0 / ((i - r) ** 2 + (j - c) ** 2 + 0.5)
                total += w * image[i, j]
                weight += w
    return total / weight if weight > 0 else 0.0


@njit(cache=True, nogil=True)
def _grow(image, clean, variance, flags, front, limits, margin, low, n_sigma, pairs):  # type: ignore[no-untyped-def]
    """Test the neighbours of `front` on the cleaned image with the low threshold; return the new pixels."""
    ny, nx = image.shape
    for r, c in front:
        flags[r, c] = 1
    for r, c in front:
        clean[r, c] = _fill(image, flags, r, c)
    new = [(0, 0) for _ in range(0)]
    for r, c in front:
        for i in range(max(0, r - 1), min(ny, r + 2)):
            for j in range(max(0, c - 1), min(nx, c + 2)):
                v = image[i, j]
                if flags[i, j] != 0 or v <= 0 or v * v <= low * low * variance[i, j]:
                    continue
                if _is_sharp(clean, variance, flags, i, j, limits, margin, n_sigma, pairs):
                    flags[i, j] = 3
                    new.append((i, j))
    for r, c in new:
        flags[r, c] = 0
    return new


def find_cosmic_rays(
    image: F32,
    variance: F32,
    bad: BoolArray,
    *,
    kernel: FloatArray,
    n_sigma: float = 6.0,
    grow_sigma: float = 2.5,
    margin: float = 1.1,
    iterations: int = 8,
) -> BoolArray:
    """Find the pixels hit by cosmic rays.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted image and its variance.
    bad : ndarray, shape (ny, nx), bool
        Pixels neither tested nor used as neighbours (saturated, defect, no data).
    kernel : ndarray, shape (h, w)
        PSF.
    n_sigma
        Least height of a first pixel above the sky, in standard deviations.
    grow_sigma
        The same for a pixel next to one already found.
    margin
        Factor by which the PSF's own sharpness must be exceeded.
    iterations
        Rounds of growth, one pixel each.

    Returns
    -------
    ndarray, shape (ny, nx), bool
        True where a ray was found.
    """
    limits = sharpness_limits(kernel)
    variance = np.ascontiguousarray(variance, np.float32)
    wrong = bad | ~np.isfinite(image) | ~(variance > 0) | ~np.isfinite(variance)
    flags = np.where(wrong, np.int8(2), np.int8(0))
    image = np.ascontiguousarray(image, np.float32)
    front = _seed(image, variance, flags, limits, margin, n_sigma, 0.5 * n_sigma, _PAIRS)
    clean = image.copy() if front else image
    for _ in range(iterations):
        if not front:
            break
        front = _grow(
            image, clean, variance, flags, front, limits, margin, grow_sigma, 0.6 * grow_sigma, _PAIRS
        )
    for r, c in front:
        flags[r, c] = 1
    return flags == 1


@njit(cache=True, nogil=True)
def _repair(image, flags, taps, rows, cols):  # type: ignore[no-untyped-def]
    half = len(taps) // 2
    ny, nx = image.shape
    values = np.empty(len(rows), np.float32)
    for n in range(len(rows)):
        r, c = rows[n], cols[n]
        total, weight = 0.0, 0.0
        for i in range(max(0, r - half), min(ny, r + half + 1)):
            for j in range(max(0, c - half), min(nx, c + half + 1)):
                if flags[i, j] == 0:
                    w = taps[i - r + half] * taps[j - c + half]
                    total += w * image[i, j]
                    weight += w
        values[n] = total / weight if weight > 0 else 0.0
    for n in range(len(rows)):
        image[rows[n], cols[n]] = values[n]


def repair(image: F32, fix: BoolArray, bad: BoolArray, *, sigma: float) -> F32:
    """Replace the pixels of `fix` by the Gaussian-weighted mean of the good pixels around them.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
    fix, bad : ndarray, shape (ny, nx), bool
        Pixels to replace; other pixels not to be used.
    sigma
        Width of the weight, about the PSF's, pixels.

    Returns
    -------
    ndarray, shape (ny, nx), float32
        A copy; zero where no good pixel is within about 5 sigma.
    """
    out = np.array(image, np.float32, order="C")
    rows, cols = np.nonzero(fix)
    if len(rows):
        half = int(np.ceil(5 * sigma))
        taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
        flags = (fix | bad | ~np.isfinite(out)).astype(np.int8)
        _repair(out, flags, taps, rows, cols)
    return out
