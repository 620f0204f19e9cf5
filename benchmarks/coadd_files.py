"""Calexps of `benchmarks.swarp` into one coadd, file to file: our side, in a process of its own.

`main` takes WORK SIZE VISITS KIND and prints the CPU seconds that it took without starting Python.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from apstream.model.exposures import STAR_DTYPE, CalExp, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.photocalib import PhotoCalib
from apstream.model.wcs import SkyWcs
from apstream.repo.formats.fits import write_exposure
from apstream.repo.formats.layout import OurFits, open_ours
from apstream.repo.formats.parts import PARTS, image_box, masked_image
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, assemble_coadd
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warp import WarpConfig, wcs_map
from apstream.tasks.warped_input import WarpedInput, clipped_mean, warped_input

__all__ = ["KINDS", "SCALE", "coadd_files", "grid_wcs", "main"]

SCALE = 0.25
KINDS = {"mean": {"artifacts": None}, "artifacts left out": {}}


def grid_wcs(size: int) -> SkyWcs:
    """Return the coadd's WCS."""
    return SkyWcs.tan(150.0, 2.0, pixel_scale_arcsec=SCALE, y=(size - 1) / 2, x=(size - 1) / 2)


def coadd_files(work: Path, size: int, visits: int, kind: str) -> None:
    """Combine the calexps of `work`, again and again if there are too few, into one file."""
    target, box = grid_wcs(size), Box(0, 0, size, size)
    there = len(list(work.glob("calexp*.fits")))
    with ExitStack() as opened:
        files = [opened.enter_context(open_ours(work / f"calexp{k % there}.fits")) for k in range(visits)]
        inputs = [_input(str(k), file, target, box) for k, file in enumerate(files)]
        coadd = assemble_coadd(inputs, box, AssembleCoaddConfig.model_validate(KINDS[kind]))
    assert coadd.psf is not None
    first = _info()
    write_exposure(
        work / f"ours {kind}.fits",
        CalExp(
            image=coadd.image, info=first, psf=coadd.psf, wcs=target,
            photo_calib=PhotoCalib(njy_per_unit=1.0), stars=np.zeros(0, STAR_DTYPE),
        ),
    )  # fmt: skip


def _input(name: str, file: OurFits, target: SkyWcs, box: Box) -> WarpedInput:
    weight = 1 / clipped_mean(PARTS["variance_sample"](file))
    source = PsfInput(PARTS["psf"](file), wcs_map(target, PARTS["wcs"](file)), image_box(file), weight)
    return warped_input(name, partial(masked_image, file), source, box=box, config=WarpConfig())


def _info() -> ExposureInfo:
    """Return a name for the coadd."""
    return ExposureInfo(
        id=VisitDetector("coadd", 0, 0), band="r", physical_filter="r", mid_mjd_tai=60000.0, exposure_s=30.0
    )


def main() -> None:
    """Do what the command line says."""
    before = time.process_time()
    coadd_files(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    print(time.process_time() - before)
