"""Templates from raws: calibrate what is not yet, choose the sharpest, coadd patch by patch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, NoGoodPixels, NoTemplateOverlap, TooFewStars
from apstream.model.exposures import STAR_DTYPE, CalExp, Exposure, ExposureInfo
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.photocalib import PhotoCalib
from apstream.model.products import SkyCircle
from apstream.model.skymap import SkyMap
from apstream.model.wcs import SkyWcs, separation
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.repo.formats.fits import read_calexp
from apstream.repo.formats.raw import read_raw
from apstream.repo.repository import FileRepository
from apstream.service.batch import BatchJob
from apstream.service.gather import gather_calibs, gather_reference
from apstream.tasks.assemble_coadd import AssembleCoaddConfig, Coadd, WarpedInput, assemble_coadd, mean_variance
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.psf_field import PsfInput
from apstream.tasks.warp import WarpConfig, warp, wcs_map

__all__ = ["CoaddReport", "CoaddSettings", "make_coadds"]


class CoaddSettings(BaseModel):
    """Settings of ``apstream coadd``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: PixelConfig = Field(PixelConfig(), description="How calexps are made of raws")
    assemble: AssembleCoaddConfig = Field(AssembleCoaddConfig(), description="How warps are combined")
    warp: WarpConfig = Field(WarpConfig(), description="How calexps are resampled")
    characterize: CharacterizeConfig = Field(
        CharacterizeConfig(cosmic_rays=None), description="PSF and stars of the coadd"
    )
    patch_size_pixel: int = Field(4096, gt=63, description="Side of a patch")
    border_pixel: int = Field(128, ge=0, description="Overlap of a patch with its neighbours")


@dataclass(slots=True)
class CoaddReport:
    """What was made and what failed."""

    calexps: int = 0
    patches: list[str] = field(default_factory=list)
    problems: list[ApstreamError] = field(default_factory=list)


Progress = Callable[[str, int, int], None]


def make_coadds(
    repository: FileRepository,
    jobs: Sequence[BatchJob],
    settings: CoaddSettings,
    *,
    reference: BatchJob | None = None,
    best: int | None = None,
    processes: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> CoaddReport:
    """Make the ``deepCoadd`` patches of the selected raws.

    Parameters
    ----------
    jobs
        The selected raws; those without a calexp are calibrated first.
    reference
        The raw that the others are registered on, where there is no reference catalogue; default: the first.
        It goes into the coadd only if it is among the jobs.
    best
        Keep only this many per detector and band, those with the sharpest PSF.
    processes
        How many calexps are made at a time.

    Raises
    ------
    NoTemplateOverlap
        If no calexp could be made.
    """
    report = CoaddReport()
    calexps = _calexps(repository, jobs, settings.stages, reference, processes, report, progress)
    if not calexps:
        first = f"; the first: {report.problems[0]}" if report.problems else ""
        raise NoTemplateOverlap(f"no calexp could be made of {len(jobs)} raws{first}", where=str(repository.root))
    heads = [_head(path) for path in calexps]
    chosen = _sharpest(heads, best) if best else heads
    skymap = _skymap(repository, heads, settings)
    for band in sorted({head.band for head in chosen}):
        _coadd_band(repository, [h for h in chosen if h.band == band], skymap, settings, report, progress)
    return report


@dataclass(frozen=True, slots=True, eq=False)
class _Head:
    """What a calexp says without its pixels."""

    path: Path
    band: str
    detector: int
    fwhm_arcsec: float
    wcs: SkyWcs
    box: Box


def _calexps(
    repository: FileRepository,
    jobs: Sequence[BatchJob],
    stages: PixelConfig,
    reference: BatchJob | None,
    processes: int,
    report: CoaddReport,
    progress: Progress,
) -> list[Path]:
    anchor, missing = None, [job for job in jobs if _calexp_path(repository, job) is None]
    if repository.locate("refcat", name="main") is None:
        lead = reference or jobs[0]
        if _calexp_path(repository, lead) is None:
            _calibrate_into(repository.root, lead.path, lead.id.detector, None, stages)
        missing = [job for job in missing if job != lead]
        anchor = _calexp_path(repository, lead)
    _calibrate_all(repository, missing, anchor, stages, processes, report, progress)
    report.calexps = len(jobs) - len(report.problems)
    return [path for job in jobs if (path := _calexp_path(repository, job)) is not None]


def _calibrate_all(
    repository: FileRepository,
    jobs: Sequence[BatchJob],
    anchor: Path | None,
    stages: PixelConfig,
    processes: int,
    report: CoaddReport,
    progress: Progress,
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(processes, len(jobs))), mp_context=context) as pool:
        futures = [
            pool.submit(_calibrate_into, repository.root, job.path, job.id.detector, anchor, stages) for job in jobs
        ]
        for done, (job, future) in enumerate(zip(jobs, futures, strict=True), start=1):
            try:
                future.result()
            except ApstreamError as error:
                report.problems.append(error.at(str(job.path)))
            progress("calexps", done, len(jobs))


def _calibrate_into(root: Path, path: Path, detector: int, anchor: Path | None, stages: PixelConfig) -> None:
    repository = FileRepository(root)
    try:
        raw = read_raw(path, load_camera(repository.camera), detector=detector)
        reference = read_calexp(anchor) if anchor else gather_reference(repository, raw)
        calexp = calibrate_raw(raw, gather_calibs(repository, raw.info), reference, stages)
        info = calexp.info
        repository.put(calexp, "calexp", visit=info.id.visit, detector=info.id.detector, band=info.band)
    except ApstreamError as error:
        raise error.at(str(path)) from error
    finally:
        repository.close()


