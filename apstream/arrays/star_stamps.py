"""Stamps around stars: which stars, and their pixels in the two images of a subtraction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray

__all__ = ["Stamps", "clean_positions", "cut_stamps", "spread_evenly"]


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Pixels around stars of the image to match (`target`) and the image to convolve (`moving`).

    Parameters
    ----------
    y, x : ndarray, shape (n,)
        Central pixels, array coordinates.
    target, good : ndarray, shape (n, s, s)
        Pixels and whether they may be used.
    moving : ndarray, shape (n, s + 2 half, s + 2 half)
        Pixels, with the margin that the kernel needs.
    noise : ndarray, shape (2, n)
        Mean variance of a pixel of each image, its sources included.
    """

    y: IntArray
    x: IntArray
    target: F32
    good: BoolArray
    moving: F32
    noise: F64

    def __len__(self) -> int:
        return len(self.y)

    def select(self, keep: BoolArray) -> Stamps:
        """Return some of the stamps."""
        return Stamps(
            self.y[keep],
            self.x[keep],
            self.target[keep],
            self.good[keep],
            self.moving[keep],
            self.noise[:, keep],
        )

    def flux_ratio(self) -> float:
        """Return the median ratio of the target's to the moving image's flux, a start for the kernel sum."""
        margin = (self.moving.shape[1] - self.target.shape[1]) // 2
        inner = self.moving[:, margin:-margin, margin:-margin]
        fluxes = [_stamp_flux(np.where(self.good, v, 0)) for v in (self.target, inner)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.nanmedian(fluxes[0] / fluxes[1]))

    def scaled(self, ratio: float) -> Stamps:
        """Return the stamps with the moving pixels multiplied by `ratio`."""
        noise = self.noise * np.array([[1.0], [ratio**2]])
        return replace(self, moving=self.moving * np.float32(ratio), noise=noise)


def clean_positions(bad: BoolArray, y: IntArray, x: IntArray, *, reach: int, core: int) -> BoolArray:
    """Return which positions are `reach` away from the border and clean.

    Clean means no bad pixel within `core`, at most 10 % bad pixels within `reach`.
    """
    ny, nx = bad.shape
    clean = (y >= reach) & (y < ny - reach) & (x >= reach) & (x < nx - reach)
    for i in np.flatnonzero(clean):
        wide = bad[y[i] - reach : y[i] + reach + 1, x[i] - reach : x[i] + reach + 1]
        inner = wide[reach - core : reach + core + 1, reach - core : reach + core + 1]
        clean[i] = not inner.any() and np.count_nonzero(wide) <= 0.1 * wide.size
    return np.asarray(clean)


def spread_evenly(
    positions: tuple[IntArray, IntArray],
    flux: FloatArray,
    shape: tuple[int, int],
    *,
    cells: int,
    per_cell: int,
) -> IntArray:
    """Choose the brightest `per_cell` stars of each of cells x cells cells.

    Returns
    -------
    ndarray
        Indices: the brightest of every cell first, then the second of every cell, and so on.
    """
    cell = [np.clip(p * cells // n, 0, cells - 1) for p, n in zip(positions, shape, strict=True)]
    number = cell[0] * cells + cell[1]
    order = np.lexsort((-flux, number))
    ordered = number[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    near = rank < per_cell
    return np.asarray(order[near][np.lexsort((-flux[order[near]], rank[near]))])


def cut_stamps(
    images: tuple[F32, F32],
    variances: tuple[F32, F32],
    bad: BoolArray,
    y: IntArray,
    x: IntArray,
    *,
    size: tuple[int, int],
) -> Stamps:
    """Cut stamps out of (target, moving); `size` is the half-size of a stamp and of the kernel.

    All stamps, with the kernel's margin, must lie inside the images. NaN must be filled beforehand.
    """
    half, margin = size
    inner, outer = np.arange(-half, half + 1), np.arange(-half - margin, half + margin + 1)

    def cut(image: F32, offsets: IntArray) -> F32:
        return np.asarray(image[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets])

    good = ~bad[y[:, None, None] + inner[:, None], x[:, None, None] + inner]
    noise = np.stack([_good_mean(cut(v, inner), good) for v in variances])
    return Stamps(y, x, cut(images[0], inner), good, cut(images[1], outer), noise)


def _good_mean(values: FloatArray, good: BoolArray) -> F64:
    usable = good & np.isfinite(values)
    total = np.where(usable, values, 0).sum(axis=(1, 2), dtype=float)
    return np.asarray(total / np.maximum(usable.sum(axis=(1, 2)), 1))


def _stamp_flux(pixels: F32) -> F64:
    """Sum over a stamp above the median of its border."""
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    return np.asarray((pixels - np.median(border, axis=1)[:, None, None]).sum(axis=(1, 2), dtype=float))
