"""Sizes and shapes of PSF kernels, and kernels at some places of a field."""

from __future__ import annotations

import numpy as np

from apstream.arrays.moments import adaptive_moments
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F64

__all__ = ["gaussian_match", "kernels_over_field"]


def kernels_over_field(basis: F64, *, side: int = 3, reach: float = 0.8) -> F64:
    """Return the kernels (side^2, h, w) of a PSF basis on a square grid from -`reach` to `reach` of the field."""
    places = np.linspace(-reach, reach, side)
    ty, tx = (grid.ravel() for grid in np.meshgrid(places, places, indexing="ij"))
    return np.asarray(np.einsum("ts,tij->sij", poly_terms(ty, tx, degree_of(len(basis))), basis))


def gaussian_match(kernel: F64) -> tuple[float, float, float]:
    """Return sigma, lesser axis and axis ratio of the Gaussian that matches `kernel`, pixels.

    Where the moments fail, as they do below two pixels FWHM, the effective area gives the size.
    """
    half = np.array([float(kernel.shape[0] // 2)])
    sigma = float(1 / np.sqrt(4 * np.pi * np.sum(kernel**2)))
    none = np.zeros(kernel.shape, bool)
    m = adaptive_moments(np.asarray(kernel, np.float32), none, y=half, x=half, sigma=sigma)[0]
    if not np.isfinite(m["yy"]):
        return sigma, sigma, 1.0
    trace, spread = m["yy"] + m["xx"], np.hypot(m["yy"] - m["xx"], 2 * m["xy"])
    low, high = np.sqrt((trace - spread) / 2), np.sqrt((trace + spread) / 2)
    return float(np.sqrt(low * high)), float(low), float(low / high)
