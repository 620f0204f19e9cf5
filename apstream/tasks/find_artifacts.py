"""Artifact rejection between epochs: what is there in one or two exposures only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.artifacts import ExcessLimits, SeparableKernel, find_excess, max_epochs, separable
from apstream.arrays.coadd import ClipLimits, clip_outliers, masked_median
from apstream.arrays.halved import halved_kernel, halved_noise
from apstream.arrays.psf_match import broadened, half_maximum_width, matching_kernel, round_profile
from apstream.arrays.psf_warp import local_matrix, warp_kernel
from apstream.arrays.types import F32, F64, BoolArray
from apstream.model.geometry import Box
from apstream.model.psf import Psf
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warped_input import WarpedInput

__all__ = ["ArtifactConfig", "ArtifactSearch", "find_artifacts", "prepare_search"]

#: Power below which a spatial frequency of an input is not amplified when it is matched.
_FLOOR = 1e-5
#: Kernels hold so many FWHM of the common PSF on either side of their middle.
_KERNEL_HALF = 2.5
#: Peaks of stars differ so many times as much as those of the PSFs: pixel phases, PSF models.
_SEEING_MARGIN = 1.2
#: Error of a kernel as a sum of products, of its peak: far less than what matched exposures may differ by.
_SEPARABLE = 0.005
#: Smoothed to this FWHM, pixels, every second pixel tells all.
_FINE_FWHM = 4.0


class ArtifactConfig(BaseModel):
    """What is left out of a coadd because other epochs do not show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nsigma: float = Field(
        5.0, gt=0, description="Excess over the static sky, after smoothing to one PSF, standard errors; both signs."
    )
    fraction: float = Field(
        0.05, ge=0, description="Fraction of the local brightness that matched exposures may differ by."
    )
    low_nsigma: float = Field(1.5, gt=0, description="Down to this an artifact takes its surroundings along.")
    grow_pixels: int = Field(6, ge=0, le=50, description="How far.")
    rim_pixels: int = Field(2, ge=0, le=20, description="All within this of an artifact go with it, pixels.")
    epoch_fraction: float = Field(
        0.4, ge=0, lt=1, description="What shows in more than this fraction of the exposures is real."
    )
    epoch_offset: float = Field(2.0, ge=0, description="Of many exposures, what shows in more than this is real;")
    epoch_slope: float = Field(0.03, ge=0, lt=1, description="this much is added for each exposure.")
    widening: float = Field(1.25, ge=1, le=3, description="FWHM of the common PSF over the widest exposure's.")
    default_fwhm_pixels: float = Field(4.0, gt=0, description="FWHM to smooth with where no PSF is known, pixels.")
    pixel_nsigma: float = Field(
        5.0, gt=0, description="Single pixels farther from the median are artifacts, standard errors."
    )
    pixel_fraction: float = Field(
        0.3, ge=0, description="Fraction of the local brightness by which pixels may differ more than their PSFs do."
    )
    unknown_fraction: float = Field(0.8, ge=0, description="Both fractions where no PSF is known.")
    pixel_reach: int = Field(4, ge=0, le=50, description="About the FWHM of a star, pixels.")
    pixel_grow: int = Field(3, ge=0, le=50, description="How far an outlying pixel takes its rim along, pixels.")


@dataclass(frozen=True, slots=True, eq=False)
class ArtifactSearch:
    """What the search needs to know of all inputs: the same for every part of a coadd.

    Parameters
    ----------
    kernels, noise
        What gives each input, at the resolution of the search, the common PSF, and what that makes of its variance.
    fractions : ndarray, shape (n,)
        Fraction of the local brightness that single pixels of each input may differ by.
    """

    excess: ExcessLimits
    pixel: ClipLimits
    kernels: tuple[SeparableKernel, ...]
    noise: F64
    fractions: F64

    @property
    def margin(self) -> int:
        """Pixels around a part that its artifacts depend on."""
        half = self.excess.step * max((k.half + self.excess.step - 1 for k in self.kernels), default=0)
        wide = max(self.excess.margin + half, self.pixel.margin)
        return wide + wide % 2  # parts begin on a searched pixel


