"""The PSF of a weighted sum of warped images, as a function of position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from apstream.arrays.polygon import in_polygon
from apstream.arrays.psf_warp import fit_kernel_field, local_matrix, warp_kernel
from apstream.arrays.types import F64, BoolArray, FloatArray
from apstream.arrays.warp import PixelMap
from apstream.model.geometry import Box
from apstream.model.psf import Psf, PsfPart, psf_of_parts

__all__ = ["CoaddPsf", "PsfInput", "combined_psf", "psf_parts", "width_ratios"]

#: Kernels are evaluated on so many positions along each side.
_GRID = 5
#: Widths are compared on so many positions along each side.
_RATIOS = 9


@dataclass(frozen=True, slots=True, eq=False)
class PsfInput:
    """One image of the sum: its PSF, the map of target pixels to its own, its box and its weight.

    Parameters
    ----------
    polygon : ndarray, shape (k, 2)
        (y, x) of the corners of its valid area, convex, in its own pixels; None means the whole box.
    parts
        What each exposure in it gives to its PSF, where `psf` cannot follow its steps.
    """

    psf: Psf
    pixel_map: PixelMap
    box: Box
    weight: float
    polygon: F64 | None = None
    parts: tuple[PsfPart, ...] = ()

    def kernel(self, y: float, x: float) -> F64:
        """Return its kernel at a position on its own pixels."""
        exact = psf_of_parts(self.parts, y, x)
        return self.psf.at(y, x) if exact is None else exact

    def split(self) -> list[PsfInput]:
        """Return an input for each of its parts, or itself where it has none."""
        return [replace(self, psf=part.psf, polygon=part.outline, parts=()) for part in self.parts] or [self]

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
            total += item.weight * warp_kernel(item.kernel(*place), matrix, self.half)
            weight += item.weight
        return total / weight if weight > 0 else None


def combined_psf(inputs: Sequence[PsfInput], target: Box, *, degree: int = 2) -> Psf:
    """Return a polynomial through the PSF of the weighted mean of warped images on `target`.

    Positions that no input covers are left out.
    """
    return _fitted(CoaddPsf.of(inputs, target), target, degree)


def psf_parts(exact: CoaddPsf, outlines: Sequence[F64], target: Box, *, degree: int = 2) -> tuple[PsfPart, ...]:
    """Return what each input of a coadd's PSF gives to it, on the coadd's own pixels.

    Parameters
    ----------
    outlines : sequence of ndarray, shape (k, 2)
        (y, x) on the coadd's pixels of the corners of what each input reaches, convex.
    degree
        Of the polynomial through the PSF of one input.
    """
    parts = []
    for item, outline in zip(exact.inputs, outlines, strict=True):
        low, high = np.floor(outline.min(axis=0)), np.ceil(outline.max(axis=0)) + 1
        own = Box(*(int(v) for v in (*low, *high))).intersect(target)
        if not own.is_empty:
            parts.append(PsfPart(_fitted(CoaddPsf((item,), exact.half), own, degree), outline, item.weight))
    return tuple(parts)


def width_ratios(psf: Psf, parts: Sequence[PsfPart], box: Box) -> F64:
    """Return how wide a PSF is beside that of the parts, (n,), on a grid over `box` without what no part reaches.

    Widths are square roots of the noise-equivalent area.
    """
    ys, xs = (np.linspace(a, b, 2 * _RATIOS + 1)[1::2] for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
    places = [(float(y), float(x)) for y in ys for x in xs]
    there = [(place, kernel) for place in places if (kernel := psf_of_parts(parts, *place)) is not None]
    return np.array([np.sqrt(np.sum(kernel**2) * psf.effective_area(*place)) for place, kernel in there])


def _fitted(exact: CoaddPsf, target: Box, degree: int) -> Psf:
    inputs = exact.inputs
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
