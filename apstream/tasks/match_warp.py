"""PSF matching of warps: every input of a coadd is convolved to one common, known PSF."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays import convolve as cv
from apstream.arrays.psf_match import broadened, half_maximum_width, matching_kernel, round_profile
from apstream.arrays.psf_warp import fit_kernel_field, local_matrix, warp_kernel
from apstream.arrays.types import F32, F64, BoolArray
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.psf_field import PsfInput

__all__ = ["MatchWarpConfig", "kernel_half", "match_warp", "matching_terms", "target_kernel", "widest_fwhm"]

#: Kernels are computed on so many positions along each side of a part.
_NODES = 3
#: Half-size of a kernel at least, in sigma of the Gaussian between two Gaussians.
_KERNEL_SIGMAS = 3.5


class MatchWarpConfig(BaseModel):
    """How warps get a common PSF."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_fwhm_arcsec: float | None = Field(
        None, gt=0, description="Width of the common PSF; null takes that of the widest input, times the margin."
    )
    margin: float = Field(1.05, ge=1, le=2, description="So much wider than the widest input the target is.")
    max_width: float = Field(
        1.5, ge=1, description="Inputs wider than so many times the median width are left out, if no width is set."
    )
    kernel_half_fwhm: float = Field(
        1.05, ge=0.5, le=5, description="Least half-size of the kernels, target FWHM; more lets noise of the PSFs in."
    )
    degree: int = Field(2, ge=0, le=2, description="Degree of the kernel's variation within a sub-region.")
    floor: float = Field(1e-5, gt=0, lt=0.1, description="Power below which a spatial frequency is not amplified.")


def widest_fwhm(psf: Psf) -> float:
    """Return the largest FWHM of a PSF, in pixels, over 3 x 3 positions of its box."""
    ys, xs = ((a, (a + b - 1) / 2, b - 1) for a, b in ((psf.box.y0, psf.box.y1), (psf.box.x0, psf.box.x1)))
    return max(psf.fwhm(y, x) for y in ys for x in xs)


def target_kernel(kernel: F64, fwhm: float, *, scale: float) -> F64:
    """Make the common PSF: the round profile of an input, broadened by a Gaussian.

    So it has the wings that the atmosphere gives, and no input has to lose its own.

    Parameters
    ----------
    kernel : ndarray, shape (h, w)
        PSF of the widest input, on its own pixels.
    fwhm
        Width of the result, pixels of the coadd.
    scale
        One pixel of the coadd in pixels of the input.

    Returns
    -------
    ndarray, odd sides
        Round, summing to one.
    """
    half = int(np.ceil(max(max(kernel.shape) / (2 * scale), 3.5 * fwhm)))
    return broadened(round_profile(kernel, scale, half), fwhm)


def matching_terms(item: PsfInput, target: F64, box: Box, half: int, config: MatchWarpConfig) -> F64:
    """Return the kernel that takes the PSF of a warped input to the target, as a function of position.

    Parameters
    ----------
    item
        PSF and map of the input; beyond its border the PSF of the nearest pixel counts.
    target : ndarray, odd sides
        The common PSF on the coadd's pixels.
    box
        Part of the coadd, best no larger than where the input has pixels.
    half
        Half-size of the kernel, see `kernel_half`.

    Returns
    -------
    ndarray, shape (n_terms, h, w)
        As `convolve_varying` takes it for an image on `box`; a single term that is one pixel where the map
        leads nowhere.
    """
    nodes = (np.linspace(0, n - 1, _NODES) for n in box.shape)
    y, x = (a.ravel() for a in np.meshgrid(*nodes, indexing="ij"))
    places = zip(y + box.y0, x + box.x0, strict=True)
    found = [_kernel_at(item, target, place, half, config) for place in places]
    here = np.array([kernel is not None for kernel in found])
    kernels = [kernel for kernel in found if kernel is not None]
    if not kernels:
        return np.ones((1, 1, 1))
    where = cv.frame_coordinates(y[here], x[here], box.shape)
    return fit_kernel_field(np.stack(kernels), *where, config.degree)


def _kernel_at(
    item: PsfInput, target: F64, at: tuple[float, float], half: int, config: MatchWarpConfig
) -> F64 | None:
    y, x = at
    sy, sx = (float(v[0]) for v in item.pixel_map(np.array([y]), np.array([x])))
    matrix = local_matrix(item.pixel_map, y, x)
    if not (np.isfinite(matrix).all() and np.isfinite([sy, sx]).all()):
        return None
    place = (np.clip(sy, item.box.y0, item.box.y1 - 1), np.clip(sx, item.box.x0, item.box.x1 - 1))
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    source = warp_kernel(item.psf.at(*place), matrix, int(np.ceil(max(item.psf.shape) / (2 * scale))))
    return matching_kernel(source, target, half, floor=config.floor)


def kernel_half(item: PsfInput, target: F64, box: Box, config: MatchWarpConfig) -> int:
    """Return the half-size of an input's kernels, pixels: as compact as the two widths allow.

    Farther out a quotient of measured PSFs holds the noise of their wings, and little else.
    """
    goal, matrix = half_maximum_width(target), local_matrix(item.pixel_map, *box.center)
    scale = float(np.sqrt(abs(np.linalg.det(matrix)))) if np.isfinite(matrix).all() else 1.0
    sigma = np.sqrt(max(goal**2 - (item.psf.fwhm() / scale) ** 2, 0.0)) / 2.3548
    return int(np.ceil(max(config.kernel_half_fwhm * goal, _KERNEL_SIGMAS * sigma)))


def match_warp(warped: MaskedImage, terms: F64) -> MaskedImage:
    """Convolve a warped image with its matching kernel.

    Parameters
    ----------
    warped
        NaN with NO_DATA where there is nothing.
    terms : ndarray, shape (n_terms, h, w)
        See `matching_terms`.

    Returns
    -------
    MaskedImage
        NaN with NO_DATA where `warped` was; every plane has grown by the heavy part of the kernel, and there
        is EDGE as far around missing pixels. The variance is, as that of a warp, right for anything
        as wide as a star: the level that uncorrelated noise would have, of which single pixels show the
        share sum(K^2).
    """
    holes = warped.flagged(int(MaskPlane.NO_DATA)) | ~np.isfinite(warped.image) | ~(warped.variance > 0)
    if holes.all():
        return warped
    image = cv.convolve_varying(cv.fill_masked(warped.image, holes), terms)
    variance = cv.blur_variance(_filled(warped.variance, holes), terms)
    bits = np.where(holes, warped.mask | int(MaskPlane.EDGE), warped.mask) & ~int(MaskPlane.NO_DATA)
    mask = cv.dilate_bits(bits, ~0, cv.footprint(terms[0]))
    image[holes] = variance[holes] = np.nan
    mask[holes] = warped.mask[holes] | int(MaskPlane.NO_DATA)
    return MaskedImage.make(image, mask, variance, warped.unit, warped.box)


def _filled(variance: F32, holes: BoolArray) -> F32:
    return np.where(holes, np.float32(np.median(variance[~holes])), variance)
