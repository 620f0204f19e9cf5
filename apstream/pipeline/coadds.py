"""Template coadds: calibrated exposures of one band become one patch of the sky, as a calexp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.types import F64
from apstream.errors import NoTemplateOverlap, TooFewStars
from apstream.model.exposures import STAR_DTYPE, CalExp, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.products import SkyCircle
from apstream.model.psf import Psf
from apstream.model.skymap import SkyMap
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs, separation
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, Coadd, assemble_coadd
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.match_warp import MatchWarpConfig, target_kernel, widest_fwhm
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warp import WarpConfig, wcs_map
from apstream.tasks.warped_input import WarpedInput, matched_input, mean_variance, warped_input

__all__ = [
    "CoaddConfig",
    "CoaddInput",
    "CoaddPatch",
    "coadd_patch",
    "common_psf",
    "covering_skymap",
    "sharp_enough",
    "sharpest",
]


class CoaddConfig(BaseModel):
    """How calexps become coadds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warp_type: Literal["psf_matched", "direct"] = Field(
        "psf_matched", description="Whether warps are convolved to one common PSF before they are combined"
    )
    match: MatchWarpConfig = Field(MatchWarpConfig(), description="The common PSF of psf-matched warps")
    assemble: AssembleCoaddConfig = Field(AssembleCoaddConfig(), description="How warps are combined")
    warp: WarpConfig = Field(WarpConfig(), description="How calexps are resampled")
    characterize: CharacterizeConfig = Field(
        CharacterizeConfig(cosmic_rays=None), description="PSF and stars of the coadd"
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoaddInput:
    """What a calexp says without its pixels, and how to read these.

    Parameters
    ----------
    read
        Returns at least the pixels of a box.
    fwhm_arcsec, widest_arcsec
        Width of its PSF in the middle, and the largest.
    weight
        1 / mean variance.
    relative
        Whether its fluxes are on the scale of an image instead of nJy.
    """

    read: Callable[[Box], MaskedImage]
    info: ExposureInfo
    psf: Psf
    wcs: SkyWcs
    box: Box
    fwhm_arcsec: float
    widest_arcsec: float
    weight: float
    relative: bool

    @classmethod
    def of(cls, calexp: CalExp, read: Callable[[Box], MaskedImage] | None = None) -> CoaddInput:
        """Note what an exposure says; its pixels are kept only if there is no way to read them again.

        Raises
        ------
        NoGoodPixels
            If no pixel has a positive variance.
        """
        scale, image = calexp.wcs.pixel_scale_arcsec, calexp.image
        return cls(
            read=read or (lambda box: image),
            info=calexp.info,
            psf=calexp.psf,
            wcs=calexp.wcs,
            box=calexp.box,
            fwhm_arcsec=calexp.psf.fwhm() * scale,
            widest_arcsec=widest_fwhm(calexp.psf) * scale,
            weight=1 / mean_variance(image),
            relative=calexp.photo_calib.relative,
        )

    @property
    def order(self) -> tuple[str, int, int]:
        """What breaks ties."""
        return self.info.id.instrument, self.info.id.visit, self.info.id.detector


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoaddPatch:
    """A patch of the sky: as a calibrated exposure, and what went into it."""

    calexp: CalExp
    coadd: Coadd


def sharpest(inputs: Sequence[CoaddInput], best: int) -> list[CoaddInput]:
    """Return the inputs with the narrowest PSFs, at most `best` of every detector and band."""
    groups: dict[tuple[str, int], list[CoaddInput]] = {}
    for item in inputs:
        groups.setdefault((item.info.band, item.info.id.detector), []).append(item)
    kept = [sorted(groups[key], key=lambda item: (item.fwhm_arcsec, item.order))[:best] for key in sorted(groups)]
    return [item for group in kept for item in group]


def sharp_enough(inputs: Sequence[CoaddInput], config: CoaddConfig) -> list[CoaddInput]:
    """Return the inputs that can be matched to the common PSF; all, if warps are not matched.

    Raises
    ------
    NoTemplateOverlap
        If all are wider than the width that was asked for.
    """
    if config.warp_type == "direct":
        return list(inputs)
    asked = config.match.target_fwhm_arcsec
    limit = asked or config.match.max_width * float(np.median([item.widest_arcsec for item in inputs]))
    kept = [item for item in inputs if item.widest_arcsec <= limit]
    if not kept:
        narrowest = min(item.widest_arcsec for item in inputs)
        raise NoTemplateOverlap(
            f"all {len(inputs)} exposures are wider than the common PSF of {limit:.2f} arcsec",
            remedy=f"set match.target_fwhm_arcsec to {narrowest:.2f} or more, or warp_type to direct",
        )
    return kept


def common_psf(inputs: Sequence[CoaddInput], pixel_scale_arcsec: float, config: CoaddConfig) -> F64 | None:
    """Return the PSF that all `inputs` can be brought to, (h, w) on the coadd's pixels; None for direct warps.

    It is the round profile of the widest, broadened to the width that was asked for, or a little.
    """
    if config.warp_type == "direct":
        return None
    widest = max(inputs, key=lambda item: (item.widest_arcsec, item.order))
    fwhm = config.match.target_fwhm_arcsec or config.match.margin * widest.widest_arcsec
    scale = pixel_scale_arcsec / widest.wcs.pixel_scale_arcsec
    return target_kernel(widest.psf.central(), fwhm / pixel_scale_arcsec, scale=scale)


def covering_skymap(inputs: Sequence[CoaddInput], *, patch_size: int, border: int) -> SkyMap:
    """Return a sky map around all inputs, with pixels of their median size."""
    ra, dec, radius = _circle_around([SkyCircle(*item.wcs.circle(item.box)) for item in inputs])
    scale = float(np.median([item.wcs.pixel_scale_arcsec for item in inputs]))
    return SkyMap.covering(ra, dec, radius, pixel_scale_arcsec=scale, patch_size=patch_size, border=border)


def coadd_patch(
    inputs: Sequence[CoaddInput], tract: Tract, patch: int, target: F64 | None, config: CoaddConfig
) -> CoaddPatch:
    """Combine the exposures that touch a patch into its coadd.

    Parameters
    ----------
    inputs
        Of one band.
    target
        What `common_psf` gave; None combines direct warps.

    Returns
    -------
    CoaddPatch
        The metrics of its calexp say how many inputs there are, whether they were matched, and how far the PSF measured
        on its stars is from the common one.

    Raises
    ------
    NoGoodPixels
        If no input has data on the patch.
    TooFewStars
        If there is neither a star nor a PSF.
    """
    box = tract.outer_box(patch)
    warps = [_warped(item, tract, box, config) for item in inputs]
    if target is not None:
        warps = [matched_input(item, target, config.match) for item in warps]
    coadd = assemble_coadd(warps, box, config.assemble)
    calexp = _as_calexp(coadd, tract, patch, inputs[0], target is not None, config)
    return CoaddPatch(calexp=calexp, coadd=coadd)


def _warped(item: CoaddInput, tract: Tract, box: Box, config: CoaddConfig) -> WarpedInput:
    source = PsfInput(item.psf, wcs_map(tract.wcs, item.wcs), item.box, item.weight)
    return warped_input(str(item.info.id), item.read, source, box=box, config=config.warp)


def _circle_around(circles: Sequence[SkyCircle]) -> tuple[float, float, float]:
    ra, dec = (np.array([getattr(c, name) for c in circles]) for name in ("ra", "dec"))
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    centre_ra, centre_dec = np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    reach = separation(np.full(len(ra), centre_ra), np.full(len(ra), centre_dec), ra, dec)
    return float(centre_ra), float(centre_dec), float(np.max(reach + [c.radius for c in circles]))


def _as_calexp(
    coadd: Coadd, tract: Tract, patch: int, first: CoaddInput, matched: bool, config: CoaddConfig
) -> CalExp:
    """Give a coadd its PSF and stars; where stars are too few, the mean PSF of the inputs serves."""
    info = _coadd_info(first.info, tract, patch, config.warp_type)
    calib = PhotoCalib(njy_per_unit=1.0, n_stars=0, relative=first.relative)
    metrics = {
        "coadd.n_inputs": float(len(coadd.inputs)),
        "coadd.mean_count": float(coadd.count.mean()),
        "coadd.psf_matched": float(matched),
    }
    try:
        exposure = Exposure(image=coadd.image, info=info, wcs=tract.wcs)
        found = characterize(exposure, _for_noise(config.characterize, coadd) if matched else config.characterize)
    except TooFewStars:
        if coadd.psf is None:
            raise
        image, psf, stars = coadd.image.with_image(np.nan_to_num(coadd.image.image)), coadd.psf, np.zeros(0, STAR_DTYPE)
    else:
        image, psf, stars = found.image, found.psf, found.stars
        metrics |= found.metrics
        if matched and coadd.psf is not None:
            metrics |= _psf_metrics(psf, coadd.psf)
            psf = coadd.psf
    return CalExp(
        image=image, info=info, psf=psf, wcs=tract.wcs, photo_calib=calib, stars=stars, metrics=metrics
    )


def _for_noise(config: CharacterizeConfig, coadd: Coadd) -> CharacterizeConfig:
    """Raise thresholds that are told for white noise as far as convolution made the noise of sources larger.

    Smoothed by a Gaussian of the PSF's width, noise that kernels K of one width correlated is larger than the
    scatter of pixels tells; K is taken as the Gaussian with its sum of squares.
    """
    if coadd.psf is None:
        return config
    width, own = 1 / (4 * np.pi * coadd.noise_share), (coadd.psf.fwhm() / 2.3548) ** 2
    factor = float(np.sqrt(max(own / ((width + own) * coadd.noise_share), 1.0)))
    stars, sky = config.stars, config.background
    higher = {"detect_sigma": factor * stars.detect_sigma, "min_snr": factor * stars.min_snr}
    return config.model_copy(
        update={
            "stars": stars.model_copy(update=higher),
            "background": sky.model_copy(update={"source_sigma": factor * sky.source_sigma}),
        }
    )


def _psf_metrics(measured: Psf, known: Psf) -> dict[str, float]:
    """Compare the PSF of the coadd's stars with what it should be."""
    return {
        "coadd.psf_fwhm_pixel": known.fwhm(),
        "coadd.psf_fwhm_ratio": measured.fwhm() / known.fwhm(),
        "coadd.psf_area_ratio": measured.effective_area() / known.effective_area(),
    }


def _coadd_info(first: ExposureInfo, tract: Tract, patch: int, warp_type: str) -> ExposureInfo:
    return replace(
        first,
        id=VisitDetector("coadd", tract.id, patch),
        ra=tract.ra,
        dec=tract.dec,
        observation_type="coadd",
        origin=f"tract={tract.id} patch={patch} warps={warp_type}",
    )
