"""What a measurement sees of the sources of one image: their own light on stamps, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from apstream.arrays.adaptive import adaptive_moments
from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import kernel_at
from apstream.arrays.types import F32, F64, BoolArray, Records
from apstream.model.psf import Psf

__all__ = ["SourceView", "psf_moments"]

_GRID = 7


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceView:
    """Sources of one image, arrays of one length n.

    Parameters
    ----------
    data, variance : ndarray, shape (n, side, side)
        The light of each source without that of its neighbours, centred on the pixel of the source, and its variance.
    good : ndarray, shape (n, side, side), bool
        Pixels that may be used.
    left : ndarray, shape (n, side, side)
        The image there without any source.
    y, x : ndarray, shape (n,)
        Centroids, from the middle pixels.
    row, col : ndarray of int, shape (n,)
        The middle pixels, absolute.
    flux, flux_err : ndarray, shape (n,)
        PSF flux and error.
    psf_shape : ndarray, shape (n, 3)
        Second moments of the PSF there: iyy, ixx, iyx.
    fwhm
        Of the PSF, pixels.
    facts
        By column, what the detection knows of each source.
    """

    data: F32
    variance: F32
    good: BoolArray
    left: F32
    y: F64
    x: F64
    row: Any
    col: Any
    flux: F64
    flux_err: F64
    psf_shape: F64
    fwhm: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def moments(self) -> Records:
        """Adaptive moments, `arrays.adaptive.MOMENTS_DTYPE`."""
        return adaptive_moments(self.data, self.good, y=self.y, x=self.x, start=self.psf_shape)

    @cached_property
    def shape(self) -> F64:
        """Second moments iyy, ixx, iyx of each source; those of the PSF where its own are not known, shape (n, 3)."""
        m = self.moments
        own = np.column_stack([m["iyy"], m["ixx"], m["iyx"]])
        return np.where(m["converged"][:, None], own, self.psf_shape)

    @cached_property
    def size_ratio(self) -> F64:
        """Area of the moments over that of the PSF's; NaN where they are not known."""
        m, p = self.moments, self.psf_shape
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt((m["iyy"] * m["ixx"] - m["iyx"] ** 2) / (p[:, 0] * p[:, 1] - p[:, 2] ** 2)))


def psf_moments(psf: Psf, y: F64, x: F64) -> F64:
    """Return second moments (iyy, ixx, iyx) of the PSF at places: measured on a grid, interpolated linearly."""
    from scipy.interpolate import RegularGridInterpolator

    places = np.linspace(-1, 1, _GRID)
    grid_y, grid_x = (g.ravel() for g in np.meshgrid(places, places, indexing="ij"))
    terms = poly_terms(grid_y, grid_x, psf.degree).T
    kernels = np.array([kernel_at(psf.basis, np.ascontiguousarray(t)) for t in terms])
    zero = np.zeros(len(kernels))
    start = np.full(len(kernels), (psf.fwhm() / FWHM_PER_SIGMA) ** 2)
    found = adaptive_moments(kernels, np.ones(kernels.shape, bool), y=zero, x=zero, start=start)
    values = np.stack([np.where(found["converged"], found[name], fallback)
                       for name, fallback in (("iyy", start), ("ixx", start), ("iyx", zero))], axis=-1)  # fmt: skip
    table = RegularGridInterpolator((places, places), values.reshape(_GRID, _GRID, 3))
    ty, tx = psf.box.normalize(y, x)
    return np.asarray(table(np.clip(np.column_stack([ty, tx]), -1, 1)))
