"""Cosmic rays: pixels that rise above their neighbours more steeply than the PSF can.

A pixel is compared with the means of opposite neighbours in four directions, at one and two pixels. No star,
wherever it is centred, exceeds such a mean by more than the PSF's own ratio; a ray does in at least one
direction. The idea is that of the SDSS photometric pipeline (Lupton et al. 2001); the growth along tracks is
our own: found pixels are replaced by what surrounds them, and their neighbours are tested again with a
lower threshold.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.psf import shift_kernel
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray

__all__ = ["find_cosmic_rays", "repair", "sharpness_limits", "spare_stars"]

# Directions of opposite neighbours (dy, dx), at one and at two pixels.
_PAIRS = np.array([[0, 1], [1, 0], [1, 1], [1, -1], [0, 2], [2, 0], [2, 2], [2, -2]])

_STAR_PIXELS = 9  # fewer are never taken for a star
_LEAST = np.array([1.35, 1.35, 1.5, 1.5, 1.8, 1.8, 2.2, 2.2])


def sharpness_limits(kernels: FloatArray, *, margin: float = 1.0) -> F64:
    """Return for each direction the largest ratio of a star's pixel to the mean of its opposite neighbours.

    Parameters
    ----------
    kernels : ndarray, shape (n, h, w)
        The PSF at some places, centred; each is tried at subpixel positions, the sharpest counts.
    margin
        How much narrower than `kernels` a star may be: the logarithm of the ratio grows with its square,
        as it does for a Gaussian.

    Returns
    -------
    ndarray, shape (8,)
        For the pairs at one pixel (x, y, two diagonals), then at two pixels.
    """
    limits = np.zeros(len(_PAIRS))
    for kernel in kernels:
        half_y, half_x, floor = kernel.shape[0] // 2, kernel.shape[1] // 2, 1e-3 * float(kernel.max())
        for dy in np.linspace(-0.5, 0.5, 5):
            for dx in np.linspace(-0.5, 0.5, 5):
                moved = shift_kernel(kernel, dy, dx)
                for k, (py, px) in enumerate(_PAIRS):
                    pair = (moved[half_y + py, half_x + px] + moved[half_y - py, half_x - px]) / 2
                    limits[k] = max(limits[k], moved[half_y, half_x] / max(pair, floor))
    # Charge spreads by less than half a pixel: where the PSF is wide, rays are far sharper than it, and a
    # limit close to one would only catch stars that the model does not fit.
    return np.asarray(np.maximum(1.05 * limits ** (margin * margin), _LEAST))


@njit(cache=True, nogil=True)
def _is_sharp(image, variance, flags, r, c, limits, n_sigma):  # type: ignore[no-untyped-def]
    """Tell whether pixel (r, c) exceeds the PSF's ratio in some direction; unusable neighbours do not count."""
    ny, nx = image.shape
    v = image[r, c]
    for k in range(len(limits)):
        i, j, m, n = r + _PAIRS[k, 0], c + _PAIRS[k, 1], r - _PAIRS[k, 0], c - _PAIRS[k, 1]
        if min(i, j, m, n) < 0 or max(i, m) >= ny or max(j, n) >= nx or flags[i, j] == 2 or flags[m, n] == 2:
            continue
        mean = max((image[i, j] + image[m, n]) / 2, 0.0)
        noise = variance[r, c] + limits[k] ** 2 * (variance[i, j] + variance[m, n]) / 4
        excess = v - limits[k] * mean
        if excess > 0 and excess * excess > n_sigma * n_sigma * noise:
            return True
    return False


@njit(cache=True, nogil=True)
def _seed(image, variance, flags, limits, high):  # type: ignore[no-untyped-def]
    """Return (n, 2) pixels above `high` sigma that are sharp; flags: 0 good, 1 ray, 2 not to be used."""
    ny, nx = image.shape
    found = np.empty((1024, 2), np.int64)
    count = 0
    for r in range(ny):
        for c in range(nx):
            v = image[r, c]
            if v <= 0 or flags[r, c] != 0 or v * v <= high * high * variance[r, c]:
                continue
            if _is_sharp(image, variance, flags, r, c, limits, 0.5 * high):
                if count == len(found):
                    found = np.concatenate((found, np.empty_like(found)))
                found[count, 0], found[count, 1] = r, c
                count += 1
    return found[:count].copy()


@njit(cache=True, nogil=True)
def _fill(image, flags, r, c):  # type: ignore[no-untyped-def]
    """Return the value around a flagged pixel: the flattest opposite pair near, or a local mean."""
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
def _grow(image, clean, variance, flags, front, limits, low):  # type: ignore[no-untyped-def]
    """Test the neighbours of `front` on the cleaned image with the `low` threshold; return the new pixels."""
    ny, nx = image.shape
    for n in range(len(front)):
        flags[front[n, 0], front[n, 1]] = 1
    for n in range(len(front)):
        clean[front[n, 0], front[n, 1]] = _fill(image, flags, front[n, 0], front[n, 1])
    new = np.empty((8 * len(front), 2), np.int64)
    count = 0
    for n in range(len(front)):
        r, c = front[n, 0], front[n, 1]
        for i in range(max(0, r - 1), min(ny, r + 2)):
            for j in range(max(0, c - 1), min(nx, c + 2)):
                v = image[i, j]
                if flags[i, j] != 0 or v <= 0 or v * v <= low * low * variance[i, j]:
                    continue
                if _is_sharp(clean, variance, flags, i, j, limits, 0.6 * low):
                    flags[i, j] = 3
                    new[count, 0], new[count, 1] = i, j
                    count += 1
    for n in range(count):
        flags[new[n, 0], new[n, 1]] = 0
    return new[:count].copy()


