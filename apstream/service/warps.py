"""Warps of visits on patches: made of calexps and kept, for coadds that are made of them later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from apstream.errors import NoGoodPixels
from apstream.model.ids import VisitDetector
from apstream.pipeline.warps import visit_warp
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.calexps import Making, calexp_entry, deferred_input, make_calexps
from apstream.service.coadd import warp_type_name
from apstream.service.coadd_settings import CoaddReport, WarpSettings
from apstream.service.patches import PatchJob, good_inputs, patch_jobs, work_through
from apstream.service.skymap import skymap_around
from apstream.words import counted

__all__ = ["make_warps"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _WarpJob:
    """One visit on one patch, as one type of warp."""

    kind: str
    visit: int
    patch: PatchJob

    def __str__(self) -> str:
        return f"{self.kind} visit={self.visit} {self.patch}"


def make_warps(
    repository: Repository,
    jobs: Sequence[BatchJob],
    settings: WarpSettings,
    making: Making = Making(),
) -> CoaddReport:
    """Write ``directWarp`` and ``psfMatchedWarp`` of every visit on every wanted patch that it touches.

    Parameters
    ----------
    repository, jobs
        As those of `make_coadds`.

    Raises
    ------
    NoTemplateOverlap
        If no calexp could be made, or none lies on a wanted patch.
    """
    report = CoaddReport()
    ids = make_calexps(repository, jobs, settings.stages, report, making)
    inputs = [deferred_input(repository, id) for id in ids]
    skymap = skymap_around(repository, inputs, settings)
    kept = good_inputs(inputs, settings, report)
    work = []
    for kind in settings.warp_types:
        own = settings.model_copy(update={"warp_type": kind})
        for patch in patch_jobs(kept, skymap, making.choice, own, report):
            work += [_WarpJob(kind=kind, visit=v, patch=p) for v, p in _by_visit(patch)]
    told = partial(making.progress, "warps")
    work_through(repository, _warp, work, settings, processes=making.processes, report=report, progress=told)
    return report


def _by_visit(patch: PatchJob) -> list[tuple[int, PatchJob]]:
    visits: dict[int, list[VisitDetector]] = {}
    for id in patch.inputs:
        visits.setdefault(id.visit, []).append(id)
    return [(visit, replace(patch, inputs=tuple(ids))) for visit, ids in sorted(visits.items())]


def _warp(repository: Repository, job: _WarpJob, settings: WarpSettings) -> CoaddReport:
    patch, name = job.patch, warp_type_name(job.kind)
    inputs = [deferred_input(repository, id) for id in patch.inputs]
    try:
        made = visit_warp(inputs, patch.tract, patch.patch, patch.target, settings)
    except NoGoodPixels as error:
        return CoaddReport(left_out=[f"{name} visit={job.visit} {patch}: {error.message}"])
    entries = [*(calexp_entry(repository, id) for id in patch.inputs), repository.entry("skymap", name="main")]
    sources = [repository.input(entry) for entry in entries if entry is not None]
    repository.put(made, name, inputs=sources, visit=job.visit, **patch.data_id)
    good = int(made.metrics["warp.n_detectors"])
    return CoaddReport(patches=[f"{name} visit={job.visit} {patch}: {counted(good, 'detector')}"])
