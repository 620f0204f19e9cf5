"""The sky of a frame without its sources, for the making of fringe patterns."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from apstream.arrays.bad_pixels import smooth_shape
from apstream.arrays.masks import dilate
from apstream.arrays.stats import mad_sigma, subsample
from apstream.arrays.types import F32, BoolArray

__all__ = ["masked_sky", "smoothed"]


def smoothed(pattern: F32, seen: BoolArray, sigma: float) -> F32:
    """Return a pattern smoothed by a Gaussian (sigma in pixels) over the pixels that were seen; 0 far from them."""
    if sigma <= 0:
        return np.where(seen, pattern, np.float32(0))
    weight = gaussian_filter(seen.astype(np.float32), sigma)
    total = gaussian_filter(np.where(seen, pattern, np.float32(0)), sigma)
    return np.asarray(np.where(weight > 0.05, total / np.maximum(weight, 1e-6), 0), np.float32)


def masked_sky(image: F32, *, cell: int, n_sigma: float, grow: int, smooth: float = 1.5) -> F32:
    """Return an image whose sources are NaN.

    A source is what, smoothed, stands off from the sky nearby: medians of cells, which follow fringes.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        NaN where the pixel is bad.
    cell
        Side of the cells, pixels.
    grow
        How far sources are grown, pixels.
    smooth
        Sigma of the Gaussian, pixels.
    """
    masked = image
    for _ in range(2):
        off = image - smooth_shape(masked, cell)
        blurred = gaussian_filter(np.nan_to_num(off), smooth)
        quiet = subsample(np.where(np.isfinite(masked), blurred, np.float32(np.nan)))
        source = blurred > n_sigma * mad_sigma(quiet)
        masked = np.where(dilate(source, grow), np.float32(np.nan), image)
    return masked
