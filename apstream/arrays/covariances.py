"""Brighter-fatter from flats: covariances of neighbouring pixels, and the kernel that makes them."""

from __future__ import annotations

import numpy as np
from scipy.sparse import diags, identity, kron
from scipy.sparse.linalg import spsolve

from apstream.arrays.stats import clip_mask
from apstream.arrays.types import F32, F64

__all__ = ["kernel_of", "pair_covariances"]

_CLIP = 5.0


def pair_covariances(first: F32, second: F32, *, lags: int) -> F64:
    """Return the covariances of one frame, from the difference of two equal exposures.

    Parameters
    ----------
    first, second : ndarray, shape (ny, nx), float32
        Above the bias level; NaN is left out.

    Returns
    -------
    ndarray, shape (lags + 1, lags + 1), float64
        ``[i, j]`` of pixels i rows and j columns apart, both directions across averaged; unit of the frames squared.
    """
    scale = np.nanmedian(first) / np.nanmedian(second)
    difference = first.astype(np.float64) - second * scale
    sample = difference.ravel()[:: max(1, difference.size // 400_000)]
    inside = sample[clip_mask(sample, n_sigma=_CLIP)]
    middle, limit = float(np.median(inside)), float(np.max(np.abs(inside - np.median(inside))))
    good = np.abs(difference - middle) <= limit
    values = np.where(good, difference - difference[good].mean(), 0.0)
    made = np.empty((lags + 1, lags + 1))
    ny, nx = values.shape
    for i in range(lags + 1):
        for j in range(lags + 1):
            upper, lower = (slice(i, ny), slice(j, nx)), (slice(0, ny - i), slice(0, nx - j))
            left, right = (slice(i, ny), slice(0, nx - j)), (slice(0, ny - i), slice(j, nx))
            total = np.sum(values[upper] * values[lower]) + np.sum(values[left] * values[right])
            count = np.count_nonzero(good[upper] & good[lower]) + np.count_nonzero(good[left] & good[right])
            made[i, j] = total / count / 2
    return made


def kernel_of(covariances: list[F64], levels: list[float], *, symmetric: bool = True) -> F64:
    """Return the kernel K that `undo_brighter_fatter` takes, from covariances of flats.

    In a flat of mean m, to first order, C = m delta - m^2 laplacian(K) (Coulton et al. 2018, section 3), so each flat
    tells the laplacian with an error that falls with m; K is zero far outside the lags measured.

    Parameters
    ----------
    covariances : arrays, shape (lags + 1, lags + 1)
        Electrons squared, read noise taken off ``[0, 0]``.
    levels
        Electrons.
    symmetric
        Whether rows and columns are taken to be alike beyond the nearest neighbours.

    Returns
    -------
    ndarray, shape (2 lags + 1, 2 lags + 1), float64
        1/electron. No charge is made or lost: the laplacian sums to zero.
    """
    sources, weights = [], np.square(levels)
    for covariance, level in zip(covariances, levels, strict=True):
        source = -covariance / level**2
        source[0, 0] += 1 / level
        sources.append(source)
    source = np.average(sources, axis=0, weights=weights)
    if symmetric:
        mean = (source + source.T) / 2
        mean[0, 1], mean[1, 0] = source[0, 1], source[1, 0]
        source = mean
    whole = np.pad(np.concatenate([source[:0:-1], source]), ((0, 0), (0, 0)))
    whole = np.concatenate([whole[:, :0:-1], whole], axis=1)
    lags = len(source) - 1
    rest = whole.sum() - whole[lags, lags]
    excess = (rest + whole[lags, lags]) / (whole.size - 1)
    whole[np.arange(whole.size).reshape(whole.shape) != whole.size // 2] -= excess
    return _inverse_laplacian(whole)


def _inverse_laplacian(source: F64) -> F64:
    """Return what has this five-point laplacian and is zero three times as far out."""
    n = len(source)
    padded = np.pad(source, n)
    size = len(padded)
    line = diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(size, size))
    laplacian = kron(line, identity(size)) + kron(identity(size), line)
    solved = spsolve(laplacian.tocsc(), padded.ravel()).reshape(padded.shape)
    return np.asarray(solved[n : 2 * n, n : 2 * n])
