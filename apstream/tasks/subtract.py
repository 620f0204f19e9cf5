"""Subtract a template: PSF matching (Alard & Lupton), difference, whitening, noise that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays import convolve as cv
from apstream.arrays import kernel_fit as kf
from apstream.arrays import noise as ns
from apstream.arrays import whiten as wh
from apstream.arrays.types import F32, F64, BoolArray, IntArray
from apstream.model.exposures import (
    CalExp,
    CharacterizedExposure,
    DifferenceImage,
    MatchingKernel,
    Template,
)
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.psf import Psf
from apstream.tasks.match_psf import MatchConfig, MatchPair, match_psf

__all__ = ["SubtractConfig", "WhitenConfig", "subtract"]

_UNUSABLE = planes("BAD", "SAT", "NO_DATA", "CR", "STREAK")
_HOLES = planes("BAD", "NO_DATA")
_DETECTIONS = planes("DETECTED", "DETECTED_NEGATIVE")
_TEMPLATE_KEEPS = planes("HIGH_VARIANCE", "CLIPPED", "REJECTED", "SENSOR_EDGE", "INEXACT_PSF", "INJECTED")
_TEMPLATE_SUSPECT = planes("INTRP", "CR", "STREAK", "CROSSTALK", "SUSPECT")


#: Half-size of the PSF of the difference, pixels, at most.
_PSF_HALF = 20


class WhitenConfig(BaseModel):
    """How the noise of the difference is made white."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: int = Field(6, ge=1, description="the whitening kernel is computed at the centres of cells x cells")
    degree: int = Field(2, ge=0, le=4, description="spatial degree of the kernel between these")
    half_pixels: int = Field(12, ge=3, le=40, description="kernel half-size, pixels")
    limit: float = Field(10.0, gt=1, description="largest amplification of any frequency")


