"""The PSF of a weighted sum of warped images, as a function of position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.psf_warp import fit_kernel_field, local_matrix, warp_kernel
from apstream.arrays.types import F64
from apstream.arrays.warp import PixelMap
from apstream.model.geometry import Box
from apstream.model.psf import Psf

__all__ = ["PsfInput", "combined_psf"]

#: Kernels are evaluated on so many positions along each side.
_GRID = 5


@dataclass(frozen=True, slots=True, eq=False)
class PsfInput:
    """One image of the sum: its PSF, the map of target pixels to its own, its box and its weight."""

    psf: Psf
    pixel_map: PixelMap
    box: Box
    weight: float


def combined_psf(inputs: Sequence[PsfInput], target: Box, *, degree: int = 2) -> Psf:
    """Return the PSF on `target` of the weighted mean of warped images.

    Each input's kernel is seen through the local linear part of its map; where several inputs cover a
    position their kernels are averaged with their weights. Positions that no input covers are left out.
    """
    half = max(_half(item, target) for item in inputs)
    ys, xs = (np.linspace(a, b - 1, _GRID) for a, b in ((target.y0, target.y1), (target.x0, target.x1)))
    grid_y, grid_x = (a.ravel() for a in np.meshgrid(ys, xs, indexing="ij"))
    found = [_at(inputs, y, x, half) for y, x in zip(grid_y, grid_x, strict=True)]
    covered = np.array([kernel is not None for kernel in found])
    kernels = [kernel for kernel in found if kernel is not None]
    if not kernels:  # a corner is touched between the positions: any kernel nearby will do
        anywhere = [PsfInput(i.psf, i.pixel_map, target.grow(10**9), i.weight) for i in inputs]
        middle = _at(anywhere, *target.center, half)
        return Psf((inputs[0].psf.central() if middle is None else middle)[None], target)
    ty, tx = target.normalize(grid_y[covered], grid_x[covered])
    return Psf(fit_kernel_field(np.stack(kernels), ty, tx, degree), target)


def _at(inputs: Sequence[PsfInput], y: float, x: float, half: int) -> F64 | None:
    total, weight = np.zeros((2 * half + 1, 2 * half + 1)), 0.0
    for item in inputs:
        sy, sx = item.pixel_map(np.array([y]), np.array([x]))
        if not bool(item.box.contains(sy, sx)[0]):
            continue
        matrix = local_matrix(item.pixel_map, y, x)
        total += item.weight * warp_kernel(item.psf.at(float(sy[0]), float(sx[0])), matrix, half)
        weight += item.weight
    return total / weight if weight > 0 else None


def _half(item: PsfInput, target: Box) -> int:
    # a kernel keeps its extent on the sky
    matrix = local_matrix(item.pixel_map, *target.center)
    scale = np.sqrt(abs(np.linalg.det(matrix))) if np.isfinite(matrix).all() else 1.0
    return int(np.ceil((max(item.psf.shape) // 2) / max(scale, 0.1)))
