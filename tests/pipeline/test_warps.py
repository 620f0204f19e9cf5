"""Warps of visits whose detectors have different PSFs, and coadds of such warps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.sky_field import SIDE, calexp

from apstream.model.exposures import CalExp
from apstream.model.psf import Psf, PsfPart, psf_of_parts
from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.pipeline.coadd_inputs import CoaddInput, covering_skymap
from apstream.pipeline.coadds import CoaddConfig, coadd_patch, coadd_warps
from apstream.pipeline.warps import stored_warp, visit_warp
from apstream.repo.formats.fits import read_calexp, write_image

DIRECT = CoaddConfig(warp_type="direct")
WEST, EAST = 3.0, 5.0


def detectors(visit: int, fwhms: tuple[float, float] = (WEST, EAST)) -> list[CalExp]:
    return [calexp(visit, detector, fwhm=fwhm, rotation=2.0 * visit) for detector, fwhm in enumerate(fwhms)]


def tract_of(exposures: list[CalExp]) -> Tract:
    return covering_skymap([CoaddInput.of(one) for one in exposures], patch_size=2048, border=0).tract(0)


def warp_of(exposures: list[CalExp], tract: Tract) -> CalExp:
    return visit_warp([CoaddInput.of(one) for one in exposures], tract, 0, None, DIRECT)


def widths(parts: tuple[PsfPart, ...], tract: Tract, exposures: list[CalExp]) -> list[float]:
    """Return the FWHM of the PSF in the middle and near the inner border of every detector."""
    found = []
    for detector, one in enumerate(exposures):
        for x in ((SIDE - 1) / 2, SIDE - 12.0 if detector == 0 else 12.0):
            y_on, x_on = tract.pixels_of(*one.wcs.pixel_to_sky(np.array([SIDE / 2]), np.array([x])))
            kernel = psf_of_parts(parts, float(y_on[0]), float(x_on[0]))
            assert kernel is not None
            found.append(Psf(kernel[None], one.box).fwhm())
    return found


def test_each_part_of_a_warp_has_the_psf_of_the_detector_that_covers_it(tmp_path: Path):
    exposures = detectors(1)
    tract = tract_of(exposures)
    write_image(tmp_path / "warp.fits", warp_of(exposures, tract))
    warp = read_calexp(tmp_path / "warp.fits")
    assert widths(warp.psf_parts, tract, exposures) == pytest.approx([WEST, WEST, EAST, EAST], rel=0.01)


def test_a_warp_whose_detectors_are_alike_has_one_psf():
    exposures = detectors(1, (WEST, WEST))
    warp = warp_of(exposures, tract_of(exposures))
    assert warp.psf_parts == ()
    assert warp.psf.fwhm() == pytest.approx(WEST, rel=0.01)


def test_a_coadd_of_warps_has_the_psf_of_one_of_exposures():
    visits = [detectors(visit) for visit in (1, 2)]
    every = [one for visit in visits for one in visit]
    tract = tract_of(every)
    warps = [warp_of(visit, tract) for visit in visits]
    about = [CalExpSummary.of(one) for one in warps]
    stored = [stored_warp(a, lambda box, w=w: w.image.cutout(box)) for a, w in zip(about, warps, strict=True)]
    of_warps = coadd_warps(stored, about, tract, 0, DIRECT).calexp
    of_exposures = coadd_patch([CoaddInput.of(one) for one in every], tract, 0, None, DIRECT).calexp
    expected = widths(of_exposures.psf_parts, tract, visits[0])
    assert widths(of_warps.psf_parts, tract, visits[0]) == pytest.approx(expected, rel=0.01)
    assert np.ptp(expected) > 1.5