def prepare_search(inputs: Sequence[WarpedInput], target: Box, config: ArtifactConfig) -> ArtifactSearch:
    """Find the common PSF of the inputs of a coadd on `target`, and the kernels that lead to it."""
    own = [None if item.psf is None else _psf_on(item.psf, target) for item in inputs]
    known = [kernel for kernel in own if kernel is not None]
    if known and len(known) == len(own):
        fraction, fwhm = config.fraction, config.widening * max(map(half_maximum_width, known))
        step = 2 if fwhm >= _FINE_FWHM else 1
        matching = _matching([halved_kernel(kernel) for kernel in known] if step == 2 else known, fwhm / step)
        peaks = np.array([kernel.max() for kernel in known])
        fractions = config.pixel_fraction + _SEEING_MARGIN * np.abs(peaks / np.median(peaks) - 1)
    else:
        fraction, fwhm = config.unknown_fraction, config.default_fwhm_pixels
        step = 2 if fwhm >= _FINE_FWHM else 1
        half = int(np.ceil(_KERNEL_HALF * fwhm / step))
        matching = [Psf.gaussian(fwhm / step, target, half).central()] * len(own)
        fractions = np.full(len(own), config.unknown_fraction)
    kernels = tuple(separable(kernel, tolerance=_SEPARABLE) for kernel in matching)
    share = np.array([item.noise_share for item in inputs])
    made = np.array([halved_noise(k.kernel) if step == 2 else k.noise for k in kernels])
    noise = 1 / (1 / made + 1 / share - 1)
    return ArtifactSearch(
        _excess_limits(fwhm, step, fraction, config), _pixel_limits(config), kernels, noise / share, fractions
    )


def _matching(own: list[F64], fwhm: float) -> list[F64]:
    """Return the kernels that make of each PSF the profile of the widest, broadened to `fwhm`."""
    widest = max(own, key=half_maximum_width)
    half = int(np.ceil(_KERNEL_HALF * fwhm))
    common = broadened(round_profile(widest, 1.0, max(2 * half, own[0].shape[0] // 2)), fwhm)
    return [matching_kernel(kernel, common, half, floor=_FLOOR) for kernel in own]


def _psf_on(item: PsfInput, target: Box) -> F64:
    """Return the PSF of an input as it is in the middle of the part of `target` that it covers."""
    y, x = target.center
    sy, sx = (float(v[0]) for v in item.pixel_map(np.array([y]), np.array([x])))
    matrix = local_matrix(item.pixel_map, y, x)
    if not (np.isfinite(matrix).all() and np.isfinite([sy, sx]).all()):
        return item.psf.central()
    place = (np.clip(sy, item.box.y0, item.box.y1 - 1), np.clip(sx, item.box.x0, item.box.x1 - 1))
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    return warp_kernel(item.psf.at(*place), matrix, int(np.ceil(max(item.psf.shape) / (2 * scale))))


def find_artifacts(
    images: Sequence[F32],
    variances: Sequence[F32],
    good: BoolArray,
    search: ArtifactSearch,
    here: Sequence[int],
    saturated: BoolArray | None = None,
) -> BoolArray:
    """Tell which good pixels are artifacts.

    Two searches are united: one after smoothing to a common PSF, for what is as wide as a star or wider,
    however faint (asteroids, trails, ghosts), one for single pixels (cosmic rays).

    Parameters
    ----------
    images, variances : n ndarrays, shape (ny, nx)
        Values on one flux scale, and the variance that single pixels scatter with.
    good : ndarray, shape (n, ny, nx)
        Which pixels count.
    here
        Which inputs of the search these are.
    saturated : ndarray, shape (ny, nx)
        Stars that are saturated in most inputs; what is wide is not sought near them.
    """
    kernels, noise = [search.kernels[k] for k in here], search.noise[list(here)]
    median = masked_median(images, good)
    out = find_excess(images, variances, good, (kernels, noise), search.excess, median, saturated)
    allowed = max_epochs(np.arange(len(here) + 1), search.excess)
    clip_outliers(images, variances, good, search.pixel, (allowed, search.fractions[list(here)]), median, out)
    return out


def _excess_limits(fwhm: float, step: int, fraction: float, config: ArtifactConfig) -> ExcessLimits:
    return ExcessLimits(
        nsigma=config.nsigma,
        fraction=fraction,
        reach=int(np.ceil(fwhm / 2)),
        step=step,
        counted_nsigma=0.5 * config.nsigma,
        low_nsigma=config.low_nsigma,
        grow=config.grow_pixels,
        rim=config.rim_pixels,
        slope=config.epoch_fraction,
        offset=config.epoch_offset,
        offset_slope=config.epoch_slope,
    )


def _pixel_limits(config: ArtifactConfig) -> ClipLimits:
    return ClipLimits(
        nsigma=config.pixel_nsigma,
        reach=config.pixel_reach,
        grow=config.pixel_grow,
    )
