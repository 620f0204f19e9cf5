"""Which exposures go into which patch: selection, the common PSF, and the work that this makes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from apstream.arrays.types import F64
from apstream.errors import ApstreamError, NoTemplateOverlap
from apstream.model.ids import VisitDetector
from apstream.model.skymap import SkyMap
from apstream.model.tract import Tract
from apstream.pipeline.coadd_inputs import CoaddInput, under_patches
from apstream.pipeline.coadds import CoaddConfig, common_psf, sharp_enough
from apstream.repo.repository import Repository
from apstream.service.choice import Choice
from apstream.service.coadd_settings import CoaddReport
from apstream.tasks.select_inputs import select_inputs
from apstream.words import counted, listed

__all__ = ["PatchJob", "good_inputs", "patch_jobs", "work_through"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PatchJob:
    """A patch of one band, and what goes into it.

    Parameters
    ----------
    inputs
        Calexps that lie on it, in order.
    target
        The PSF that all are brought to; None combines direct warps.
    """

    band: str
    tract: Tract
    patch: int
    inputs: tuple[VisitDetector, ...]
    target: F64 | None

    def __str__(self) -> str:
        return f"band={self.band} tract={self.tract.id} patch={self.patch}"

    @property
    def data_id(self) -> dict[str, Any]:
        """Its data id."""
        return {"band": self.band, "tract": self.tract.id, "patch": self.patch}


def good_inputs(inputs: Sequence[CoaddInput], config: CoaddConfig, report: CoaddReport) -> list[CoaddInput]:
    """Return the inputs that are good enough, in their order; the report gets the others with their reasons.

    Raises
    ------
    NoTemplateOverlap
        If none of them is; says why, of the first.
    """
    chosen = select_inputs([item.quality() for item in inputs], config.select)
    left_out = [f"{id}: {reason}" for id, reason in chosen.left_out.items()]
    if left_out and not chosen.kept:
        reasons = listed(left_out, between="; ")
        raise NoTemplateOverlap(
            f"none of {counted(len(left_out), 'exposure')} is good enough for a coadd: {reasons}",
            remedy="change the settings select.max_fwhm_arcsec, select.max_ellipticity",
        )
    report.left_out += left_out
    return [inputs[k] for k in chosen.kept]


def patch_jobs(
    inputs: Sequence[CoaddInput], skymap: SkyMap, choice: Choice, config: CoaddConfig, report: CoaddReport
) -> list[PatchJob]:
    """Return the wanted patches that the inputs touch, by band, tract and patch.

    The common PSF of a band is that of all its inputs, so that patches fit together, whichever are made.

    Raises
    ------
    NoTemplateOverlap
        If all inputs of a band are wider than the common PSF asked for, or none lies on a wanted patch.
    """
    jobs = []
    for band in sorted({item.info.band for item in inputs}):
        own = [item for item in inputs if item.info.band == band]
        kept = sharp_enough(own, config)
        report.left_out += [
            f"{i.info.id}: its PSF of {i.widest_arcsec:.2f} arcsec is too wide for the common one"
            for i in own
            if i not in kept
        ]
        targets: dict[float, F64 | None] = {}
        for (number, patch), here in under_patches(kept, skymap).items():
            if choice.wants(band, number, patch):
                tract = skymap.tract(number)
                scale = tract.pixel_scale_arcsec
                if scale not in targets:
                    targets[scale] = common_psf(kept, scale, config)
                ids = tuple(item.info.id for item in here)
                jobs.append(PatchJob(band=band, tract=tract, patch=patch, inputs=ids, target=targets[scale]))
    if not jobs:
        raise NoTemplateOverlap(
            f"none of {counted(len(inputs), 'exposure')} lies on {choice.patches or 'the sky map'}",
            remedy="apstream skymap REPO ls lists the patches, with --id visit=N those under an exposure",
        )
    return jobs


def work_through(
    repository: Repository,
    work: Callable[[Repository, Any, Any], CoaddReport],
    jobs: Sequence[Any],
    settings: Any,
    *,
    processes: int,
    report: CoaddReport,
    progress: Callable[[int, int], None],
) -> None:
    """Do all jobs, each with a repository of its own, in this process or in several; add up their reports."""
    place = (repository.root, repository.run)
    for done, (job, result) in enumerate(_results(place, work, jobs, settings, processes), start=1):
        if isinstance(result, ApstreamError):
            report.problems.append(result.at(str(job)))
        else:
            report.patches += result.patches
            report.left_out += result.left_out
        progress(done, len(jobs))


def _results(
    place: tuple[str, str],
    work: Callable[[Repository, Any, Any], CoaddReport],
    jobs: Sequence[Any],
    settings: Any,
    processes: int,
) -> Iterator[tuple[Any, CoaddReport | ApstreamError]]:
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, _one(place, work, job, settings)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(_one, place, work, job, settings) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            yield job, future.result()


def _one(
    place: tuple[str, str], work: Callable[[Repository, Any, Any], CoaddReport], job: Any, settings: Any
) -> CoaddReport | ApstreamError:
    """Do one job; what only this job cannot do is returned, what nobody can do is raised."""
    from apstream.errors import MissingInput, UnfitImage

    repository = Repository(place[0], run=place[1])
    try:
        return work(repository, job, settings)
    except (UnfitImage, MissingInput) as error:
        return error
    finally:
        repository.close()