class SubtractConfig(BaseModel):
    """Settings of the subtraction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: MatchConfig = Field(default_factory=MatchConfig, description="direction and matching kernel")
    whiten: WhitenConfig | None = Field(default_factory=WhitenConfig, description="None leaves the noise correlated")
    rescale_variance: bool = Field(True, description="scale the variance to the noise measured in blank sky")
    mismatch_limit: float = Field(
        0.02,
        ge=0,
        le=1,
        description="largest matching error added to the variance, as a fraction of the template flux",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """Difference and matched template on the science flux scale, before whitening.

    variance is what white noise will have; background what was subtracted beside the template; blank says
    which pixels are good and show only sky.
    """

    difference: F32
    template: F32
    variance: F32
    background: F64
    blank: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class _Final:
    difference: F32
    variance: F32
    psf: Psf
    metrics: dict[str, float]


def subtract(science: CalExp | CharacterizedExposure, template: Template, config: SubtractConfig) -> DifferenceImage:
    """Subtract a PSF-matched template from a science image.

    Parameters
    ----------
    science
        Background-subtracted, with its stars and PSF.
    template
        On the same pixel box.
    config
        Settings.

    Returns
    -------
    DifferenceImage
        In the unit and on the flux scale of the science image; pixels without data are 0 and flagged.

    Raises
    ------
    WrongSize
        If the boxes differ.
    NoGoodPixels
        If no pixel is good in both images.
    TooFewStars
        If too few stars are left for the kernel.
    SubtractionFailed
        If the kernel does not match the images.

    Notes
    -----
    Alard & Lupton 1998, Alard 2000; whitening as in DMTN-021 but varying over the image.
    """
    match = match_psf(science, template, config.match)
    pair, fit, terms = match.pair, match.fit, match.terms
    matched = _match(pair, terms, fit.background, config)
    final = _whitened(science, pair, matched, terms, config)
    final = _calibrated_noise(final, matched, match.stars, config)
    mask = _mask(science, template, cv.footprint(terms[0]), pair)
    final.difference[(mask & planes("NO_DATA")) != 0] = 0
    return DifferenceImage(
        image=MaskedImage.make(final.difference, mask, final.variance, science.image.unit, science.box),
        info=science.info,
        psf=final.psf,
        wcs=science.wcs,
        kernel=MatchingKernel(match.basis, fit.coefficients, matched.background, science.box),
        matched_template=matched.template,
        convolved=pair.convolved,
        metrics={**_fit_metrics(fit, terms, pair), **final.metrics},
    )


def _match(pair: MatchPair, terms: F64, background: F64, config: SubtractConfig) -> _Matched:
    """Convolve and difference; the result is on the flux scale of the science image."""
    convolved = cv.convolve_varying(pair.moving, terms)
    level = cv.polynomial_image(background, pair.shape)
    blurred = cv.blur_variance(pair.moving_variance, terms)
    ratio = cv.sum_image(terms, pair.shape)
    variance = blurred
    variance *= np.square(ratio) if config.whiten else cv.squared_sum(terms, pair.shape)
    white = [np.float32(np.sum(r)) for r in pair.noise] if config.whiten else [np.float32(1)] * 2
    variance *= white[1]
    variance += pair.target_variance * white[0]
    if pair.convolved == "template":
        matched, difference = convolved, pair.target - convolved
        difference -= level
    else:
        matched = (pair.target - level) / ratio
        difference = convolved / ratio
        difference -= matched
        variance /= np.square(ratio)
    blank = ns.blank_sky(matched, variance, pair.bad)
    flat = ns.residual_background(difference, blank, degree=config.match.background_degree)
    difference -= cv.polynomial_image(flat, pair.shape)
    total = _total_background(background, flat, pair, terms)
    return _Matched(difference, matched, variance, total, blank)


def _total_background(background: F64, flat: F64, pair: MatchPair, terms: F64) -> F64:
    """Return the differential background, science minus matched template, on the science flux scale."""
    sign = 1.0 if pair.convolved == "template" else -1.0 / float(np.sum(terms[0]))
    total = sign * background
    total[: len(flat)] += flat
    return total


def _whitening(pair: MatchPair, matched: _Matched, terms: F64, config: WhitenConfig) -> F64:
    """Return the whitening kernel as polynomial terms."""
    y, x = wh.grid_positions(pair.shape, config.cells)
    s1 = wh.local_medians(pair.target_variance, matched.blank, config.cells)
    s2 = wh.local_medians(pair.moving_variance, matched.blank, config.cells)
    if not (np.isfinite(s1).all() and np.isfinite(s2).all()):
        sides = pair.target_variance, pair.moving_variance
        s1, s2 = (np.full(y.size, float(np.median(v))) for v in sides)
    kernels = wh.whitening_kernels(
        cv.kernel_at(terms, y, x, pair.shape),
        s1,
        s2,
        half=config.half_pixels,
        limit=config.limit,
        noise=pair.noise,
    )
    return wh.fit_kernel_terms(kernels, y, x, pair.shape, _fit_degree(config.degree, config.cells))


def _fit_degree(degree: int, cells: int) -> int:
    return min(degree, cells - 1)


def _whitened(
    science: CalExp | CharacterizedExposure,
    pair: MatchPair,
    matched: _Matched,
    terms: F64,
    config: SubtractConfig,
) -> _Final:
    """Whiten the difference, and give it its PSF."""
    cells = config.whiten.cells if config.whiten else 4
    y, x = wh.grid_positions(pair.shape, cells)
    psfs = np.stack([science.psf.at(y_ + science.box.y0, x_ + science.box.x0) for y_, x_ in zip(y, x, strict=True)])
    if pair.convolved == "science":
        kernels = cv.kernel_at(terms, y, x, pair.shape)
        psfs = cv.convolve_stack(psfs, kernels / kernels.sum(axis=(1, 2), keepdims=True))
    difference = cv.fill_masked(matched.difference, pair.bad)
    if config.whiten:
        whitening = _whitening(pair, matched, terms, config.whiten)
        difference = cv.convolve_varying(difference, whitening)
        psfs = cv.convolve_stack(psfs, cv.kernel_at(whitening, y, x, pair.shape))
    psfs = wh.crop_kernels(psfs, min(psfs.shape[1] // 2, _PSF_HALF))
    degree = _fit_degree(max(science.psf.degree, 2), cells)
    basis = wh.fit_kernel_terms(psfs / psfs.sum(axis=(1, 2), keepdims=True), y, x, pair.shape, degree)
    return _Final(difference, matched.variance, Psf(basis, science.box), {})


def _calibrated_noise(
    final: _Final,
    matched: _Matched,
    stars: tuple[IntArray, IntArray],
    config: SubtractConfig,
) -> _Final:
    """Scale the variance to the noise found in blank sky, and add the matching error at bright sources."""
    psf = final.psf.central()
    noise = ns.noise_scale(final.difference, final.variance, matched.blank, psf)
    scale = noise.flux if config.rescale_variance and np.isfinite(noise.flux) else 1.0
    variance = final.variance * np.float32(scale)
    planes_ = final.difference, variance, matched.template
    fraction = ns.mismatch_fraction(planes_, stars, psf, limit=config.mismatch_limit)
    if fraction > 0:
        variance += np.square(np.float32(fraction) * matched.template)
    metrics = {
        "subtract.variance_scale": scale,
        "subtract.pixel_variance_ratio": noise.pixel,
        "subtract.noise_correlation": noise.correlation,
        "subtract.mismatch_fraction": fraction,
    }
    return replace(final, variance=variance, metrics=metrics)


def _mask(science: CalExp | CharacterizedExposure, template: Template, kernel: BoolArray, pair: MatchPair) -> IntArray:
    """Combine the masks; flags of the convolved image spread over the heavy part of the kernel."""
    ours = science.image.mask & ~_DETECTIONS
    theirs = _template_bits(template.image)
    if pair.convolved == "template":
        mask = ours | cv.dilate_bits(theirs, ~0, kernel)
    else:
        mask = cv.dilate_bits(ours, ~planes("INTRP"), kernel) | theirs
    # Light of what lies just outside enters the science image but not the convolved template.
    halo = int(np.ceil(pair.fwhm[0]))
    top, left = (side // 2 + halo for side in kernel.shape)
    edge = np.ones(mask.shape, bool)
    edge[top : mask.shape[0] - top, left : mask.shape[1] - left] = False
    mask[edge] |= planes("EDGE")
    return np.asarray(mask, np.int32)


def _template_bits(template: MaskedImage) -> IntArray:
    """Return the mask of the template in the planes of a difference image."""
    bits = np.array(template.mask & (_TEMPLATE_KEEPS | _HOLES), np.int32)
    bits[template.flagged(planes("SAT"))] |= planes("SAT_TEMPLATE")
    bits[template.flagged(_TEMPLATE_SUSPECT)] |= planes("SUSPECT")
    bits[~(np.isfinite(template.image) & (template.variance > 0))] |= planes("NO_DATA")
    return bits


def _fit_metrics(fit: kf.KernelFit, terms: F64, pair: MatchPair) -> dict[str, float]:
    y, x = wh.grid_positions(pair.shape, 6)
    sums = cv.kernel_at(terms, y, x, pair.shape).sum(axis=(1, 2))
    amplitude = fit.amplitude[fit.used]
    return {
        "subtract.n_stamps": float(len(fit.used)),
        "subtract.n_stamps_used": float(fit.used.sum()),
        "subtract.spatial_degree": float(fit.degree),
        "subtract.kernel_sum": float(np.median(sums)),
        "subtract.kernel_sum_scatter": float(1.4826 * np.median(np.abs(amplitude - np.median(amplitude)))),
        "subtract.stamp_chi2": float(np.median(fit.chi2[fit.used])),
        "subtract.residual_ratio": fit.residual_ratio(),
        "subtract.template_convolved": float(pair.convolved == "template"),
    }
