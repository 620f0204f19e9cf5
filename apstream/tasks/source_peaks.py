"""Peaks of point sources by the matched filter, and the sky that is left once sources are masked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.background import remaining_mesh, subtract_mesh
from apstream.arrays.deblend import neighbour_lists
from apstream.arrays.detect import empty_width, separable_filters, significance, tile_centers
from apstream.arrays.masks import clear_of, dilate
from apstream.arrays.peaks import find_peaks
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import kernel_at
from apstream.arrays.regions import Regions, find_regions, prominent, refine_peaks, regions_around
from apstream.arrays.types import F32, F64, BoolArray, IntArray
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf

__all__ = ["Peaks", "Pixels", "find_source_peaks", "subtract_remaining_sky"]

_TILE = 512
_PROMINENCE = 4.0
_SPOILED = int(MaskPlane.BAD | MaskPlane.NO_DATA)
_NEAR_SATURATED_PX = 2


@dataclass(slots=True)
class Pixels:
    """An image in which sources are sought; array coordinates."""

    image: F32  # finite, less the sky known so far
    variance: F32  # NaN where a pixel must not be used for measurement
    given: F32  # the variance as it came, of saturated pixels too
    mask: IntArray
    psf: Psf  # on the box (0, 0, ny, nx)
    fwhm: float


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks above the threshold, most significant first; arrays of one length.

    `parent` counts the footprints from 1, `crowded` tells of footprints with more peaks than were kept.
    """

    row: IntArray
    col: IntArray
    y: F64
    x: F64
    snr: F64
    flux: F64
    parent: IntArray
    crowded: BoolArray
    covered: BoolArray  # image of the pixels of sources, DETECTED
    regions: Regions
    noise: float  # of the significance, one where the variance is right


def find_source_peaks(pixels: Pixels, *, n_sigma: float, max_peaks: int, mask_sigma: float) -> Peaks:
    """Detect sources; thresholds are in units of the noise that the empty sky shows."""
    usable = clear_of(pixels.mask, _SPOILED)
    snr, area = _significance(pixels, usable)
    noise = _noise(snr)
    limit = n_sigma * noise
    radius = max(1, round(0.5 * pixels.fwhm))
    row, col = find_peaks(snr, np.full((1, 1), limit, np.float32), cell=max(snr.shape), radius=radius)
    # Bumps of noise stay in the sky: without them it would be too low.
    sources = regions_around(snr, mask_sigma * noise, row, col)
    keep = prominent(
        snr, row, col, *neighbour_lists(row.astype(float), col.astype(float), 4 * pixels.fwhm),
        least=_PROMINENCE * noise,
    )  # fmt: skip
    keep &= _one_per_saturated(pixels.mask, row, col, snr)
    row, col = row[keep], col[keep]
    regions = find_regions(snr, limit)
    parent, crowded, few = _families(regions, row, col, max_peaks)
    row, col = row[few], col[few]
    y, x = refine_peaks(snr, row, col)
    height = snr[row, col].astype(float)
    flux = height * np.sqrt(np.maximum(np.nan_to_num(pixels.given[row, col], posinf=0), 0) * area)
    covered = dilate(sources, round(pixels.fwhm))
    return Peaks(row, col, y, x, height / noise, flux, parent[few], crowded[few], covered, regions, noise)


def _noise(snr: F32) -> float:
    """Return the noise of the significance; where no sky is empty, from what lies below it, as no source does."""
    step = max(4, int(np.sqrt(snr.size / 2e5)))
    below = snr[::step, ::step]
    below = below[below < 0]
    widths = [empty_width(snr), 1.482602 * float(np.median(-below)) if below.size > 100 else np.nan]
    known = [width for width in widths if np.isfinite(width)]
    return float(np.clip(min(known), 0.5, 2.0)) if known else 1.0


def _significance(pixels: Pixels, usable: BoolArray) -> tuple[F32, float]:
    ty, tx = pixels.psf.box.normalize(*tile_centers(usable.shape, _TILE))
    psfs = np.einsum("ts,tij->sij", poly_terms(ty, tx, pixels.psf.degree), pixels.psf.basis)
    filters = separable_filters(psfs, half=max(2, round(1.6 * pixels.fwhm)), tile=_TILE, power=0.99)
    central = kernel_at(pixels.psf.basis, np.eye(len(pixels.psf.basis))[0])
    return significance(pixels.image, pixels.given, usable, filters), float(1 / np.sum(central**2))


def _one_per_saturated(mask: IntArray, row: IntArray, col: IntArray, snr: F32) -> BoolArray:
    """Keep, of the peaks on or beside one patch of saturated pixels, the most significant."""
    saturated = ~clear_of(mask, int(MaskPlane.SAT))
    if not saturated.any():
        return np.ones(len(row), bool)
    patch = find_regions(dilate(saturated, _NEAR_SATURATED_PX).view(np.uint8), 0.5).at(row, col)
    keep = patch == 0
    on = np.flatnonzero(~keep)
    keep[on[np.unique(patch[on], return_index=True)[1]]] = True
    return np.asarray(keep)


def _families(regions: Regions, row: IntArray, col: IntArray, most: int) -> tuple[IntArray, BoolArray, BoolArray]:
    """Return footprint, whether it holds too many peaks, and which peaks are among its brightest `most`."""
    label = regions.at(row, col)
    _, parent, counts = np.unique(label, return_inverse=True, return_counts=True)
    order = np.argsort(parent, kind="stable")  # brightest first within each
    rank = np.empty(len(row), np.int64)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else np.zeros(0, np.int64)
    rank[order] = np.arange(len(row)) - first[parent[order]]
    return parent + 1, counts[parent] > most, rank < most


def subtract_remaining_sky(pixels: Pixels, covered: BoolArray, *, cell: int) -> F32:
    """Subtract what is left of the sky, sources masked; return the correction at the centres of the cells."""
    mesh = remaining_mesh(pixels.image, covered, pixels.variance, cell=cell)
    subtract_mesh(pixels.image, mesh, cell=cell)
    return mesh
