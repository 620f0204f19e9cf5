"""Template coadds: calibrated exposures of one band become one patch of the sky, as a calexp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.background import evaluate_mesh
from apstream.arrays.types import F64
from apstream.errors import BadSettings, NoGoodPixels, NoTemplateOverlap, TooFewStars
from apstream.model.bright_objects import NO_BRIGHT_OBJECTS, BrightObjects
from apstream.model.exposures import STAR_DTYPE, CalExp, CharacterizedExposure, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.photocalib import PhotoCalib
from apstream.model.psf import Psf, PsfPart
from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.pipeline.coadd_inputs import CoaddInput, values_of
from apstream.pipeline.coadd_psf import choose_psf, parts_of
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, Coadd, assemble_coadd
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.coadd_regions import MaskSpan, fill_holes, mask_bright_objects, mask_spans, valid_polygon
from apstream.tasks.coadd_statistics import Function
from apstream.tasks.match_warp import MatchWarpConfig, target_kernel
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.select_inputs import SelectInputsConfig
from apstream.tasks.warp import WarpConfig, wcs_map
from apstream.tasks.warped_input import WarpedInput, matched_input, warped_input

__all__ = [
    "CoaddConfig",
    "CoaddPatch",
    "coadd_info",
    "coadd_patch",
    "coadd_warps",
    "common_psf",
    "input_warp",
    "sharp_enough",
]


class CoaddConfig(BaseModel):
    """How calexps become coadds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warp_type: Literal["psf_matched", "direct"] = Field(
        "psf_matched", description="Whether warps are convolved to one common PSF before they are combined"
    )
    select: SelectInputsConfig = Field(SelectInputsConfig(), description="Which calexps are good enough")
    match: MatchWarpConfig = Field(MatchWarpConfig(), description="The common PSF of psf-matched warps")
    assemble: AssembleCoaddConfig = Field(AssembleCoaddConfig(), description="How warps are combined")
    warp: WarpConfig = Field(WarpConfig(), description="How calexps are resampled")
    psf_shrink_pixels: float = Field(
        0.0, ge=0, description="Exposures give nothing to the PSF of a coadd within so many pixels of their outline"
    )
    characterize: CharacterizeConfig = Field(
        CharacterizeConfig(cosmic_rays=None), description="PSF and stars of the coadd"
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoaddPatch:
    """A patch of the sky: as a calibrated exposure, and what went into it."""

    calexp: CalExp
    coadd: Coadd


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
        which = "the only exposure is" if len(inputs) == 1 else f"all {len(inputs)} exposures are"
        raise NoTemplateOverlap(
            f"{which} wider than the common PSF of {limit:.2f} arcsec",
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


def coadd_patch(
    inputs: Sequence[CoaddInput],
    tract: Tract,
    patch: int,
    target: F64 | None,
    config: CoaddConfig,
    bright: BrightObjects = NO_BRIGHT_OBJECTS,
    spans: Sequence[MaskSpan] = (),
) -> CoaddPatch:
    """Combine the exposures that touch a patch into its coadd.

    Parameters
    ----------
    inputs
        Of one band.
    target
        What `common_psf` gave; None combines direct warps.
    bright
        Regions to be masked.
    spans
        What is set or cleared in the masks of single exposures; names are those of the inputs.

    Returns
    -------
    CoaddPatch
        The metrics of its calexp say how many inputs there are, whether they were matched, and how far the PSF
        measured on its stars is from the common one.

    Raises
    ------
    NoGoodPixels
        If no input has data on the patch.
    TooFewStars
        If there is neither a star nor a PSF.
    BadSettings
        If a span names no input, or as `coadd_warps`.
    """
    warps = [input_warp(item, tract, tract.outer_box(patch), target, config) for item in inputs]
    return coadd_warps(mask_spans(warps, spans), [item.about for item in inputs], tract, patch, config, bright)


def input_warp(item: CoaddInput, tract: Tract, box: Box, target: F64 | None, config: CoaddConfig) -> WarpedInput:
    """Return an exposure on the pixels of a tract, opened part by part; matched to `target` unless that is None.

    An exposure without a positive variance has no weight, and will be left out for it.
    """
    try:
        weight = item.weigh()
    except NoGoodPixels:
        weight = float("nan")
    area = valid_polygon(item.box, shrink=config.psf_shrink_pixels)
    source = PsfInput(item.psf, wcs_map(tract.wcs, item.wcs), item.box, weight, area)
    direct = warped_input(str(item.info.id), item.read, source, box=box, config=config.warp)
    return direct if target is None else matched_input(direct, target, config.match)


def coadd_warps(
    warps: Sequence[WarpedInput],
    about: Sequence[CalExpSummary],
    tract: Tract,
    patch: int,
    config: CoaddConfig,
    bright: BrightObjects = NO_BRIGHT_OBJECTS,
) -> CoaddPatch:
    """Combine warps of one band on a patch; `about` tells in the same order what each was made from.

    Holes of a few pixels are interpolated; regions of `bright` are masked.

    Raises
    ------
    ValueError
        If there are not as many of the one as of the other.
    BadSettings
        If they are of several bands, some fluxes are in nJy and others are not, or a statistic of one's own wants what
        is not known of an exposure.
    NoGoodPixels, TooFewStars
        As `coadd_patch`.
    """
    statistic = config.assemble.statistic
    extras = values_of(statistic.inputs, about) if isinstance(statistic, Function) else {}
    coadd = assemble_coadd(warps, tract.outer_box(patch), config.assemble, extras=extras)
    coadd = replace(coadd, image=mask_bright_objects(fill_holes(coadd.image), tract.wcs, bright))
    by_name = dict(zip((warp.name for warp in warps), about, strict=True))
    used = [by_name[name] for name in coadd.inputs]
    info = coadd_info([one.info for one in used], coadd.weights, tract, patch, config.warp_type)
    if len(scales := {one.photo_calib.relative for one in used}) > 1:
        raise BadSettings(
            f"of {len(used)} exposures some have fluxes in nJy, others on the scale of an image",
            where=info.origin,
            remedy="calibrate all with one reference catalogue, or none of them",
        )
    matched = config.warp_type == "psf_matched"
    parts = () if matched else parts_of(coadd, used, tract, degree=config.assemble.psf_degree)
    return CoaddPatch(calexp=_as_calexp(coadd, parts, tract, info, scales.pop(), config), coadd=coadd)


def coadd_info(
    infos: Sequence[ExposureInfo], weights: Sequence[float], tract: Tract, patch: int, warp_type: str
) -> ExposureInfo:
    """Return what is known of a coadd from that of its inputs: band, filter and object of the first.

    Its time is the weighted mean, its exposure time the sum.

    Raises
    ------
    ValueError
        If there are not as many weights as inputs, or none.
    BadSettings
        If the inputs are of several bands.
    """
    if len(infos) != len(weights) or not infos:
        raise ValueError(f"{len(weights)} weights for {len(infos)} inputs")
    if len(bands := sorted({info.band for info in infos})) > 1:
        raise BadSettings(f"inputs of one coadd are of the bands {', '.join(bands)}", remedy="select one band")
    return replace(
        infos[0],
        id=VisitDetector("coadd", tract.id, patch),
        mid_mjd_tai=float(np.average([info.mid_mjd_tai for info in infos], weights=weights)),
        exposure_s=float(sum(info.exposure_s for info in infos)),
        ra=tract.ra,
        dec=tract.dec,
        observation_type="coadd",
        origin=f"tract={tract.id} patch={patch} warps={warp_type}",
    )


def _as_calexp(
    coadd: Coadd, parts: tuple[PsfPart, ...], tract: Tract, info: ExposureInfo, relative: bool, config: CoaddConfig
) -> CalExp:
    """Give a coadd its PSF and stars; where stars or pixels are too few, the mean PSF of the inputs serves."""
    matched = config.warp_type == "psf_matched"
    calib = PhotoCalib(njy_per_unit=1.0, n_stars=0, relative=relative)
    metrics = {
        "coadd.n_inputs": float(len(coadd.inputs)),
        "coadd.mean_count": float(coadd.count.mean()),
        "coadd.psf_matched": float(matched),
    }
    try:
        exposure = Exposure(image=coadd.image, info=info, wcs=tract.wcs)
        found = characterize(exposure, _for_noise(config.characterize, coadd) if matched else config.characterize)
    except (TooFewStars, NoGoodPixels):  # a patch may be touched by a corner only
        if coadd.psf is None:
            raise
        image, psf, stars = coadd.image, coadd.psf, np.zeros(0, STAR_DTYPE)
    else:
        image, psf, stars = _with_all_pixels(found, coadd.image), found.psf, found.stars
        metrics |= found.metrics
        if matched and coadd.psf is not None:
            metrics |= _psf_metrics(psf, coadd.psf)
            psf = coadd.psf
    if parts and coadd.psf is not None:
        psf, parts, misfit = choose_psf(psf, coadd.psf, parts, coadd.image.box)
        metrics["coadd.psf_misfit"] = misfit
    return CalExp(
        image=image,
        info=info,
        psf=psf,
        wcs=tract.wcs,
        photo_calib=calib,
        stars=stars,
        metrics=metrics,
        psf_parts=parts,
    )


def _with_all_pixels(found: CharacterizedExposure, coadd: MaskedImage) -> MaskedImage:
    """Give back, less the sky, what characterization did not use and set to zero; NaN where there is nothing."""
    sky = evaluate_mesh(found.background.mesh, cell=found.background.cell, shape=coadd.shape)
    unused = found.image.image == 0
    return found.image.with_image(np.where(unused, coadd.image - sky, found.image.image))


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
