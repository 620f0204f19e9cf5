"""Characterize: from an exposure to its sky, its stars and its PSF."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from apstream.arrays.kernel_shape import gaussian_match, kernels_over_field
from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.psf import kernel_at
from apstream.arrays.psf_model import moffat_kernel
from apstream.arrays.sources import Shapes
from apstream.arrays.types import BoolArray
from apstream.model.exposures import Background, CharacterizedExposure, Exposure
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.psf import Psf
from apstream.tasks.cosmic_rays import CosmicRayConfig, repair_cosmic_rays
from apstream.tasks.measure_list import MeasureListConfig
from apstream.tasks.measure_stars import measure_stars
from apstream.tasks.model_psf import PsfConfig, model_psf, used_stars
from apstream.tasks.psf_source import PsfSource, check_gaussian, given_psf
from apstream.tasks.psf_stars import StarChoice, StarConfig, choose_stars, detect_sources, guess_seeing
from apstream.tasks.star_list import Marks, StarList, list_stars
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
    psf_source: PsfSource = Field("measured", description="measured, supplied with the image, or gaussian")
    gaussian_fwhm_arcsec: float | None = Field(None, gt=0, description="width for psf_source=gaussian; needs a WCS")
    gaussian_fwhm_pixel: float | None = Field(None, gt=0, description="the same without a WCS")
    aperture_fwhm: float = Field(3.0, gt=0, description="radius of the aperture of the aperture correction, FWHM")
    streaks: StreakConfig | None = Field(
        StreakConfig(), description="trails of satellites, flagged STREAK; null: none are sought"
    )
    measure: MeasureListConfig = Field(
        MeasureListConfig(), description="what is measured of the sources beside the star list; nothing"
    )
    iterations: int = Field(3, ge=1, description="most rounds of sky, stars, PSF and cosmic rays")
    fwhm_tolerance: float = Field(0.02, gt=0, description="converged if the FWHM changes less in a round, relative")
    sky_tolerance: float = Field(0.1, gt=0, description="converged if the sky changes less in a round, sigma")

    @model_validator(mode="after")
    def _widths(self) -> CharacterizeConfig:
        check_gaussian(self.psf_source, self.gaussian_fwhm_arcsec, self.gaussian_fwhm_pixel)
        return self


@dataclass(frozen=True, slots=True, eq=False)
class _Round:
    """What a round of characterization found."""

    shapes: Shapes
    choice: StarChoice
    psf: Psf
    used: BoolArray


def characterize(exposure: Exposure, config: CharacterizeConfig | None = None) -> CharacterizedExposure:
    """Subtract the sky, mask and repair cosmic rays, find the stars and model the PSF.

    The rounds end when neither the FWHM nor the sky changes by more than its tolerance, or after
    `iterations`; the metrics say which.

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
        If the PSF is to be measured and fewer than `psf.min_stars` stars can shape it.
    MissingPsf
        If it is to be supplied and did not come with the exposure.
    BadSettings
        If a Gaussian is given in arcsec and the image has no WCS.
    """
    config = config or CharacterizeConfig()
    widths = {"arcsec": config.gaussian_fwhm_arcsec, "pixel": config.gaussian_fwhm_pixel}
    given = given_psf(exposure, config.psf_source, **widths)
    state = begin(exposure.image, config.background)
    _first_guess(state, given, config)
    found, course = _iterate(state, exposure, given, config)
    marks = Marks(state.fwhm, found.choice.on_locus, shaped_psf=found.used, reserved=found.choice.reserved)
    pixels = MaskedImage.make(state.image, state.mask, state.variance, exposure.image.unit)
    local = Psf(found.psf.basis, pixels.box)
    listed = list_stars(pixels, found.shapes, local, marks=marks, aperture_fwhm=config.aperture_fwhm)
    finite = np.isfinite(listed.stars["flux"])
    listed = replace(listed, stars=listed.stars[finite])
    measured = measure_stars(pixels, local, listed.stars, config.measure)
    done = _finish(exposure, state, found, listed, {**course, "psf_measured": float(given is None)})
    return replace(done, measured=measured)


def _first_guess(state: WorkingImage, given: Psf | None, config: CharacterizeConfig) -> None:
    """Find the seeing, and take out the rays that no such seeing makes."""
    if given is not None:
        state.fwhm = gaussian_match(given.central())[0] * FWHM_PER_SIGMA
        repair_cosmic_rays(state, kernels_over_field(given.basis), config.cosmic_rays)
        return
    minor = guess_seeing(state, config.stars)
    # Trailed stars are sharp across the trail, and the PSF varies: test against one sharper than all of them.
    repair_cosmic_rays(state, moffat_kernel(max(0.8 * minor, 1.0), 8)[None], config.cosmic_rays)


def _iterate(
    state: WorkingImage, exposure: Exposure, given: Psf | None, config: CharacterizeConfig
) -> tuple[_Round, dict[str, float]]:
    """Repeat rounds until nothing changes much; return the last one and how it went.

    Trails are sought after the first one; where there are some, stars are chosen once more, without those on them.
    """
    rounds, converged, streaks = 0, False, 0
    while not converged and rounds < config.iterations:
        before = state.fwhm, float(np.median(state.mesh))
        found = _round(state, exposure, given, config)
        fwhm, sky = _changes(state, before)
        rounds, converged = rounds + 1, fwhm < config.fwhm_tolerance and sky < config.sky_tolerance
        if rounds == 1 and config.streaks is not None:
            streaks = _mask_streaks(state, config.streaks)
            converged &= not streaks
    course = {"rounds": rounds, "converged": float(converged), "fwhm_change": fwhm, "sky_change": sky}
    return found, {**course, "n_streaks": streaks}


def _mask_streaks(state: WorkingImage, config: StreakConfig) -> int:
    """Flag trails in place; return their number."""
    state.mask, streaks = mask_streaks(state.image, state.variance, state.mask, state.covered, config)
    return len(streaks)


def _round(state: WorkingImage, exposure: Exposure, given: Psf | None, config: CharacterizeConfig) -> _Round:
    """Measure the sky, choose the stars, model the PSF and repair cosmic rays, with what is known by now."""
    stars, least = config.stars, 0 if given is not None else config.psf.min_stars
    measure_sky(state, config.background)
    shapes = detect_sources(state, state.fwhm, n_sigma=stars.detect_sigma, limit=stars.max_sources)
    choice = choose_stars(state, shapes, stars, least=least, most=config.psf.max_stars)
    if given is not None:
        choice = choice.as_judges()
        repair_cosmic_rays(state, kernels_over_field(given.basis), config.cosmic_rays)
        return _Round(shapes, choice, given, choice.shaping)
    solution = model_psf(state, shapes, choice.shaping, config.psf)
    state.fwhm = gaussian_match(solution.basis[0])[0] * FWHM_PER_SIGMA
    repair_cosmic_rays(state, kernels_over_field(solution.basis), config.cosmic_rays)
    return _Round(shapes, choice, Psf(solution.basis, exposure.box), used_stars(choice.shaping, solution))


def _changes(state: WorkingImage, before: tuple[float, float]) -> tuple[float, float]:
    """Return how far a round changed the FWHM (relative) and the sky (sigma)."""
    fwhm, sky = before
    moved = abs(float(np.median(state.mesh)) - sky) / max(float(np.median(state.sky.rms)), 1e-30)
    return abs(state.fwhm / fwhm - 1), moved


def _finish(
    exposure: Exposure, state: WorkingImage, found: _Round, listed: StarList, course: dict[str, float]
) -> CharacterizedExposure:
    """Put the product together, positions absolute."""
    box, stars, psf = exposure.box, listed.stars, found.psf
    stars["y"] += box.y0
    stars["x"] += box.x0
    mask = state.mask
    if state.covered is not None:
        mask[state.covered] |= int(MaskPlane.DETECTED)
    counts = {
        "n_detected": len(found.shapes),
        "n_sources": len(stars),
        "n_stars": int(np.count_nonzero(stars["is_star"])),
        "n_psf_stars": int(np.count_nonzero(stars["psf_used"])),
        **{f"refused_{name}": count for name, count in found.choice.refused.items()},
        "refused_misfit": int(np.count_nonzero(found.choice.shaping & ~found.used)),
    }
    metrics: dict[str, float] = {**_image_metrics(state, psf), **counts, **listed.metrics, **course}
    metrics["aperture_correction"] = listed.aperture_correction
    return CharacterizedExposure(
        image=MaskedImage.make(state.image, mask, exposure.image.variance, exposure.image.unit, box),
        info=exposure.info,
        wcs=exposure.wcs,
        psf=psf,
        background=Background(state.mesh, state.sky.rms, box, state.sky.cell),
        stars=stars,
        aperture_correction=listed.aperture_correction,
        metrics={**exposure.metrics, **{f"characterize.{name}": float(value) for name, value in metrics.items()}},
    )


def _image_metrics(state: WorkingImage, psf: Psf) -> dict[str, float]:
    kernel = kernel_at(psf.basis, np.eye(len(psf.basis))[0])
    return {
        "fwhm_pixel": psf.fwhm(),
        "psf_area_pixel": float(1 / np.sum(kernel**2)),
        "psf_degree": psf.degree,
        "sky": float(np.median(state.mesh)),
        "sky_rms": float(np.median(state.sky.rms)),
        "n_cosmic_ray_pixels": float(np.count_nonzero(state.mask & int(MaskPlane.CR))),
        "bad_fraction": float(state.bad.mean()),
    }
