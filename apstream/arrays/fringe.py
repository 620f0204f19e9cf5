"""How strong a known fringe pattern is in an image."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.masks import dilate
from apstream.arrays.stats import mad_sigma, subsample
from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["fringe_amplitude"]

Plane = TypeVar("Plane", F32, BoolArray)


def fringe_amplitude(
    image: F32,
    pattern: F32,
    bad: BoolArray,
    *,
    cell_px: int = 128,
    n_sigma: float = 3.0,
    iterations: int = 4,
    enough_px: int = 4_000_000,
) -> tuple[float, float]:
    """Fit image = amplitude pattern + sky, the sky a free plane in every cell; return the amplitude and its error.

    Least squares on what is left of both when their planes are taken out, cell by cell (Frisch & Waugh 1933), so that
    neither the sky's gradients nor its level enter. Stars and all else that stands off from the fit, with what is
    next to it, is left out of the next one.

    Parameters
    ----------
    image, pattern : ndarray, shape (ny, nx), float32
    bad : ndarray, shape (ny, nx), bool
        True for pixels not to be used; those that are not finite are not.
    enough_px
        Of larger images only about so many pixels are looked at, in rows of cells spread over the image.

    Returns
    -------
    tuple
        NaN both if fewer than a hundred pixels can be used or the pattern is flat there.
    """
    image, pattern = _spread_rows(image, cell_px, enough_px), _spread_rows(pattern, cell_px, enough_px)
    bad = _spread_rows(bad, cell_px, enough_px)
    use = ~bad & np.isfinite(image) & np.isfinite(pattern)
    start, keep = use, use & ~_high(image, use, cell_px, n_sigma)
    amplitude, error = np.nan, np.nan
    for _ in range(iterations):
        if np.count_nonzero(keep) < 100:
            return float("nan"), float("nan")
        sums = _cell_sums(image, pattern, keep, cell_px)
        before, (amplitude, information, planes) = amplitude, _solve(sums)
        if not information > 0:
            return float("nan"), float("nan")
        residual = _residual(image, pattern, np.float32(amplitude), planes.astype(np.float32), cell_px)
        sigma = mad_sigma(subsample(np.where(keep, residual, np.nan).astype(np.float32)))
        error = sigma / np.sqrt(information)
        if abs(amplitude - before) < 0.1 * error:
            break
        off = start & ~(np.abs(residual) <= n_sigma * sigma)
        # Alone beyond three sigma is noise, on either side; company is a star.
        keep = start & ~off & ~dilate(_in_company(off), 2)
    return float(amplitude), float(error)


def _spread_rows(plane: Plane, cell_px: int, enough_px: int) -> Plane:
    """Return every row of cells, or every n-th of a large image, one below the other."""
    step = max(1, round(plane.size / enough_px))
    if step == 1:
        return plane
    return np.concatenate([plane[y : y + cell_px] for y in range(0, len(plane) - cell_px + 1, step * cell_px)])


def _high(image: F32, use: BoolArray, cell_px: int, n_sigma: float) -> BoolArray:
    """Return True where the image stands above its cell's median by more than its cell's scatter allows."""
    out = np.zeros(image.shape, bool)
    for y in range(0, image.shape[0], cell_px):
        for x in range(0, image.shape[1], cell_px):
            part = np.s_[y : y + cell_px, x : x + cell_px]
            values = image[part][use[part]][::4]
            if len(values):
                out[part] = image[part] > np.median(values) + (n_sigma + 1) * mad_sigma(values)
    return np.asarray(dilate(out, 3))


@njit(cache=True, nogil=True)
def _in_company(flags: BoolArray) -> BoolArray:
    """Return the True pixels with at least three True ones among themselves and their eight neighbours."""
    ny, nx = flags.shape
    out = np.zeros((ny, nx), np.bool_)
    for r in range(ny):
        for c in range(nx):
            if flags[r, c]:
                n = 0
                for y in range(max(r - 1, 0), min(r + 2, ny)):
                    for x in range(max(c - 1, 0), min(c + 2, nx)):
                        n += flags[y, x]
                out[r, c] = n >= 3
    return out


@njit(cache=True, nogil=True)
def _cell_sums(image: F32, pattern: F32, keep: BoolArray, cell: int) -> F64:
    """Return for each cell the sums of products of 1, y, x, pattern and image, coordinates from -1/2 to 1/2."""
    ny, nx = image.shape
    sums = np.zeros((-(-ny // cell), -(-nx // cell), 5, 5))
    v = np.ones(5)
    for r in range(ny):
        v[1] = (r % cell) / cell - 0.5
        for c in range(nx):
            if keep[r, c]:
                v[2] = (c % cell) / cell - 0.5
                v[3], v[4] = pattern[r, c], image[r, c]
                into = sums[r // cell, c // cell]
                for i in range(5):
                    for j in range(i, 5):
                        into[i, j] += v[i] * v[j]
    return sums


def _solve(sums: F64) -> tuple[float, float, F64]:
    """Return the amplitude, the information on it (for unit noise), and the planes: shape (cells y, cells x, 3)."""
    full = sums + np.swapaxes(np.triu(sums, 1), -1, -2)
    planes = full[..., :3, :3] + 1e-9 * np.eye(3)
    told = full[..., :3, 3:]  # products of the plane's terms with pattern and image
    explained = np.linalg.solve(planes, told)
    rest = full[..., 3:, 3:] - np.swapaxes(told, -1, -2) @ explained
    information, product = rest[..., 0, 0].sum(), rest[..., 0, 1].sum()
    amplitude = float(product / information) if information > 0 else float("nan")
    return amplitude, float(information), explained[..., 1] - amplitude * explained[..., 0]


@njit(cache=True, nogil=True)
def _residual(image: F32, pattern: F32, amplitude: float, planes: F32, cell: int) -> F32:
    out = np.empty(image.shape, np.float32)
    for r in range(image.shape[0]):
        y = np.float32((r % cell) / cell - 0.5)
        for c in range(image.shape[1]):
            p = planes[r // cell, c // cell]
            x = np.float32((c % cell) / cell - 0.5)
            out[r, c] = image[r, c] - amplitude * pattern[r, c] - (p[0] + p[1] * y + p[2] * x)
    return out
