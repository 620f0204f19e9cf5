"""The PSF of a direct coadd: smooth where that is right, in parts where exposures of other seeing begin and end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apstream.model.geometry import Box
from apstream.model.psf import Psf, PsfPart
from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.model.wcs import SkyWcs
from apstream.tasks.assemble_coadd import Coadd
from apstream.tasks.coadd_regions import valid_polygon
from apstream.tasks.psf_field import CoaddPsf, PsfInput, psf_parts, width_ratios

__all__ = ["choose_psf", "needed_parts", "parts_of", "parts_on"]

#: A PSF whose width departs by more from that of the exposures' PSFs does not describe it.
_TOLERANCE = 0.01


def parts_of(coadd: Coadd, used: Sequence[CalExpSummary], tract: Tract, *, degree: int) -> tuple[PsfPart, ...]:
    """Return what every exposure gives to the PSF of a coadd of direct warps.

    Parameters
    ----------
    used
        What the inputs of the coadd were made from, in their order.
    """
    if coadd.exact_psf is None:
        return ()
    pairs = zip(coadd.exact_psf.inputs, used, strict=True)
    sources = [(source, about.wcs) for whole, about in pairs for source in whole.split()]
    return parts_on(sources, coadd.image.box, tract, degree=degree)


def parts_on(sources: Sequence[tuple[PsfInput, SkyWcs]], box: Box, tract: Tract, *, degree: int) -> tuple[PsfPart, ...]:
    """Return what images, each with its own WCS, give to the PSF of their mean on a box of a tract."""
    outlines = []
    for source, wcs in sources:
        y, x = valid_polygon(source.box, source.polygon).T
        outlines.append(np.stack(tract.pixels_of(*wcs.pixel_to_sky(y, x)), axis=1))
    return psf_parts(CoaddPsf.of([source for source, _ in sources], box), outlines, box, degree=degree)


def choose_psf(
    measured: Psf, combined: Psf, parts: tuple[PsfPart, ...], box: Box
) -> tuple[Psf, tuple[PsfPart, ...], float]:
    """Return the PSF that describes a coadd on `box`, and its parts if no smooth one does.

    The one measured on stars describes it, if beside the exposures' PSFs its width is everywhere the same to a
    percent; else the polynomial through theirs, if it has their width everywhere to a percent.

    Returns
    -------
    Psf
    tuple
        The parts, if neither does.
    float
        The largest departure of its width, a fraction.
    """
    ratios = width_ratios(measured, parts, box)
    if not ratios.size:
        return measured, (), 0.0
    spread = float(np.abs(ratios / np.median(ratios) - 1).max())
    if spread <= _TOLERANCE:
        return measured, (), spread
    kept, misfit = needed_parts(combined, parts, box)
    return combined, kept, misfit


def needed_parts(psf: Psf, parts: tuple[PsfPart, ...], box: Box) -> tuple[tuple[PsfPart, ...], float]:
    """Return the parts if a smooth PSF does not have their width everywhere to a percent, and how far it is off."""
    ratios = width_ratios(psf, parts, box)
    misfit = float(np.abs(ratios - 1).max()) if ratios.size else 0.0
    return parts if misfit > _TOLERANCE else (), misfit
