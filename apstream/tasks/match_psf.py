"""Match the PSFs of science and template: which image to convolve, the stars, the varying kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays import convolve as cv
from apstream.arrays import kernel as kn
from apstream.arrays import kernel_fit as kf
from apstream.arrays import noise as ns
from apstream.arrays.star_stamps import Stamps, clean_positions, cut_stamps, spread_evenly
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records
from apstream.errors import NoGoodPixels, SubtractionFailed, TooFewStars, WrongSize
from apstream.model.exposures import CalExp, CharacterizedExposure, Template
from apstream.model.image import MaskedImage
from apstream.model.mask import planes
from apstream.model.psf import Psf

__all__ = ["DeltaBasis", "GaussianBasis", "Match", "MatchConfig", "MatchPair", "StampConfig", "match_psf"]

_UNUSABLE = planes("BAD", "SAT", "NO_DATA", "CR", "STREAK")
_HOLES = planes("BAD", "NO_DATA")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GaussianBasis(_Frozen):
    """Gaussians times polynomials (Alard & Lupton 1998)."""

    kind: Literal["gaussian"] = "gaussian"
    sigmas_pixels: tuple[float, ...] | None = Field(
        None, description="widths of the Gaussians, pixels; None chooses four from the two PSFs"
    )
    degrees: tuple[int, ...] = Field((2, 4, 3, 2), description="degree of the polynomial on each Gaussian")
    half_pixels: int | None = Field(None, ge=2, le=40, description="kernel half-size, pixels; None: 3.5 widest sigmas")


class DeltaBasis(_Frozen):
    """One free value per kernel pixel, smoothed (Bramich 2008, Becker et al. 2012)."""

    kind: Literal["delta"] = "delta"
    half_pixels: int = Field(5, ge=2, le=12, description="kernel half-size, pixels")
    smoothing: float = Field(1e-3, ge=0, description="weight of the roughness penalty relative to the data")


class StampConfig(_Frozen):
    """Which stars the kernel is fitted to."""

    cells: int = Field(20, ge=1, description="the image is cut in cells x cells; stars are taken evenly from them")
    per_cell: int = Field(3, ge=1, description="most stars of one cell")
    max_stars: int = Field(600, ge=5, description="most stars in all")
    min_stars: int = Field(4, ge=1, description="fewer good stars than this are an error")
    min_snr: float = Field(20.0, gt=0, description="least signal-to-noise ratio of the PSF flux")
    half_pixels: int | None = Field(None, ge=5, le=40, description="stamp half-size, pixels; None: from the PSF")


class MatchConfig(_Frozen):
    """Settings of the PSF matching."""

    kernel: Annotated[GaussianBasis | DeltaBasis, Field(discriminator="kind")] = Field(
        default_factory=GaussianBasis, description="basis of the matching kernel"
    )
    convolve: Literal["auto", "template", "science"] = Field(
        "auto", description="which image is convolved; auto: the one with the sharper PSF"
    )
    spatial_degree: int | None = Field(None, ge=0, le=4, description="of the kernel; None: by cross-validation")
    vary_kernel_sum: bool = Field(False, description="let the photometric ratio vary over the image")
    background_degree: int = Field(2, ge=0, le=4, description="spatial degree of the differential background")
    stamps: StampConfig = Field(default_factory=StampConfig, description="choice of stars")
    max_residual: float = Field(
        0.3, gt=0, description="fail if the residual of a typical star exceeds this fraction of its flux"
    )


@dataclass(frozen=True, slots=True, eq=False)
class MatchPair:
    """The two images, ready to match: finite pixels, `bad` where either may not be used.

    noise holds the autocorrelations of the noise of target and moving, per unit of variance: the science
    image is taken as white, the template, which is resampled, is measured.
    """

    target: F32
    moving: F32
    target_variance: F32
    moving_variance: F32
    bad: BoolArray
    convolved: Literal["template", "science"]
    fwhm: tuple[float, float]  # target, moving
    noise: tuple[F64, F64]

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.target.shape[0], self.target.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The pair with its fitted kernel; `terms` (n_spatial, h, w) is the kernel, `stars` pixels (y, x)."""

    pair: MatchPair
    basis: F64
    fit: kf.KernelFit
    terms: F64
    stars: tuple[IntArray, IntArray]


def match_psf(science: CalExp | CharacterizedExposure, template: Template, config: MatchConfig) -> Match:
    """Fit the spatially varying kernel that matches science and template (Alard & Lupton 1998, Alard 2000).

    Raises
    ------
    WrongSize, NoGoodPixels, TooFewStars, SubtractionFailed
        See `apstream.tasks.subtract.subtract`.
    """
    pair = _prepare(science, template, config)
    basis = _basis(config.kernel, pair.fwhm)
    stamps = _stamps(science, pair, basis.half, config.stamps)
    fit = _fit(pair, stamps, basis, config)
    return Match(pair, basis.functions, fit, kn.collapse(basis.functions, fit.coefficients), (stamps.y, stamps.x))


