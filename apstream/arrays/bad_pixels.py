"""Pixels and columns that never tell the truth, from master darks and flats."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.ndimage import map_coordinates, median_filter

from apstream.arrays.stats import mad_sigma, subsample
from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["block_medians", "deviant_columns", "deviant_pixels", "filled_columns", "smooth_shape"]


def block_medians(image: F32, block: int) -> F64:
    """Return the median of the finite pixels of each block; NaN where there is none. Rims join the last block."""
    ny, nx = (max(1, n // block) for n in image.shape)
    rows, columns = (np.linspace(0, n, k + 1).astype(int) for n, k in zip(image.shape, (ny, nx), strict=True))
    made = np.full((ny, nx), np.nan)
    for i in range(ny):
        for k in range(nx):
            part = image[rows[i] : rows[i + 1], columns[k] : columns[k + 1]]
            finite = part[np.isfinite(part)]
            if finite.size:
                made[i, k] = np.median(finite)
    return made


def smooth_shape(image: F32, block: int = 32) -> F32:
    """Return the large-scale shape of an image: medians of blocks, linear in between; single pixels do not show."""
    medians = block_medians(image, block)
    medians[~np.isfinite(medians)] = np.nanmedian(medians) if np.isfinite(medians).any() else 0.0
    medians = median_filter(medians, 3, mode="nearest")
    places = [
        np.clip((np.arange(n) + 0.5) / n * k - 0.5, 0, k - 1) for n, k in zip(image.shape, medians.shape, strict=True)
    ]
    return np.asarray(
        map_coordinates(medians, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"), np.float32
    )


def deviant_pixels(image: F32, *, n_sigma: float, low: float, high: float) -> BoolArray:
    """Return pixels outside ``low..high`` that also stand off from zero by `n_sigma` robust standard deviations.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Deviations from what is expected; NaN is deviant.
    low, high
        Deviations that are harmless however significant.
    """
    sigma = mad_sigma(subsample(image))
    bad: BoolArray = ~np.isfinite(image)
    bad |= (image < low) & (image < -n_sigma * sigma)
    bad |= (image > high) & (image > n_sigma * sigma)
    return bad


def deviant_columns(image: F32, *, n_sigma: float, least: float, segment: int = 128) -> BoolArray:
    """Return stretches of columns whose median stands off from that of the columns beside them.

    Parameters
    ----------
    image
        As `deviant_pixels`.
    n_sigma
        Of the scatter of the medians.
    least
        Smaller deviations are harmless.
    segment
        Rows of a stretch, at least.
    """
    bad = np.zeros(image.shape, bool)
    count = max(1, image.shape[0] // segment)
    edges = np.linspace(0, image.shape[0], count + 1).astype(int)
    for first, last in itertools.pairwise(edges.tolist()):
        part = np.where(np.isfinite(image[first:last]), image[first:last], 0)
        medians = np.median(part, axis=0)
        off = medians - median_filter(medians, 31, mode="nearest")
        limit = max(n_sigma * mad_sigma(off), least)
        bad[first:last, np.abs(off) > limit] = True
    return bad


def filled_columns(bad: BoolArray, *, density: float, least: int) -> BoolArray:
    """Fill gaps in columns: the longest stretch between two bad pixels that has so many and so dense bad pixels.

    The stretch is taken shorter from both ends until it is dense enough.
    """
    filled = bad.copy()
    for column in np.flatnonzero(bad.sum(axis=0) >= least):
        rows = np.flatnonzero(bad[:, column])
        first, last = 0, len(rows) - 1
        while last - first + 1 >= least and last - first + 1 < density * (rows[last] - rows[first] + 1):
            if rows[first + 1] - rows[first] > rows[last] - rows[last - 1]:
                first += 1
            else:
                last -= 1
        if last - first + 1 >= least:
            filled[rows[first] : rows[last] + 1, column] = True
    return filled