def _calexp_path(repository: FileRepository, job: BatchJob) -> Path | None:
    location = repository.locate("calexp", visit=job.id.visit, detector=job.id.detector)
    return Path(location) if location else None


@lru_cache(maxsize=6)
def _calexp(path: Path) -> CalExp:
    return read_calexp(path)


def _head(path: Path) -> _Head:
    calexp = _calexp(path)
    width = calexp.psf.fwhm() * calexp.wcs.pixel_scale_arcsec
    return _Head(path, calexp.info.band, calexp.info.id.detector, width, calexp.wcs, calexp.box)


def _sharpest(heads: Sequence[_Head], best: int) -> list[_Head]:
    kept: list[_Head] = []
    for key in sorted({(head.band, head.detector) for head in heads}):
        group = [head for head in heads if (head.band, head.detector) == key]
        kept += sorted(group, key=lambda head: (head.fwhm_arcsec, str(head.path)))[:best]
    return kept


def _skymap(repository: FileRepository, heads: Sequence[_Head], settings: CoaddSettings) -> SkyMap:
    if repository.locate("skymap", name="main"):
        existing: SkyMap = repository.get("skymap", name="main")
        return existing
    circles = [SkyCircle(*head.wcs.circle(head.box)) for head in heads]
    ra, dec, radius = _circle_around(circles)
    skymap = SkyMap.covering(
        ra,
        dec,
        radius,
        pixel_scale_arcsec=float(np.median([head.wcs.pixel_scale_arcsec for head in heads])),
        patch_size=settings.patch_size_pixel,
        border=settings.border_pixel,
    )
    repository.put(skymap, "skymap", name="main")
    return skymap


def _circle_around(circles: Sequence[SkyCircle]) -> tuple[float, float, float]:
    ra, dec = (np.array([getattr(c, name) for c in circles]) for name in ("ra", "dec"))
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    centre_ra, centre_dec = np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    reach = separation(np.full(len(ra), centre_ra), np.full(len(ra), centre_dec), ra, dec)
    return float(centre_ra), float(centre_dec), float(np.max(reach + [c.radius for c in circles]))


def _coadd_band(
    repository: FileRepository,
    heads: Sequence[_Head],
    skymap: SkyMap,
    settings: CoaddSettings,
    report: CoaddReport,
    progress: Progress,
) -> None:
    touched = sorted({patch for head in heads for patch in skymap.patches_under(head.wcs, head.box)})
    for done, patch in enumerate(touched, start=1):
        box = skymap.patch_box(patch).intersect(skymap.box)
        under = [head for head in heads if patch in skymap.patches_under(head.wcs, head.box)]
        try:
            coadd = assemble_coadd([_input(head, skymap, box, settings.warp) for head in under], box, settings.assemble)
            value = _as_calexp(coadd, skymap, patch, under, settings)
        except NoGoodPixels as error:
            report.problems.append(error.at(f"deepCoadd patch={patch}"))
            continue
        repository.put(value, "deepCoadd", band=heads[0].band, tract=skymap.tract, patch=patch)
        report.patches.append(f"deepCoadd band={heads[0].band} tract={skymap.tract} patch={patch}: {len(under)} inputs")
        progress(f"coadd {heads[0].band}", done, len(touched))


def _input(head: _Head, skymap: SkyMap, box: Box, config: WarpConfig) -> WarpedInput:
    calexp = _calexp(head.path)
    pixel_map = wcs_map(skymap.wcs, head.wcs)
    weight = 1 / mean_variance(calexp.image)
    return WarpedInput(
        name=str(calexp.info.id),
        open=lambda part: warp(_calexp(head.path).image, pixel_map, part, config),
        box=box,
        weight=weight,
        psf=PsfInput(calexp.psf, pixel_map, calexp.box, weight),
    )


def _as_calexp(coadd: Coadd, skymap: SkyMap, patch: int, heads: Sequence[_Head], settings: CoaddSettings) -> CalExp:
    """Give a coadd its PSF and stars; where stars are too few, the mean PSF of the inputs serves."""
    first = _calexp(heads[0].path)
    info = _coadd_info(first.info, skymap, patch)
    calib = PhotoCalib(njy_per_unit=1.0, n_stars=0, relative=first.photo_calib.relative)
    metrics = {"coadd.n_inputs": float(len(heads)), "coadd.mean_count": float(coadd.count.mean())}
    try:
        found = characterize(Exposure(image=coadd.image, info=info, wcs=skymap.wcs), settings.characterize)
    except TooFewStars:
        if coadd.psf is None:
            raise
        image = coadd.image.with_image(np.nan_to_num(coadd.image.image))
        return CalExp(
            image=image,
            info=info,
            psf=coadd.psf,
            wcs=skymap.wcs,
            photo_calib=calib,
            stars=np.zeros(0, STAR_DTYPE),
            metrics=metrics,
        )
    return CalExp(
        image=found.image,
        info=info,
        psf=found.psf,
        wcs=skymap.wcs,
        photo_calib=calib,
        stars=found.stars,
        metrics={**metrics, **found.metrics},
    )


def _coadd_info(first: ExposureInfo, skymap: SkyMap, patch: int) -> ExposureInfo:
    return replace(
        first,
        id=VisitDetector("coadd", skymap.tract, patch),
        ra=skymap.ra,
        dec=skymap.dec,
        observation_type="coadd",
        origin=f"tract={skymap.tract} patch={patch}",
    )
