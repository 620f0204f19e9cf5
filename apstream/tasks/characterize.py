"""Characterize: from an exposure to its sky, its stars and its PSF."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.kernel_shape import gaussian_match, kernels_over_field
from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.psf import kernel_at
from apstream.arrays.psf_model import moffat_kernel
from apstream.arrays.types import Records
from apstream.model.exposures import Background, CharacterizedExposure, Exposure
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.cosmic_rays import CosmicRayConfig, repair_cosmic_rays
from apstream.tasks.model_psf import PsfConfig, model_psf, used_stars
from apstream.tasks.psf_stars import StarConfig, choose_stars, detect_sources, guess_seeing
from apstream.tasks.star_list import Marks, list_stars
from apstream.tasks.streaks import StreakConfig, mask_streaks
from apstream.tasks.working_image import BackgroundConfig, WorkingImage, begin, measure_sky

__all__ = [
    "BackgroundConfig",
    "CharacterizeConfig",
    "CosmicRayConfig",
    "PsfConfig",
    "StarConfig",
    "StreakConfig",
    "characterize",
]


class CharacterizeConfig(BaseModel):
    """Settings of `characterize`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    background: BackgroundConfig = Field(BackgroundConfig(), description="the sky")
    cosmic_rays: CosmicRayConfig | None = Field(CosmicRayConfig(), description="cosmic rays; null: none are sought")
    stars: StarConfig = Field(StarConfig(), description="detection and the choice of stars")
    psf: PsfConfig = Field(PsfConfig(), description="the PSF model")
    aperture_fwhm: float = Field(3.0, gt=0, description="radius of the aperture that defines the zero point, FWHM")
    streaks: StreakConfig | None = Field(None, description="trails, flagged STREAK; null: none are sought")
    iterations: int = Field(1, ge=1, description="rounds of sky, stars and PSF after the first guess")


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
    state = begin(exposure.image, config.background)
    minor = guess_seeing(state, config.stars)
    # Trailed stars are sharp across the trail, and the PSF varies: test against one sharper than all of them.
    repair_cosmic_rays(state, moffat_kernel(max(0.8 * minor, 1.0), 8)[None], config.cosmic_rays)
    stars = config.stars
    for _ in range(config.iterations):
        measure_sky(state, config.background)
        shapes = detect_sources(state, state.fwhm, n_sigma=stars.detect_sigma, limit=stars.max_sources)
        chosen, locus = choose_stars(state, shapes, stars, least=config.psf.min_stars, most=config.psf.max_stars)
        solution = model_psf(state, shapes, chosen, config.psf)
        state.fwhm = gaussian_match(solution.basis[0])[0] * FWHM_PER_SIGMA
        repair_cosmic_rays(state, kernels_over_field(solution.basis), config.cosmic_rays)
    psf = Psf(solution.basis, exposure.box)
    marks = Marks(fwhm=state.fwhm, on_locus=locus, shaped_psf=used_stars(chosen, solution))
    pixels = MaskedImage.make(state.image, state.mask, state.variance, exposure.image.unit)
    rows, correction = list_stars(pixels, shapes, psf, marks=marks, aperture_fwhm=config.aperture_fwhm)
    if config.streaks is not None:
        state.mask, _ = mask_streaks(state.image, state.variance, state.mask, state.covered, config.streaks)
    return _finish(exposure, state, psf, rows, correction)


def _finish(
    exposure: Exposure, state: WorkingImage, psf: Psf, stars: Records, correction: float
) -> CharacterizedExposure:
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
