"""The point-spread function: a pixel basis that varies over the detector as a polynomial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.polygon import in_polygon
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F64
from apstream.model.geometry import Box

__all__ = ["Psf", "PsfPart", "psf_of_parts"]


@dataclass(frozen=True, slots=True, eq=False)
class Psf:
    """PSF(y, x) = sum over k of T_k(y, x) basis[k], T the terms of a 2-D polynomial on `box`.

    Parameters
    ----------
    basis : ndarray, shape (n_terms, h, w), float64
        Pixel basis at the image's own sampling; h and w odd, the star centred on the middle pixel.
    box
        The domain of the polynomial.

    Raises
    ------
    ValueError
        If the sides are even, the number of terms fits no degree, or a value is not finite.
    """

    basis: F64
    box: Box

    def __post_init__(self) -> None:
        if self.basis.ndim != 3 or self.basis.shape[1] % 2 == 0 or self.basis.shape[2] % 2 == 0:
            raise ValueError(f"PSF basis must be (terms, odd, odd), not {self.basis.shape}")
        if not np.all(np.isfinite(self.basis)):
            raise ValueError("PSF basis has values that are not finite")
        degree_of(self.basis.shape[0])

    @classmethod
    def gaussian(cls, fwhm: float, box: Box, half: int = 12) -> Psf:
        """Make a round Gaussian PSF of `fwhm` pixels."""
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        kernel = np.exp(-0.5 * (y**2 + x**2) / (fwhm / 2.3548) ** 2)
        return cls((kernel / kernel.sum())[None], box)

    @property
    def degree(self) -> int:
        """Degree of the spatial polynomial."""
        return degree_of(self.basis.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of a kernel."""
        return int(self.basis.shape[1]), int(self.basis.shape[2])

    def at(self, y: float, x: float) -> F64:
        """Return the kernel at an absolute position, centred on its middle pixel, summing to one."""
        ty, tx = self.box.normalize(y, x)
        kernel: F64 = np.tensordot(poly_terms(ty, tx, self.degree), self.basis, axes=(0, 0))
        return np.asarray(kernel / kernel.sum())

    def on(self, box: Box) -> Psf:
        """Return the same PSF with its polynomial on another box."""
        if box == self.box:
            return self
        grid = np.linspace(-1, 1, self.degree + 2)
        ty, tx = (axis.ravel() for axis in np.meshgrid(grid, grid, indexing="ij"))
        (cy, cx), (ny, nx) = box.center, box.shape
        places = self.box.normalize(cy + ty * max(ny / 2, 1), cx + tx * max(nx / 2, 1))
        old = poly_terms(*places, self.degree)
        change = np.linalg.lstsq(poly_terms(ty, tx, self.degree).T, old.T, rcond=None)[0]
        return Psf(np.tensordot(change, self.basis, axes=1), box)

    def central(self) -> F64:
        """Return the kernel at the centre of the box."""
        return self.at(*self.box.center)

    def fwhm(self, y: float | None = None, x: float | None = None) -> float:
        """Return the full width at half maximum, in pixels, from the area above half maximum."""
        cy, cx = self.box.center
        kernel = self.at(cy if y is None else y, cx if x is None else x)
        return 2 * float(np.sqrt(_half_maximum_area(kernel) / np.pi))

    def effective_area(self, y: float | None = None, x: float | None = None) -> float:
        """Return 1 / sum(PSF^2), the noise-equivalent area in pixels."""
        cy, cx = self.box.center
        kernel = self.at(cy if y is None else y, cx if x is None else x)
        return float(1 / np.sum(kernel**2))


@dataclass(frozen=True, slots=True, eq=False)
class PsfPart:
    """What one exposure gives to the PSF of a coadd, on the coadd's pixels.

    Parameters
    ----------
    outline : ndarray, shape (k, 2)
        (y, x) of the corners of the area that it reaches, convex.
    weight
        In the mean of all that reach a position.
    """

    psf: Psf
    outline: F64
    weight: float

    def reaches(self, y: float, x: float) -> bool:
        """Tell whether a position lies in the outline."""
        return bool(in_polygon(self.outline, np.array([y]), np.array([x]))[0])


def psf_of_parts(parts: Sequence[PsfPart], y: float, x: float) -> F64 | None:
    """Return the kernel of a weighted mean at an absolute position, summing to one; None where no part reaches.

    Kernels must be of one shape.
    """
    here = [part for part in parts if part.reaches(y, x)]
    if not here:
        return None
    return np.average([part.psf.at(y, x) for part in here], axis=0, weights=[part.weight for part in here])


def _half_maximum_area(kernel: F64) -> float:
    from scipy.ndimage import zoom

    fine = zoom(kernel, 5, order=3, grid_mode=True, mode="grid-constant")
    return float(np.count_nonzero(fine > fine.max() / 2)) / 25