def _prepare(science: CalExp | CharacterizedExposure, template: Template, config: MatchConfig) -> MatchPair:
    """Decide the direction, collect what may not be used, and fill it."""
    if science.box != template.box:
        raise WrongSize(
            f"science {science.box} and template {template.box} lie on different pixels",
            remedy="warp the template to the science grid first",
        )
    direction = _direction(science.psf, template.psf, config)
    sides = (science, template) if direction == "template" else (template, science)
    bad = np.zeros(science.box.shape, bool)
    for side in sides:
        bad |= side.image.flagged(_UNUSABLE) | ~np.isfinite(side.image.image)
        bad |= ~(side.image.variance > 0) | ~np.isfinite(side.image.variance)
    if bad.all():
        raise NoGoodPixels("no pixel is good in both science and template", remedy="check masks and overlap")
    planes_ = [_filled(side.image) for side in sides]
    warped = planes_[1] if direction == "template" else planes_[0]
    measured = ns.autocorrelation(*warped, ns.blank_sky(*warped, bad))
    white = np.zeros_like(measured)
    white[measured.shape[0] // 2, measured.shape[1] // 2] = 1
    return MatchPair(
        target=planes_[0][0],
        moving=planes_[1][0],
        target_variance=planes_[0][1],
        moving_variance=planes_[1][1],
        bad=bad,
        convolved=direction,
        fwhm=(sides[0].psf.fwhm(), sides[1].psf.fwhm()),
        noise=(white, measured) if direction == "template" else (measured, white),
    )


def _direction(science: Psf, template: Psf, config: MatchConfig) -> Literal["template", "science"]:
    if config.convolve != "auto":
        return config.convolve
    return "template" if template.fwhm() <= 1.02 * science.fwhm() else "science"


def _filled(image: MaskedImage) -> tuple[F32, F32]:
    """Return pixels and variance with holes filled; saturated pixels stay, they are real light."""
    good = np.isfinite(image.variance) & (image.variance > 0)
    typical = float(np.median(image.variance[::8, ::8][good[::8, ::8]])) if good[::8, ::8].any() else 1.0
    variance = np.where(good, image.variance, np.float32(typical))
    return cv.fill_masked(image.image, image.flagged(_HOLES)), variance


def _basis(config: GaussianBasis | DeltaBasis, fwhm: tuple[float, float]) -> kn.KernelBasis:
    if isinstance(config, DeltaBasis):
        return kn.delta_basis(config.half_pixels)
    sigmas = config.sigmas_pixels or kn.matching_sigmas(*fwhm)
    half = config.half_pixels or int(np.clip(np.ceil(3.5 * max(sigmas)), 7, 22))
    return kn.gaussian_basis(sigmas, config.degrees[: len(sigmas)], half)


def _penalty(config: GaussianBasis | DeltaBasis, basis: kn.KernelBasis, normals: kf.Normals) -> F64 | None:
    """Return the prior on the coefficients; the roughness is scaled to the weight of the data."""
    if isinstance(config, GaussianBasis):
        return None
    rough: F64 = kn.roughness(basis.functions)
    data = float(np.sum(normals.light / normals.noise.sum(axis=0)))
    return np.asarray(rough * (config.smoothing * data * len(rough) / np.trace(rough)))


def _stamps(science: CalExp | CharacterizedExposure, pair: MatchPair, margin: int, config: StampConfig) -> Stamps:
    """Cut stamps around good stars, or around any isolated source if there are too few stars."""
    half = config.half_pixels or int(np.clip(np.ceil(4.5 * max(pair.fwhm)), 12, 24))
    counts = []
    for usable in (_good_stars(science.stars, config, True), _good_stars(science.stars, config, False)):
        y = np.rint(science.stars["y"][usable] - science.box.y0).astype(int)
        x = np.rint(science.stars["x"][usable] - science.box.x0).astype(int)
        clean = clean_positions(pair.bad, y, x, reach=half + margin, core=max(2, int(max(pair.fwhm))))
        y, x, flux = y[clean], x[clean], science.stars["flux"][usable][clean]
        chosen = spread_evenly((y, x), flux, pair.shape, cells=config.cells, per_cell=config.per_cell)
        y, x = y[chosen[: config.max_stars]], x[chosen[: config.max_stars]]
        counts.append(len(y))
        if len(y) >= config.min_stars:
            images = pair.target, pair.moving
            variances = pair.target_variance, pair.moving_variance
            return cut_stamps(images, variances, pair.bad, y, x, size=(half, margin))
    raise TooFewStars(
        f"{len(science.stars)} sources, but only {counts[0]} stars and {counts[1]} isolated sources are "
        f"usable for PSF matching; {config.min_stars} are needed",
        remedy="lower stamps.min_snr or stamps.min_stars, or check masks and template overlap",
    )


def _good_stars(stars: Records, config: StampConfig, only_stars: bool) -> BoolArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        bright = stars["flux"] / stars["flux_err"] > config.min_snr
    good = bright & ~stars["saturated"] & ~stars["blended"] & ~stars["flagged"]
    return np.asarray(good & stars["is_star"] if only_stars else good)


def _fit(pair: MatchPair, stamps: Stamps, basis: kn.KernelBasis, config: MatchConfig) -> kf.KernelFit:
    """Fit the kernel; raises if it does not match."""
    ratio = stamps.flux_ratio()
    if not (np.isfinite(ratio) and ratio > 0):
        raise SubtractionFailed(
            f"flux ratio of science and template is {ratio:.3g}", remedy="check that both show the same sky"
        )
    normals = kf.stamp_normals(stamps.scaled(ratio), basis, pair.noise[1])
    ty, tx = cv.frame_coordinates(stamps.y, stamps.x, pair.shape)
    fit = kf.fit_kernel(
        normals,
        ty,
        tx,
        degree=config.spatial_degree,
        background_degree=config.background_degree,
        penalty=_penalty(config.kernel, basis, normals),
        vary_sum=config.vary_kernel_sum,
    )
    residual = fit.residual_ratio()
    if fit.used.sum() < config.stamps.min_stars or fit.coefficients[0, 0] <= 0 or residual > config.max_residual:
        raise SubtractionFailed(
            f"the matching kernel does not fit: {fit.used.sum()} of {len(stamps)} stars used, typical "
            f"residual {100 * residual:.1f} % of a star's flux",
            remedy="check the registration of the template, and that both show the same sky",
        )
    return replace(fit, coefficients=fit.coefficients * ratio)
