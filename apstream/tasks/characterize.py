"""Characterize: from an exposure to its sky, its stars and its PSF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.background import evaluate_mesh, measure_mesh
from apstream.arrays.cosmic import find_cosmic_rays, repair, sharpness_limits, spare_stars
from apstream.arrays.masks import dilate, split_usable, subtract_sky
from apstream.arrays.moments import FWHM_PER_SIGMA, adaptive_moments
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.psf import kernel_at
from apstream.arrays.psf_model import PsfSolution, fit_psf, moffat_kernel
from apstream.arrays.sources import (
    Shapes,
    Sky,
    detect,
    flags_near,
    source_mask,
)
from apstream.arrays.stars import contamination, stellar_locus, stellar_size
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray, Records
from apstream.errors import NoGoodPixels, TooFewStars
from apstream.model.exposures import Background, CharacterizedExposure, Exposure
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.star_list import FLAGGED, Marks, list_stars

__all__ = [
    "BackgroundConfig",
    "CharacterizeConfig",
    "CosmicRayConfig",
    "PsfConfig",
    "StarConfig",
    "characterize",
]

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_UNUSABLE = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA)
_SPOILED_PX = 4


class BackgroundConfig(BaseModel):
    """The sky."""

    model_config = _FROZEN

    cell_px: int = Field(128, ge=8, description="side of a cell of the mesh, pixels")
    smooth_cells: int = Field(3, ge=1, description="side of the median filter over the mesh, cells")
    source_sigma: float = Field(3.0, gt=0, description="sources above this many sigma are masked")
    grow_fwhm: float = Field(1.5, ge=0, description="how far masked sources are grown, FWHM")


class CosmicRayConfig(BaseModel):
    """Cosmic rays."""

    model_config = _FROZEN

    n_sigma: float = Field(6.0, gt=0, description="least height of a ray's first pixel, sigma")
    grow_sigma: float = Field(2.5, gt=0, description="least height of pixels next to it, sigma")
    margin: float = Field(1.1, ge=1, description="a ray is sharper than a PSF narrower by this factor")
    iterations: int = Field(8, ge=0, description="rounds of growth, one pixel each")


class StarConfig(BaseModel):
    """Detection and the choice of stars."""

    model_config = _FROZEN

    detect_sigma: float = Field(5.0, gt=0, description="detection threshold, sigma of the smoothed sky")
    fwhm_guess_px: float = Field(4.0, gt=1, description="width of the first smoothing, pixels")
    min_fwhm_px: float = Field(1.2, gt=0, description="narrower sources are never stars, pixels")
    min_snr: float = Field(50.0, gt=0, description="least S/N of a star that shapes the PSF; halved twice if few")
    max_contamination: float = Field(0.02, gt=0, description="most light of neighbours on an isolated star, fraction")
    max_sources: int = Field(40000, ge=10, description="most sources measured, the brightest")
    locus_width: float = Field(0.2, gt=0, description="first half-width of the stellar locus in log size")


class PsfConfig(BaseModel):
    """The PSF model."""

    model_config = _FROZEN

    degree: int = Field(2, ge=0, le=4, description="highest degree of the variation over the field")
    half_size_fwhm: float = Field(3.5, gt=1, description="half side of the kernel, FWHM")
    max_half_px: int = Field(32, ge=5, description="largest half side of the kernel, pixels")
    iterations: int = Field(4, ge=1, description="corrections of the model")
    max_stars: int = Field(400, ge=3, description="most stars used, the brightest")
    min_stars: int = Field(3, ge=1, description="with fewer stars the image is unfit")


class CharacterizeConfig(BaseModel):
    """Settings of `characterize`."""

    model_config = _FROZEN

    background: BackgroundConfig = Field(BackgroundConfig(), description="the sky")
    cosmic_rays: CosmicRayConfig | None = Field(CosmicRayConfig(), description="cosmic rays; null: none are sought")
    stars: StarConfig = Field(StarConfig(), description="detection and the choice of stars")
    psf: PsfConfig = Field(PsfConfig(), description="the PSF model")
    aperture_fwhm: float = Field(3.0, gt=0, description="radius of the aperture that defines the zero point, FWHM")
    iterations: int = Field(1, ge=1, description="rounds of sky, stars and PSF after the first guess")


@dataclass(slots=True)
class _State:
    """What is known so far; array coordinates throughout."""

    data: F32  # as given, finite, rays repaired
    variance: F32  # NaN where a pixel must not be used
    bad: BoolArray
    mask: IntArray
    mesh: F32
    sky: Sky
    image: F32  # data less sky
    covered: BoolArray | None = None
    fwhm: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.data.shape[1]


def characterize(exposure: Exposure, config: CharacterizeConfig | None = None) -> CharacterizedExposure:
    """Subtract the sky, mask and repair cosmic rays, find the stars and model the PSF.

    Parameters
    ----------
    exposure
        Any image with variance and mask: post-ISR, external, or a coadd. Pixels that are NaN, flagged BAD, SAT or
        NO_DATA, or without positive finite variance are not used.
    config
        `cosmic_rays=None` for coadds.

    Returns
    -------
    CharacterizedExposure
        NaN pixels are replaced by zero (the sky) and flagged NO_DATA; pixels hit by cosmic rays are flagged CR and
        INTRP and interpolated; DETECTED is set on sources.

    Raises
    ------
    NoGoodPixels
        If hardly a pixel can be used, or the image has no noise at all.
    TooFewStars
        If fewer than `psf.min_stars` stars can shape the PSF.
    """
    config = config or CharacterizeConfig()
    state = _begin(exposure.image, config)
    _first_guess(state, config)
    for _ in range(config.iterations):
        _measure_sky(state, config)
        shapes = _detect(state, config, state.fwhm, config.stars.detect_sigma)
        chosen, locus = _choose(state, shapes, config)
        solution = _fit(state, shapes, chosen, config)
        state.fwhm = _moments_of(solution.basis[0])[0] * FWHM_PER_SIGMA
        _cosmic_rays(state, _psf_samples(solution.basis), config)
    psf = Psf(solution.basis, exposure.box)
    marks = Marks(fwhm=state.fwhm, on_locus=locus, shaped_psf=_used(chosen, solution))
    pixels = MaskedImage.make(state.image, state.mask, state.variance, exposure.image.unit)
    stars, correction = list_stars(pixels, shapes, psf, marks=marks, aperture_fwhm=config.aperture_fwhm)
    return _finish(exposure, state, psf, stars, correction)


def _begin(image: MaskedImage, config: CharacterizeConfig) -> _State:
    """Check the pixels and take the first look at the sky."""
    data, variance, bad, mask = split_usable(
        image.image, image.variance, image.mask, bits=_UNUSABLE, no_data=int(MaskPlane.NO_DATA)
    )
    _require_pixels(image, bad)
    mesh, rms = measure_mesh(data, bad, cell=config.background.cell_px, smooth=config.background.smooth_cells)
    if not np.any(rms > 0):
        raise NoGoodPixels("the image has no noise: its pixels are all alike", remedy="check that the shutter opened")
    cell = min(config.background.cell_px, *data.shape)
    state = _State(data, variance, bad, mask, mesh, Sky(rms, cell), data)
    _subtract_sky(state)
    return state


def _require_pixels(image: MaskedImage, bad: BoolArray) -> None:
    if np.count_nonzero(~bad) >= max(400, 0.005 * bad.size):
        return
    counts = {
        "NaN": int(np.count_nonzero(~np.isfinite(image.image))),
        "saturated": int(np.count_nonzero(image.flagged(MaskPlane.SAT))),
        "without data": int(np.count_nonzero(image.flagged(MaskPlane.NO_DATA))),
        "bad": int(np.count_nonzero(image.flagged(MaskPlane.BAD))),
    }
    worst = max(counts, key=lambda name: counts[name])
    cause = f"mostly {worst}" if counts[worst] else "no variance"
    raise NoGoodPixels(
        f"{np.count_nonzero(~bad)} of {bad.size} pixels can be used ({cause})",
        remedy="check exposure, saturation level and mask of the image",
    )


def _subtract_sky(state: _State) -> None:
    state.image = evaluate_mesh(state.mesh, cell=state.sky.cell, shape=state.shape)
    subtract_sky(state.data, state.image, state.bad, state.mask, int(MaskPlane.SAT))


def _first_guess(state: _State, config: CharacterizeConfig) -> None:
    """Find the seeing from bright sources, and take out the rays that no such seeing makes."""
    shapes = _detect(state, config, config.stars.fwhm_guess_px, 2 * config.stars.detect_sigma, limit=3000)
    trusted = _trusted(state, shapes, config, radius=2.0)
    size = stellar_size(np.where(trusted, shapes.sigma, np.nan), shapes.snr)
    if not np.isfinite(size):
        raise _too_few(0, len(shapes), config)
    state.fwhm = size * FWHM_PER_SIGMA
    near = trusted & (np.abs(shapes.sigma - size) < 0.15 * size)
    minor = float(np.median(shapes.minor[near])) * FWHM_PER_SIGMA if near.any() else state.fwhm
    # Trailed stars are sharp across the trail, and the PSF varies: test against one sharper than all of them.
    _cosmic_rays(state, moffat_kernel(max(0.8 * minor, 1.0), 8)[None], config)


def _detect(
    state: _State, config: CharacterizeConfig, fwhm: float, n_sigma: float, *, limit: int | None = None
) -> Shapes:
    most = config.stars.max_sources if limit is None else limit
    return detect(state.image, state.bad, state.sky, fwhm=fwhm, n_sigma=n_sigma, limit=most)


def _measure_sky(state: _State, config: CharacterizeConfig) -> None:
    """Measure the sky again, sources masked."""
    settings = config.background
    grow = round(settings.grow_fwhm * state.fwhm)
    state.covered = source_mask(state.image, state.sky, fwhm=state.fwhm, n_sigma=settings.source_sigma, grow=grow)
    state.mesh, rms = measure_mesh(
        state.data, state.bad | state.covered, cell=settings.cell_px, smooth=settings.smooth_cells
    )
    state.sky = Sky(rms, state.sky.cell)
    _subtract_sky(state)


def _cosmic_rays(state: _State, kernels: FloatArray, config: CharacterizeConfig) -> None:
    """Find rays sharper than all of `kernels`, flag and repair them."""
    if config.cosmic_rays is None:
        return
    c = config.cosmic_rays
    # Bleed trails end as sharply as rays do; what lies beside saturated pixels cannot be judged.
    spoiled = state.bad | dilate((state.mask & MaskPlane.SAT) != 0, _SPOILED_PX)
    hit = find_cosmic_rays(
        state.image,
        state.variance,
        spoiled,
        sharpness_limits(kernels, margin=c.margin),
        n_sigma=c.n_sigma,
        grow_sigma=c.grow_sigma,
        iterations=c.iterations,
    )
    middle = _moments_of(kernels.mean(axis=0))
    rows, cols = spare_stars(state.image, hit, minor=middle[1], axis_ratio=middle[2])
    if not len(rows):
        return
    fixed = repair(state.image, rows, cols, state.bad, sigma=max(state.fwhm / FWHM_PER_SIGMA, 0.7))
    state.data[rows, cols] += fixed - state.image[rows, cols]
    state.image[rows, cols] = fixed
    state.mask[rows, cols] |= int(MaskPlane.CR | MaskPlane.INTRP)


def _trusted(state: _State, shapes: Shapes, config: CharacterizeConfig, *, radius: float) -> BoolArray:
    """Tell which sources are neither flagged nor saturated nor sharper or longer than any star."""
    flags = flags_near(state.mask, y=shapes.y, x=shapes.x, radius=radius)
    narrow = config.stars.min_fwhm_px / FWHM_PER_SIGMA
    chosen: BoolArray = (
        np.isfinite(shapes.sigma)
        & (shapes.minor > narrow)
        & (shapes.ellipticity < 0.7)
        & ((flags & (FLAGGED | int(MaskPlane.SAT))) == 0)
    )
    return chosen


def _choose(state: _State, shapes: Shapes, config: CharacterizeConfig) -> tuple[BoolArray, BoolArray]:
    """Return the stars that shape the PSF, and all sources on the stellar locus."""
    trusted = _trusted(state, shapes, config, radius=max(1.5, state.fwhm))
    lonely = contamination(shapes.y, shapes.x, shapes.flux, radius=5 * state.fwhm, scale=state.fwhm)
    ty, tx = _normalised(state, shapes.y, shapes.x)
    snr_limit, crowding = config.stars.min_snr, config.stars.max_contamination
    wanted = 4 * config.psf.min_stars
    for _ in range(4):
        usable = trusted & (shapes.snr > snr_limit) & (lonely < crowding)
        locus, expected = stellar_locus(
            np.where(usable, shapes.sigma, np.nan), shapes.snr, ty=ty, tx=tx, width=config.stars.locus_width
        )
        if locus.sum() >= wanted:
            break
        snr_limit, crowding = max(snr_limit / 2, 10.0), min(2.5 * crowding, 0.3)
    if locus.sum() < config.psf.min_stars:
        raise _too_few(int(locus.sum()), len(shapes), config)
    with np.errstate(invalid="ignore"):
        offset = np.abs(np.log(shapes.sigma / expected))
        on_locus = np.isfinite(shapes.sigma) & (offset < np.hypot(0.08, 2 / np.maximum(shapes.snr, 1)))
    return _brightest(locus, shapes.snr, config.psf.max_stars), on_locus


def _brightest(chosen: BoolArray, snr: FloatArray, most: int) -> BoolArray:
    order = np.flatnonzero(chosen)[np.argsort(-snr[chosen], kind="stable")][:most]
    out = np.zeros(len(chosen), bool)
    out[order] = True
    return out


def _too_few(found: int, sources: int, config: CharacterizeConfig) -> TooFewStars:
    return TooFewStars(
        f"{found} stars for the PSF among {sources} sources; at least {config.psf.min_stars} are needed",
        remedy="check focus, clouds and saturation, or lower stars.detect_sigma, stars.min_snr or psf.min_stars",
    )


def _normalised(state: _State, y: F64, x: F64) -> tuple[F64, F64]:
    ny, nx = state.shape
    return (y - (ny - 1) / 2) / max(ny / 2, 1), (x - (nx - 1) / 2) / max(nx / 2, 1)


def _fit(state: _State, shapes: Shapes, chosen: BoolArray, config: CharacterizeConfig) -> PsfSolution:
    half = min(int(np.ceil(config.psf.half_size_fwhm * state.fwhm)), config.psf.max_half_px)
    half = min(half, (min(state.shape) - 1) // 2)
    return fit_psf(
        state.image,
        state.variance,
        shapes,
        chosen,
        half=half,
        degree=config.psf.degree,
        iterations=config.psf.iterations,
    )


def _used(chosen: BoolArray, solution: PsfSolution) -> BoolArray:
    """Return True for the sources that shaped the PSF in the end."""
    used = np.zeros(len(chosen), bool)
    used[np.flatnonzero(chosen)[solution.used]] = True
    return used


def _psf_samples(basis: F64) -> F64:
    """Return the PSF on a 3 x 3 grid over the field."""
    places = np.linspace(-0.8, 0.8, 3)
    ty, tx = (grid.ravel() for grid in np.meshgrid(places, places, indexing="ij"))
    return np.asarray(np.einsum("ts,tij->sij", poly_terms(ty, tx, degree_of(len(basis))), basis))


def _moments_of(kernel: F64) -> tuple[float, float, float]:
    """Return sigma, lesser axis and axis ratio of the Gaussian that matches `kernel`, pixels.

    Where the moments fail, as they do below two pixels FWHM, the effective area gives the size.
    """
    half = np.array([float(kernel.shape[0] // 2)])
    none = np.zeros(kernel.shape, bool)
    m = adaptive_moments(np.asarray(kernel, np.float32), none, y=half, x=half, sigma=kernel.shape[0] / 15)[0]
    if not np.isfinite(m["yy"]):
        sigma = float(1 / np.sqrt(4 * np.pi * np.sum(kernel**2)))
        return sigma, sigma, 1.0
    trace, spread = m["yy"] + m["xx"], np.hypot(m["yy"] - m["xx"], 2 * m["xy"])
    low, high = np.sqrt((trace - spread) / 2), np.sqrt((trace + spread) / 2)
    return float(np.sqrt(low * high)), float(low), float(low / high)


def _finish(exposure: Exposure, state: _State, psf: Psf, stars: Records, correction: float) -> CharacterizedExposure:
    """Put the product together, positions absolute."""
    box = exposure.box
    stars = stars[np.isfinite(stars["flux"])]
    stars["y"] += box.y0
    stars["x"] += box.x0
    mask = state.mask
    if state.covered is not None:
        mask[state.covered] |= int(MaskPlane.DETECTED)
    image = MaskedImage.make(state.image, mask, exposure.image.variance, exposure.image.unit, box)
    kernel = kernel_at(psf.basis, np.eye(len(psf.basis))[0])
    metrics = {
        "characterize.fwhm_pixel": psf.fwhm(),
        "characterize.psf_area_pixel": float(1 / np.sum(kernel**2)),
        "characterize.n_sources": float(len(stars)),
        "characterize.n_stars": float(np.count_nonzero(stars["is_star"])),
        "characterize.n_psf_stars": float(np.count_nonzero(stars["psf_used"])),
        "characterize.psf_degree": float(psf.degree),
        "characterize.sky": float(np.median(state.mesh)),
        "characterize.sky_rms": float(np.median(state.sky.rms)),
        "characterize.aperture_correction": correction,
        "characterize.n_cosmic_ray_pixels": float(np.count_nonzero(mask & int(MaskPlane.CR))),
        "characterize.bad_fraction": float(state.bad.mean()),
    }
    return CharacterizedExposure(
        image=image,
        info=exposure.info,
        wcs=exposure.wcs,
        psf=psf,
        background=Background(state.mesh, state.sky.rms, box, state.sky.cell),
        stars=stars,
        aperture_correction=correction,
        metrics={**exposure.metrics, **metrics},
    )
