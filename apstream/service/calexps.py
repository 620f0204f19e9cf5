"""Calexps for coadds: those that are missing are made of their raws, all are referred to and not opened."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, NoTemplateOverlap
from apstream.model.exposures import CalExp
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.pipeline.coadd_inputs import CoaddInput
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import calibrate_raw
from apstream.repo.entries import Entry
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.choice import Choice
from apstream.service.coadd_settings import CoaddReport, Progress
from apstream.service.gather import gather_calibs, gather_reference, refcat_locations
from apstream.service.references import notes_on
from apstream.service.roots import read_raw_at
from apstream.service.save import raw_input
from apstream.tasks.warped_input import clipped_mean
from apstream.words import counted

__all__ = ["Making", "calexp_entry", "deferred_input", "in_memory", "make_calexps"]

#: Of a calexp in memory: image, variance and mask.
_BYTES_PER_PIXEL = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a command that works on calexps is told beside its settings.

    Parameters
    ----------
    choice
        Which patches; all that the exposures touch.
    reference
        The raw that the others are registered on, where there is no reference catalogue; default: the first.
        Its calexp goes into a product only if it is among the jobs.
    processes
        How many calexps or patches are made at a time.
    progress
        Gets the stage, how many are done and how many there are.
    """

    choice: Choice = field(default_factory=Choice)
    reference: BatchJob | None = None
    processes: int = 1
    progress: Progress = lambda stage, done, total: None


def make_calexps(
    repository: Repository, jobs: Sequence[BatchJob], stages: PixelConfig, report: CoaddReport, making: Making
) -> list[VisitDetector]:
    """Calibrate the raws that have no calexp; return the ids of all that there are then, in the order of the jobs.

    Parameters
    ----------
    report
        Gets what fails.

    Raises
    ------
    NoTemplateOverlap
        If there is none.
    DatasetNotFound
        If a reference catalogue that the settings name is not there.
    """
    missing = [job for job in jobs if job.path and calexp_entry(repository, job.id) is None]
    anchor = None
    if missing and not refcat_locations(repository, stages.calibrate):
        lead = making.reference or jobs[0]
        if calexp_entry(repository, lead.id) is None:
            report.notes += _calibrate_into((repository.root, repository.run), lead, None, stages)
        missing = [job for job in missing if job != lead]
        anchor = lead.id
    _calibrate_all(repository, missing, anchor, stages, report, making)
    found = [job.id for job in jobs if calexp_entry(repository, job.id) is not None]
    report.calexps = len(found)
    if not found:
        first = f"; the first: {report.problems[0]}" if report.problems else ""
        raise NoTemplateOverlap(f"no calexp could be made of {counted(len(jobs), 'raw')}{first}", where=repository.root)
    return found


def calexp_entry(repository: Repository, id: VisitDetector) -> Entry | None:
    """Return the entry of a calexp, None if there is none."""
    return repository.entry("calexp", visit=id.visit, detector=id.detector)


def deferred_input(repository: Repository, id: VisitDetector) -> CoaddInput:
    """Return a calexp as an input whose pixels are not read before they are needed."""
    about = repository.get("calexp.summary", visit=id.visit, detector=id.detector)
    return CoaddInput.deferred(about, partial(_pixels, repository, id), cache(partial(_weight, repository, id)))


def in_memory(inputs: Sequence[CoaddInput], memory_mb: int) -> tuple[list[CoaddInput], int]:
    """Let inputs be read once, whole, if they fit into half the memory allowed; else they are read part by part.

    Returns
    -------
    list
        The inputs.
    int
        The memory that is left, MB.
    """
    needed = sum(item.box.shape[0] * item.box.shape[1] for item in inputs) * _BYTES_PER_PIXEL / 1e6
    if needed > memory_mb / 2:
        return list(inputs), memory_mb
    return [replace(item, read=_once(item)) for item in inputs], memory_mb - int(needed)


def _once(item: CoaddInput) -> Callable[[Box], MaskedImage]:
    whole = cache(lambda: item.read(item.box))
    return lambda box: whole()


def _pixels(repository: Repository, id: VisitDetector, box: Box) -> MaskedImage:
    calexp: CalExp = repository.get("calexp", visit=id.visit, detector=id.detector, box=box)
    return calexp.image


def _weight(repository: Repository, id: VisitDetector) -> float:
    return 1 / clipped_mean(repository.get("calexp.variance_sample", visit=id.visit, detector=id.detector))


def _calibrate_all(
    repository: Repository,
    jobs: Sequence[BatchJob],
    anchor: VisitDetector | None,
    stages: PixelConfig,
    report: CoaddReport,
    making: Making,
) -> None:
    if not jobs:
        return
    context, place = multiprocessing.get_context("spawn"), (repository.root, repository.run)
    with ProcessPoolExecutor(max(1, min(making.processes, len(jobs))), mp_context=context) as pool:
        futures = [pool.submit(_calibrate_into, place, job, anchor, stages) for job in jobs]
        for done, (job, future) in enumerate(zip(jobs, futures, strict=True), start=1):
            try:
                report.notes += future.result()
            except ApstreamError as error:
                report.problems.append(error.at(str(job.path)))
            making.progress("calexps", done, len(jobs))


def _calibrate_into(
    place: tuple[str, str], job: BatchJob, anchor: VisitDetector | None, stages: PixelConfig
) -> tuple[str, ...]:
    repository = Repository(place[0], run=place[1])
    try:
        raw = read_raw_at(job.path, load_camera(repository.camera), detector=job.id.detector)
        with repository.tracking() as read:
            reference = _calexp(repository, anchor) if anchor else gather_reference(repository, raw, stages.calibrate)
            calibs = gather_calibs(repository, raw, stages)
        calexp = calibrate_raw(raw, calibs, reference, stages)
        info = calexp.info
        inputs = [raw_input(repository, job.id, job.path), *read]
        repository.put(calexp, "calexp", inputs=inputs, visit=info.id.visit, detector=info.id.detector, band=info.band)
        return notes_on(reference, info.band)
    except ApstreamError as error:
        raise error.at(str(job.path)) from error
    finally:
        repository.close()


def _calexp(repository: Repository, id: VisitDetector) -> CalExp:
    calexp: CalExp = repository.get("calexp", visit=id.visit, detector=id.detector)
    return calexp
