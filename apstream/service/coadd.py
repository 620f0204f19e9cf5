"""Templates from raws: calibrate what is not yet, choose the sharpest, coadd patch by patch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial

from pydantic import Field

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, NoGoodPixels, NoTemplateOverlap
from apstream.model.exposures import CalExp
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.skymap import SkyMap
from apstream.pipeline.coadds import (
    CoaddConfig,
    CoaddInput,
    coadd_patch,
    common_psf,
    covering_skymap,
    sharp_enough,
    sharpest,
)
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.repo.entries import Entry, Input
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.gather import gather_calibs, gather_reference
from apstream.service.roots import read_raw_at
from apstream.service.save import raw_input

__all__ = ["CoaddReport", "CoaddSettings", "make_coadds"]


class CoaddSettings(CoaddConfig):
    """Settings of ``apstream coadd``."""

    stages: PixelConfig = Field(PixelConfig(), description="How calexps are made of raws")
    patch_size_pixel: int = Field(4096, gt=63, description="Side of a patch")
    border_pixel: int = Field(128, ge=0, description="Overlap of a patch with its neighbours")


@dataclass(slots=True)
class CoaddReport:
    """What was made, what failed, and which calexps were left out because their PSF is too wide."""

    calexps: int = 0
    patches: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[ApstreamError] = field(default_factory=list)


#: As many calexps are kept in memory.
_IN_MEMORY = 6

Progress = Callable[[str, int, int], None]


def make_coadds(
    repository: Repository,
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
    repository
        Where calexps and coadds go; raws, calibrations and catalogues are read through it, from its parents too.
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
        raise NoTemplateOverlap(f"no calexp could be made of {len(jobs)} raws{first}", where=repository.root)
    inputs = [CoaddInput.of(_calexp(repository, id), partial(_pixels, repository, id)) for id in calexps]
    chosen = sharpest(inputs, best) if best else inputs
    skymap = _skymap(repository, inputs, settings)
    for band in sorted({item.info.band for item in chosen}):
        _coadd_band(repository, [i for i in chosen if i.info.band == band], skymap, settings, report, progress)
    return report


def _calexps(
    repository: Repository,
    jobs: Sequence[BatchJob],
    stages: PixelConfig,
    reference: BatchJob | None,
    processes: int,
    report: CoaddReport,
    progress: Progress,
) -> list[VisitDetector]:
    anchor, missing = None, [job for job in jobs if _entry(repository, job.id) is None]
    if repository.entry("refcat", name="main") is None:
        lead = reference or jobs[0]
        if _entry(repository, lead.id) is None:
            _calibrate_into((repository.root, repository.run), lead, None, stages)
        missing = [job for job in missing if job != lead]
        anchor = lead.id
    _calibrate_all(repository, missing, anchor, stages, processes, report, progress)
    report.calexps = len(jobs) - len(report.problems)
    return [job.id for job in jobs if _entry(repository, job.id) is not None]


def _calibrate_all(
    repository: Repository,
    jobs: Sequence[BatchJob],
    anchor: VisitDetector | None,
    stages: PixelConfig,
    processes: int,
    report: CoaddReport,
    progress: Progress,
) -> None:
    context, place = multiprocessing.get_context("spawn"), (repository.root, repository.run)
    with ProcessPoolExecutor(max(1, min(processes, len(jobs))), mp_context=context) as pool:
        futures = [pool.submit(_calibrate_into, place, job, anchor, stages) for job in jobs]
        for done, (job, future) in enumerate(zip(jobs, futures, strict=True), start=1):
            try:
                future.result()
            except ApstreamError as error:
                report.problems.append(error.at(str(job.path)))
            progress("calexps", done, len(jobs))


def _calibrate_into(
    place: tuple[str, str], job: BatchJob, anchor: VisitDetector | None, stages: PixelConfig
) -> None:
    repository = Repository(place[0], run=place[1])
    try:
        raw = read_raw_at(job.path, load_camera(repository.camera), detector=job.id.detector)
        with repository.tracking() as read:
            reference = _calexp(repository, anchor) if anchor else gather_reference(repository, raw)
            calibs = gather_calibs(repository, raw)
        calexp = calibrate_raw(raw, calibs, reference, stages)
        info = calexp.info
        inputs = [raw_input(repository, job.id, job.path), *read]
        repository.put(
            calexp, "calexp", inputs=inputs, visit=info.id.visit, detector=info.id.detector, band=info.band
        )
    except ApstreamError as error:
        raise error.at(str(job.path)) from error
    finally:
        repository.close()


def _entry(repository: Repository, id: VisitDetector) -> Entry | None:
    return repository.entry("calexp", visit=id.visit, detector=id.detector)


def _calexp(repository: Repository, id: VisitDetector) -> CalExp:
    calexp: CalExp = repository.get("calexp", visit=id.visit, detector=id.detector)
    return calexp


def _pixels(repository: Repository, id: VisitDetector, box: Box) -> MaskedImage:
    calexp: CalExp = repository.get("calexp", visit=id.visit, detector=id.detector, box=box)
    return calexp.image


def _in_memory(inputs: Sequence[CoaddInput]) -> list[CoaddInput]:
    """Let a few inputs be read once, whole; more are read part by part."""
    if len(inputs) > _IN_MEMORY:
        return list(inputs)
    return [replace(item, read=_once(item)) for item in inputs]


def _once(item: CoaddInput) -> Callable[[Box], MaskedImage]:
    whole = cache(lambda: item.read(item.box))
    return lambda box: whole()


def _skymap(repository: Repository, inputs: Sequence[CoaddInput], settings: CoaddSettings) -> SkyMap:
    if repository.entry("skymap", name="main"):
        existing: SkyMap = repository.get("skymap", name="main")
        return existing
    skymap = covering_skymap(inputs, patch_size=settings.patch_size_pixel, border=settings.border_pixel)
    repository.put(skymap, "skymap", name="main")
    return skymap


def _coadd_band(
    repository: Repository,
    inputs: Sequence[CoaddInput],
    skymap: SkyMap,
    settings: CoaddSettings,
    report: CoaddReport,
    progress: Progress,
) -> None:
    kept, band = sharp_enough(inputs, settings), inputs[0].info.band
    report.left_out += [f"{i.info.id}: {i.widest_arcsec:.2f} arcsec" for i in inputs if i not in kept]
    kept = _in_memory(kept)
    under: dict[tuple[int, int], list[CoaddInput]] = {}
    for item in kept:
        for place in skymap.patches_under(item.wcs, item.box):
            under.setdefault(place, []).append(item)
    for done, (number, patch) in enumerate(sorted(under), start=1):
        here, tract = under[number, patch], skymap.tract(number)
        target = common_psf(kept, tract.pixel_scale_arcsec, settings)
        try:
            value = coadd_patch(here, tract, patch, target, settings)
        except NoGoodPixels as error:
            report.problems.append(error.at(f"deepCoadd tract={number} patch={patch}"))
            continue
        made_from = _made_from(repository, here)
        repository.put(value.calexp, "deepCoadd", inputs=made_from, band=band, tract=number, patch=patch)
        report.patches.append(f"deepCoadd band={band} tract={number} patch={patch}: {len(here)} inputs")
        progress(f"coadd {band}", done, len(under))


def _made_from(repository: Repository, inputs: Sequence[CoaddInput]) -> list[Input]:
    """Return the calexps and the sky map that a patch was made from."""
    entries = [_entry(repository, item.info.id) for item in inputs] + [repository.entry("skymap", name="main")]
    return [repository.input(entry) for entry in entries if entry is not None]
