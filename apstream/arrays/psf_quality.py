"""How far the shapes of stars are from those of the PSF at their places."""

from __future__ import annotations

import numpy as np

from apstream.arrays.moments import adaptive_moments
from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["shape_residuals"]


def shape_residuals(residual: F32, cube: F32, *, y: F64, x: F64, flux: F64) -> F64:
    """Return (size, e1, e2) of the stars less those of the PSF.

    Both are measured by the same adaptive moments on the same pixels, the star as what the model leaves over plus
    the model itself, so that neighbours do not count.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx), float32
        The image less all sources.
    cube : ndarray, shape (n, h, w), float32
        From `psf.psf_stamps` at the stars.
    y, x, flux : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (n, 3)
        Relative size (sqrt of yy + xx), e1 = (xx - yy) / (xx + yy), e2 = 2 xy / (xx + yy); NaN where the moments fail.
    """
    if len(cube) == 0:
        return np.zeros((0, 3))
    stars = cube + _cut(residual, y, x, cube.shape[1:]) / np.asarray(flux, np.float32)[:, None, None]
    sigma = float(1 / np.sqrt(4 * np.pi * np.median(np.sum(cube.astype(float) ** 2, axis=(1, 2)))))
    of_stars, of_model = (_shapes(stamps, y, x, sigma) for stamps in (stars, cube))
    return np.column_stack([of_stars[0] / of_model[0] - 1, of_stars[1] - of_model[1], of_stars[2] - of_model[2]])


def _cut(image: F32, y: F64, x: F64, shape: tuple[int, ...]) -> F32:
    """Return stamps around the stars; zero off the image."""
    rows = np.floor(y + 0.5).astype(int)[:, None] + np.arange(shape[0]) - shape[0] // 2
    cols = np.floor(x + 0.5).astype(int)[:, None] + np.arange(shape[1]) - shape[1] // 2
    inside = ((rows >= 0) & (rows < image.shape[0]))[:, :, None] & ((cols >= 0) & (cols < image.shape[1]))[:, None, :]
    rows, cols = np.clip(rows, 0, image.shape[0] - 1), np.clip(cols, 0, image.shape[1] - 1)
    return np.where(inside, image[rows[:, :, None], cols[:, None, :]], np.float32(0))


def _shapes(stamps: F32, y: F64, x: F64, sigma: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return size, e1 and e2 of sources on stamps, measured on one tall image of them all."""
    n, h, w = stamps.shape
    tall = np.ascontiguousarray(stamps.reshape(n * h, w), np.float32)
    rows = np.arange(n) * h + h // 2 + (y - np.floor(y + 0.5))
    cols = w // 2 + (x - np.floor(x + 0.5))
    m = adaptive_moments(tall, np.zeros(tall.shape, bool), y=rows, x=cols, sigma=sigma)
    trace = m["yy"] + m["xx"]
    return np.sqrt(trace), (m["xx"] - m["yy"]) / trace, 2 * m["xy"] / trace