def find_cosmic_rays(
    image: F32,
    variance: F32,
    bad: BoolArray,
    limits: F64,
    *,
    n_sigma: float = 6.0,
    grow_sigma: float = 2.5,
    iterations: int = 8,
) -> BoolArray:
    """Find the pixels hit by cosmic rays.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted image and its variance; pixels with NaN or without variance count as bad.
    bad : ndarray, shape (ny, nx), bool
        Pixels neither tested nor used as neighbours (saturated, defect, no data).
    limits : ndarray, shape (8,)
        From `sharpness_limits`.
    n_sigma
        Least height of a first pixel above the sky, in standard deviations.
    grow_sigma
        The same for a pixel next to one already found.
    iterations
        Rounds of growth, one pixel each.

    Returns
    -------
    ndarray, shape (ny, nx), bool
        True where a ray was found.
    """
    image, variance = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(variance, np.float32)
    flags = _flags(image, variance, np.ascontiguousarray(bad))
    front = _seed(image, variance, flags, limits, n_sigma)
    clean = image.copy() if len(front) else image
    for _ in range(iterations):
        if len(front) == 0:
            break
        front = _grow(image, clean, variance, flags, front, limits, grow_sigma)
    flags[front[:, 0], front[:, 1]] = 1
    return np.asarray(flags == 1)


@njit(cache=True, nogil=True)
def _flags(image, variance, bad):  # type: ignore[no-untyped-def]
    out = np.zeros(image.shape, np.int8)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            v = variance[r, c]
            if bad[r, c] or not (v > 0 and v < np.inf) or not np.isfinite(image[r, c]):
                out[r, c] = 2
    return out


def spare_stars(image: F32, hit: BoolArray, *, minor: float, axis_ratio: float) -> tuple[IntArray, IntArray]:
    """Return the pixels of `hit` less those of groups that look like stars.

    Growth can run away over the core of a bright star that the PSF does not fit. Such a group is as wide and as
    round as a star, and has no gaps; tracks are thin.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Background-subtracted.
    hit : ndarray, shape (ny, nx), bool
        From `find_cosmic_rays`.
    minor, axis_ratio
        Lesser axis (sigma, pixels) of the PSF, and lesser over greater axis.

    Returns
    -------
    rows, cols : ndarray of int, shape (n,)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    rows, cols = np.nonzero(hit)
    if len(rows) < _STAR_PIXELS:
        return rows, cols
    pairs = cKDTree(np.column_stack([rows, cols])).query_pairs(1.5, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(rows), len(rows)))
    n_groups, group = connected_components(links, directed=False)
    count = np.bincount(group, minlength=n_groups)
    yy, xx, xy = _group_moments(np.maximum(image[rows, cols].astype(float), 1e-6), rows, cols, group)
    spread = np.hypot(yy - xx, 2 * xy)
    low, high = np.sqrt(np.maximum(yy + xx - spread, 1e-3) / 2), np.sqrt((yy + xx + spread) / 2)
    filled = count > 0.6 * 4 * np.pi * low * high
    star = (count >= _STAR_PIXELS) & filled & (low > 0.5 * minor) & (low > 0.55 * axis_ratio * high)
    keep = ~star[group]
    return rows[keep], cols[keep]


def _group_moments(light: F64, rows: IntArray, cols: IntArray, group: IntArray) -> tuple[F64, F64, F64]:
    """Return second moments yy, xx, xy of each group of pixels, weighted by `light`."""
    total = np.bincount(group, light)
    dy = rows - (np.bincount(group, light * rows) / total)[group]
    dx = cols - (np.bincount(group, light * cols) / total)[group]
    yy, xx, xy = (np.bincount(group, light * a * b) / total for a, b in ((dy, dy), (dx, dx), (dy, dx)))
    return yy, xx, xy


@njit(cache=True, nogil=True)
def _repair(image, bad, rows, cols, taps):  # type: ignore[no-untyped-def]
    half = len(taps) // 2
    ny, nx = image.shape
    values = np.zeros(len(rows), np.float32)
    for n in range(len(rows)):
        r, c = rows[n], cols[n]
        total, weight = 0.0, 0.0
        for i in range(max(0, r - half), min(ny, r + half + 1)):
            for j in range(max(0, c - half), min(nx, c + half + 1)):
                if not bad[i, j]:
                    w = taps[i - r + half] * taps[j - c + half]
                    total += w * image[i, j]
                    weight += w
        if weight > 0:
            values[n] = total / weight
    return values


def repair(image: F32, rows: IntArray, cols: IntArray, bad: BoolArray, *, sigma: float) -> F32:
    """Return values for pixels that are not to be trusted: the Gaussian-weighted mean of good pixels around.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Finite where not `bad`.
    rows, cols : ndarray, shape (n,)
        The pixels to be replaced.
    bad : ndarray, shape (ny, nx), bool
        Other pixels not to be used.
    sigma
        Width of the weight, about the PSF's, pixels.

    Returns
    -------
    ndarray, shape (n,), float32
        Zero where no good pixel is within about 5 sigma.
    """
    half = int(np.ceil(5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    unusable = bad.copy()
    unusable[rows, cols] = True
    values: F32 = _repair(np.ascontiguousarray(image, np.float32), unusable, rows, cols, taps)
    return values
