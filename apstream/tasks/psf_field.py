"""The PSF of a weighted sum of warped images, as a function of position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.polygon import in_polygon
from apstream.arrays.psf_warp import fit_kernel_field, local_matrix, warp_kernel
from apstream.arrays.types import F64, BoolArray, FloatArray
from apstream.arrays.warp import PixelMap
from apstream.model.geometry import Box
from apstream.model.psf import Psf

__all__ = ["CoaddPsf", "PsfInput", "combined_psf"]

#: Kernels are evaluated on so many positions along each side.
_GRID = 5


@dataclass(frozen=True, slots=True, eq=False)
class PsfInput:
    """One image of the sum: its PSF, the map of target pixels to its own, its box and its weight.

    Parameters
    ----------
    polygon : ndarray, shape (k, 2)
        (y, x) of the corners of its valid area, convex, in its own pixels; None means the whole box.
    """

    psf: Psf
    pixel_map: PixelMap
    box: Box
    weight: float
    polygon: F64 | None = None

    def reaches(self, y: FloatArray, x: FloatArray) -> BoolArray:
        """Tell which positions on its own pixels lie in its valid area."""
        inside = self.box.contains(y, x)
        return inside if self.polygon is None else inside & in_polygon(self.polygon, y, x)


@dataclass(frozen=True, slots=True, eq=False)
class CoaddPsf:
    """The PSF of a weighted mean of warped images, exact at every position.

    Parameters
    ----------
    inputs
        The images.
    half
        Half the side of the kernels.
    """

    inputs: tuple[PsfInput, ...]
    half: int

    @classmethod
    def of(cls, inputs: Sequence[PsfInput], target: Box) -> CoaddPsf:
        """Make the PSF of images on `target`."""
        return cls(tuple(inputs), max(_half(item, target) for item in inputs))

    def inputs_at(self, y: float, x: float) -> list[int]:
        """Return the places of the inputs that reach a position."""
        return [k for k, item in enumerate(self.inputs) if _source(item, y, x) is not None]

    def at(self, y: float, x: float) -> F64 | None:
        """Return the kernel at a position, summing to one; None where no input reaches.

        Each input's kernel is seen through the local linear part of its map; they are averaged with their
        weights.
        """
        total, weight = np.zeros((2 * self.half + 1, 2 * self.half + 1)), 0.0
        for item in self.inputs:
            place = _source(item, y, x)
            if place is None:
                continue
            matrix = local_matrix(item.pixel_map, y, x)
            total += item.weight * warp_kernel(item.psf.at(*place), matrix, self.half)
            weight += item.weight
        return total / weight if weight > 0 else None


def combined_psf(inputs: Sequence[PsfInput], target: Box, *, degree: int = 2) -> Psf:
    """Return a polynomial through the PSF of the weighted mean of warped images on `target`.

    Positions that no input covers are left out.
    """
    exact = CoaddPsf.of(inputs, target)
    ys, xs = (np.linspace(a, b - 1, _GRID) for a, b in ((target.y0, target.y1), (target.x0, target.x1)))
    grid_y, grid_x = (a.ravel() for a in np.meshgrid(ys, xs, indexing="ij"))
    found = [exact.at(y, x) for y, x in zip(grid_y, grid_x, strict=True)]
    covered = np.array([kernel is not None for kernel in found])
    kernels = [kernel for kernel in found if kernel is not None]
    if not kernels:  # a corner is touched between the positions: any kernel nearby will do
        anywhere = [PsfInput(i.psf, i.pixel_map, target.grow(10**9), i.weight) for i in inputs]
        middle = CoaddPsf(tuple(anywhere), exact.half).at(*target.center)
        return Psf((inputs[0].psf.central() if middle is None else middle)[None], target)
    ty, tx = target.normalize(grid_y[covered], grid_x[covered])
    return Psf(fit_kernel_field(np.stack(kernels), ty, tx, degree), target)


def _source(item: PsfInput, y: float, x: float) -> tuple[float, float] | None:
    sy, sx = item.pixel_map(np.array([y]), np.array([x]))
    return (float(sy[0]), float(sx[0])) if bool(item.reaches(sy, sx)[0]) else None


def _half(item: PsfInput, target: Box) -> int:
    # a kernel keeps its extent on the sky
    matrix = local_matrix(item.pixel_map, *target.center)
    scale = np.sqrt(abs(np.linalg.det(matrix))) if np.isfinite(matrix).all() else 1.0
    return int(np.ceil((max(item.psf.shape) // 2) / max(scale, 0.1)))
