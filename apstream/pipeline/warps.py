"""Warps to keep: all that one visit has on a patch, resampled, and matched to the common PSF or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from apstream.arrays.types import F32, F64, IntArray
from apstream.errors import BadSettings, NoGoodPixels
from apstream.model.exposures import STAR_DTYPE, CalExp
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs
from apstream.pipeline.coadd_inputs import CoaddInput
from apstream.pipeline.coadd_psf import needed_parts, parts_on
from apstream.pipeline.coadds import CoaddConfig, input_warp
from apstream.tasks.match_warp import kernel_half
from apstream.tasks.psf_field import PsfInput, combined_psf
from apstream.tasks.select_inputs import InputQuality
from apstream.tasks.warp import wcs_map
from apstream.tasks.warped_input import WarpedInput, empty_image, padded, same_map

__all__ = ["check_common_psf", "reach_on", "stored_warp", "visit_warp", "warp_quality"]

_STEPS = 16
#: Pixels around the outline of an exposure that its interpolation may reach.
_RIM = 8


def visit_warp(
    inputs: Sequence[CoaddInput], tract: Tract, patch: int, target: F64 | None, config: CoaddConfig
) -> CalExp:
    """Resample the detectors of one visit onto a patch.

    Parameters
    ----------
    target
        What `common_psf` gave for all visits; None makes a direct warp.

    Returns
    -------
    CalExp
        On the pixels of the patch that the visit reaches; NaN with NO_DATA where it has none. No stars. Where one
        smooth PSF does not fit its detectors, it has the PSF of each with its outline (`psf_parts`). Its
        metrics hold what a coadd must know: ``warp.weight``, ``warp.noise_share`` and ``warp.matched``.

    Raises
    ------
    NoGoodPixels
        If it has no pixel there, or no positive variance.
    """
    outer = tract.outer_box(patch)
    warps = [input_warp(item, tract, outer, target, config) for item in inputs]
    usable = [(item, warp) for item, warp in zip(inputs, warps, strict=True) if not warp.fault(needs_psf=True)]
    if not usable:
        raise NoGoodPixels(warps[0].fault(needs_psf=True))
    box = _reach([item for item, _ in usable], tract, target, config).intersect(outer)
    image = _merged([warp.open(box) for _, warp in usable])
    if not np.isfinite(image.image).any():
        raise NoGoodPixels("it has no good pixel on the patch")
    first, weights = usable[0][0], [warp.weight for _, warp in usable]
    metrics = {
        "warp.weight": float(np.mean(weights)),
        "warp.noise_share": float(np.average([warp.noise_share for _, warp in usable], weights=weights)),
        "warp.matched": float(target is not None),
        "warp.fwhm_arcsec": max(item.fwhm_arcsec for item, _ in usable),
        "warp.ellipticity": max(item.quality().ellipticity for item, _ in usable),
        "warp.n_detectors": float(len(usable)),
    }
    sources = [(warp.psf, item.wcs) for item, warp in usable if warp.psf is not None]
    psf = combined_psf([source for source, _ in sources], box, degree=config.assemble.psf_degree)
    parts = () if target is not None else parts_on(sources, box, tract, degree=config.assemble.psf_degree)
    detectors = ", ".join(str(item.info.id.detector) for item, _ in usable)
    return CalExp(
        image=image,
        info=replace(first.info, origin=f"tract={tract.id} patch={patch} detectors={detectors}"),
        psf=psf,
        wcs=tract.wcs,
        photo_calib=first.about.photo_calib,
        stars=np.zeros(0, STAR_DTYPE),
        metrics=metrics,
        psf_parts=needed_parts(psf, parts, box)[0],
    )


def stored_warp(about: CalExpSummary, read: Callable[[Box], MaskedImage]) -> WarpedInput:
    """Return a warp that was made before as an input of a coadd.

    Parameters
    ----------
    read
        Returns the pixels of a box inside the warp's.
    """
    weight, box = about.metrics["warp.weight"], about.box

    def open_part(part: Box) -> MaskedImage:
        common = part.intersect(box)
        return empty_image(part) if common.is_empty else padded(read(common), part)

    return WarpedInput(
        name=str(about.info.id),
        open=open_part,
        box=box,
        weight=weight,
        psf=PsfInput(about.psf, same_map, box, weight, parts=about.psf_parts),
        noise_share=about.metrics["warp.noise_share"],
    )


def warp_quality(about: CalExpSummary) -> InputQuality:
    """Return what the selection of a warp goes by: the PSF of the exposure that it was made from."""
    return InputQuality(
        id=about.info.id,
        band=about.info.band,
        fwhm_arcsec=about.metrics["warp.fwhm_arcsec"],
        ellipticity=about.metrics["warp.ellipticity"],
    )


def check_common_psf(about: Sequence[CalExpSummary]) -> None:
    """Refuse psf-matched warps that were matched to different PSFs.

    Raises
    ------
    BadSettings
        If there are two.
    """
    first = about[0]
    for other in about[1:]:
        if first.psf.shape != other.psf.shape or not np.allclose(first.psf.central(), other.psf.central(), atol=1e-9):
            raise BadSettings(
                f"the warps of {first.info.id} and {other.info.id} were matched to different PSFs",
                where=first.info.origin,
                remedy="make all warps of a coadd with one apstream warp, or set match.target_fwhm_arcsec for all",
            )


def reach_on(tract: Tract, wcs: SkyWcs, box: Box) -> Box:
    """Return the smallest box on a tract's pixels around an exposure's outline."""
    y, x = tract.pixels_of(*wcs.pixel_to_sky(*box.outline(_STEPS)))
    return Box(int(np.floor(y.min())), int(np.floor(x.min())), int(np.ceil(y.max())) + 1, int(np.ceil(x.max())) + 1)


def _reach(inputs: Sequence[CoaddInput], tract: Tract, target: F64 | None, config: CoaddConfig) -> Box:
    """Return the pixels of a tract that warps of exposures may have."""
    boxes = []
    for item in inputs:
        here = reach_on(tract, item.wcs, item.box).grow(_RIM)
        source = PsfInput(item.psf, wcs_map(tract.wcs, item.wcs), item.box, 1.0)
        boxes.append(here if target is None else here.grow(kernel_half(source, target, here, config.match)))
    return Box.bounding(boxes)


def _merged(parts: Sequence[MaskedImage]) -> MaskedImage:
    """Lay images of one box over each other: the first that has a pixel, away from its edge if any has, gives it."""
    image, mask, variance = (np.array(getattr(parts[0], name)) for name in ("image", "mask", "variance"))
    for part in parts[1:]:
        better = _has(part.image, part.mask) > _has(image, mask)
        for plane, other in ((image, part.image), (mask, part.mask), (variance, part.variance)):
            plane[better] = other[better]
    return MaskedImage.make(image, mask, variance, parts[0].unit, parts[0].box)


def _has(image: F32, mask: IntArray) -> IntArray:
    # 2: a pixel, 1: one at an edge, 0: none
    there = np.isfinite(image) & ((mask & MaskPlane.NO_DATA) == 0)
    return np.where(there, np.where((mask & MaskPlane.EDGE) != 0, 1, 2), 0)
