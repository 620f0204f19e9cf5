"""Let a PSF vary along a few principal components of its stars (Karhunen-Loeve; Jarvis & Jain 2004)."""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64

__all__ = ["vary_along_components"]


def vary_along_components(mean: F64, target: F64, weight: F64, terms: F64, *, spread: F64, count: int) -> F64:
    """Return a PSF basis whose variation is that of the first principal components of the stars.

    The components are those of what the stars differ by from the mean PSF, pixels weighted by how much of their
    scatter is not noise. Each star's coefficients along them vary over the field as a polynomial.

    Parameters
    ----------
    mean : ndarray, shape (h, w)
        The mean PSF.
    target, weight : ndarray, shape (n, h, w)
        The stars, centred and of unit flux, and the inverse variance of their pixels.
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at the stars; the first is constant.
    spread : ndarray, shape (h, w)
        How much a pixel may vary, a standard deviation.
    count
        Number of components.

    Returns
    -------
    ndarray, shape (n_terms, h, w)
    """
    n, n_terms = terms.shape
    w, prior = weight.reshape(n, -1), spread.ravel()
    residual = target.reshape(n, -1) - mean.ravel()
    noise = 1 / np.maximum(w.mean(axis=0), 1e-300)
    trust = prior / np.sqrt(noise) / np.sqrt(1 + prior**2 / noise) / np.sqrt(noise)
    loads = np.sqrt(w.sum(axis=1) / w.sum(axis=1).mean())
    axes = np.linalg.svd(residual * trust * loads[:, None], full_matrices=False)[2][: min(count, n - 1)]
    scores = (residual * trust) @ axes.T
    components = _regress(residual, w, scores, prior)
    own, strength = _project(residual, w, components)
    fit = np.linalg.lstsq(terms * strength[:, None], own * strength[:, None], rcond=None)[0]
    out = fit @ components
    out[0] += mean.ravel()
    return np.ascontiguousarray(out.reshape(n_terms, *mean.shape))


def _regress(residual: F64, weight: F64, scores: F64, spread: F64) -> F64:
    """Return for each score the image that goes with it, pixel by pixel, shrunk where pixels say little."""
    count = scores.shape[1]
    normal = np.einsum("sp,sa,sb->pab", weight, scores, scores, optimize=True)
    vector = np.einsum("sp,sp,sa->pa", weight, residual, scores, optimize=True)
    size = np.maximum(scores.std(axis=0), 1e-300)
    normal[:, np.arange(count), np.arange(count)] += (size / np.maximum(spread, 1e-300)[:, None]) ** 2
    return np.linalg.solve(normal, vector[:, :, None])[:, :, 0].T


def _project(residual: F64, weight: F64, components: F64) -> tuple[F64, F64]:
    """Return each star's coefficients along the components, and the weight of the star."""
    normal = np.einsum("sp,ap,bp->sab", weight, components, components, optimize=True)
    vector = np.einsum("sp,sp,ap->sa", weight, residual, components, optimize=True)
    power = np.trace(normal, axis1=1, axis2=2)
    index = np.arange(len(components))
    normal[:, index, index] *= 1 + 1e-6
    normal[:, index, index] += 1e-12 * np.maximum(power, 1e-300)[:, None]
    return np.linalg.solve(normal, vector[:, :, None])[:, :, 0], np.sqrt(power)
