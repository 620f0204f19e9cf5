"""Whitening of a difference image (Reiss & Lupton, DMTN-021), varying over the image.

After matching, the noise of science - K * template is correlated. In Fourier space it is made white again by
sqrt((s1^2 + k0^2 s2^2) / (s1^2 + |K|^2 s2^2)), k0 the kernel sum; the multiplier is one at zero frequency, so
fluxes are kept, and white noise has the variance s1^2 + k0^2 s2^2.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.convolve import frame_coordinates
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["crop_kernels", "fit_kernel_terms", "grid_positions", "local_medians", "whitening_kernels"]


def grid_positions(shape: tuple[int, int], cells: int) -> tuple[F64, F64]:
    """Return y and x, flattened, of the centres of cells x cells equal cells of an image."""
    y, x = ((np.arange(cells) + 0.5) * n / cells - 0.5 for n in shape)
    gy, gx = np.meshgrid(y, x, indexing="ij")
    return gy.ravel(), gx.ravel()


def local_medians(image: FloatArray, good: BoolArray, cells: int) -> F64:
    """Return the median of the good pixels of each cell, flattened; empty cells get the others' median.

    Every fourth pixel in each direction is looked at. NaN everywhere when no pixel is good.
    """
    edges = [np.linspace(0, n, cells + 1).astype(int) for n in image.shape]
    out = np.full((cells, cells), np.nan)
    for i, j in np.ndindex(cells, cells):
        part = np.s_[edges[0][i] : edges[0][i + 1] : 4, edges[1][j] : edges[1][j + 1] : 4]
        values = image[part][good[part]]
        if values.size >= 16:
            out[i, j] = np.median(values)
    if np.isnan(out).all():
        return out.ravel()
    return np.where(np.isnan(out), np.nanmedian(out), out).ravel()


def whitening_kernels(
    kernels: FloatArray,
    fixed_variance: FloatArray,
    convolved_variance: FloatArray,
    *,
    half: int,
    limit: float = 10.0,
    noise: tuple[FloatArray, FloatArray] | None = None,
) -> F64:
    """Return the kernels that whiten fixed - kernel * convolved.

    Parameters
    ----------
    kernels : ndarray, shape (n, h, w)
        Matching kernels, not normalised.
    fixed_variance, convolved_variance : ndarray, shape (n,)
        Sky variance of the two images before the convolution.
    half
        Half-size of the result.
    limit
        Largest amplification of any frequency.
    noise
        Autocorrelations (odd sides) of the noise of both images per unit of variance; None: both are white.

    Returns
    -------
    ndarray, shape (n, 2 half + 1, 2 half + 1)
        Symmetric, each summing to one.
    """
    from scipy import fft as sp_fft

    size = int(sp_fft.next_fast_len(4 * max(half, kernels.shape[1]), real=True))
    power = np.abs(sp_fft.rfft2(kernels, (size, size))) ** 2
    total = np.sum(kernels, axis=(1, 2))[:, None, None] ** 2
    s1, s2 = (np.asarray(v, float)[:, None, None] for v in (fixed_variance, convolved_variance))
    if noise is not None:
        s1, s2 = (s * _power(r, size) for s, r in zip((s1, s2), noise, strict=True))
    before = s1[:, :1, :1] + total * s2[:, :1, :1]
    multiplier = np.minimum(np.sqrt(before / np.maximum(s1 + power * s2, 1e-30)), limit)
    centred = np.fft.fftshift(sp_fft.irfft2(multiplier, (size, size)), axes=(1, 2))
    return crop_kernels(centred, half)


def _power(autocorrelation: FloatArray, size: int) -> F64:
    """Return the power spectrum of an autocorrelation, kept positive."""
    from scipy import fft as sp_fft

    half = autocorrelation.shape[0] // 2
    padded = np.zeros((size, size))
    padded[: 2 * half + 1, : 2 * half + 1] = autocorrelation
    spectrum = sp_fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1))).real
    return np.asarray(np.maximum(spectrum, 0.02 * spectrum.max()))


def crop_kernels(kernels: FloatArray, half: int) -> F64:
    """Cut the middle out of centred kernels and scale each to its former sum."""
    cy, cx = kernels.shape[1] // 2, kernels.shape[2] // 2
    part = kernels[:, max(cy - half, 0) : cy + half + 1, max(cx - half, 0) : cx + half + 1]
    ratio = kernels.sum(axis=(1, 2)) / part.sum(axis=(1, 2))
    return np.asarray(part * ratio[:, None, None], float)


def fit_kernel_terms(kernels: FloatArray, y: FloatArray, x: FloatArray, shape: tuple[int, int], degree: int) -> F64:
    """Fit polynomial terms (n_terms, h, w) through kernels (n, h, w) given at pixel positions."""
    t = poly_terms(*frame_coordinates(y, x, shape), degree)
    flat = kernels.reshape(kernels.shape[0], -1)
    return np.asarray((np.linalg.pinv(t.T) @ flat).reshape(t.shape[0], *kernels.shape[1:]))
