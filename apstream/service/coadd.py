"""Templates from raws, calexps or warps: choose what is good enough, coadd patch by patch, keep the products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from apstream.errors import DatasetNotFound, NoTemplateOverlap
from apstream.model.bright_objects import ANY_BAND, NO_BRIGHT_OBJECTS, BrightObjects
from apstream.model.exposures import CalExp
from apstream.model.geometry import Box
from apstream.model.ids import VisitDetector
from apstream.model.image import MaskedImage
from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.pipeline.coadd_table import inputs_table
from apstream.pipeline.coadds import CoaddPatch, coadd_patch, coadd_warps
from apstream.pipeline.warps import check_common_psf, stored_warp, warp_quality
from apstream.repo.entries import Entry, Input
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob
from apstream.service.calexps import Making, calexp_entry, deferred_input, in_memory, make_calexps
from apstream.service.choice import Choice
from apstream.service.coadd_settings import CoaddReport, CoaddSettings
from apstream.service.patches import PatchJob, good_inputs, patch_jobs, work_through
from apstream.service.skymap import around, find_skymap, skymap_around
from apstream.tasks.coadd_regions import MaskSpan, mask_spans, spans_of
from apstream.tasks.select_inputs import select_inputs
from apstream.words import counted

__all__ = ["coadd_stored_warps", "make_coadds", "planned", "warp_type_name", "warps_there"]


def make_coadds(
    repository: Repository,
    jobs: Sequence[BatchJob],
    settings: CoaddSettings,
    making: Making = Making(),
) -> CoaddReport:
    """Make the ``deepCoadd`` patches of the selected exposures.

    Parameters
    ----------
    repository
        Where calexps and coadds go; raws, calibrations and catalogues are read through it, from its parents too.
    jobs
        The exposures; raws without a calexp are calibrated first.

    Raises
    ------
    NoTemplateOverlap
        If no calexp could be made, or none lies on a wanted patch.
    """
    report = CoaddReport()
    ids = make_calexps(repository, jobs, settings.stages, report, making)
    inputs = [deferred_input(repository, id) for id in ids]
    skymap = skymap_around(repository, inputs, settings)
    wanted = patch_jobs(good_inputs(inputs, settings, report), skymap, making.choice, settings, report)
    told = partial(making.progress, "coadds")
    work_through(repository, _coadd, wanted, settings, processes=making.processes, report=report, progress=told)
    return report


def planned(
    repository: Repository, jobs: Sequence[BatchJob], settings: CoaddSettings, choice: Choice
) -> tuple[CoaddReport, list[PatchJob]]:
    """Return the patches that `make_coadds` would make of the calexps that are there; makes and opens nothing.

    Raises
    ------
    NoTemplateOverlap
        If there is no calexp, or none lies on a wanted patch.
    """
    report = CoaddReport()
    there = [job.id for job in jobs if calexp_entry(repository, job.id) is not None]
    if not there:
        message = f"none of {counted(len(jobs), 'exposure')} has a calexp yet"
        raise NoTemplateOverlap(message, where=repository.root, remedy="without --show they are made")
    inputs = [deferred_input(repository, id) for id in there]
    skymap = find_skymap(repository) or around(inputs, settings)
    return report, patch_jobs(good_inputs(inputs, settings, report), skymap, choice, settings, report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WarpsJob:
    """A patch of one band, and the warps that go into it."""

    band: str
    tract: Tract
    patch: int
    visits: tuple[int, ...]

    def __str__(self) -> str:
        return f"band={self.band} tract={self.tract.id} patch={self.patch}"

    @property
    def data_id(self) -> dict[str, Any]:
        return {"band": self.band, "tract": self.tract.id, "patch": self.patch}


def coadd_stored_warps(
    repository: Repository,
    settings: CoaddSettings,
    making: Making,
) -> CoaddReport:
    """Make the ``deepCoadd`` patches of warps that ``apstream warp`` made.

    Raises
    ------
    DatasetNotFound
        If there is none for the wanted patches, or no sky map.
    """
    jobs = warps_there(repository, settings, making.choice)
    report, told = CoaddReport(), partial(making.progress, "coadds")
    work_through(repository, _coadd_warps, jobs, settings, processes=making.processes, report=report, progress=told)
    return report


def warps_there(repository: Repository, settings: CoaddSettings, choice: Choice) -> list[_WarpsJob]:
    """Return the patches that `coadd_stored_warps` would make, with their visits; makes and opens nothing.

    Raises
    ------
    DatasetNotFound
        If there is no warp for the wanted patches, or no sky map.
    """
    kind, skymap = warp_type_name(settings.warp_type), find_skymap(repository)
    entries = repository.find(kind, repository.select(choice.inputs))
    groups: dict[tuple[str, int, int], list[int]] = {}
    for entry in entries:
        place = (entry.data_id["band"], entry.data_id["tract"], entry.data_id["patch"])
        if choice.wants(*place):
            groups.setdefault(place, []).append(entry.data_id["visit"])
    if not groups or skymap is None:
        words = " ".join(choice.inputs) or "any id"
        remedy = "make it with apstream warp, into the same rerun"
        raise DatasetNotFound(f"no location for {kind} with {words}", where=repository.root, remedy=remedy)
    return [
        _WarpsJob(band=band, tract=skymap.tract(tract), patch=patch, visits=tuple(sorted(groups[band, tract, patch])))
        for band, tract, patch in sorted(groups)
    ]


def warp_type_name(warp_type: str) -> str:
    """Return the dataset type of warps that are matched or not."""
    return "directWarp" if warp_type == "direct" else "psfMatchedWarp"


def _coadd(repository: Repository, job: PatchJob, settings: CoaddSettings) -> CoaddReport:
    inputs, left = in_memory([deferred_input(repository, id) for id in job.inputs], settings.assemble.memory_mb)
    settings = settings.model_copy(update={"assemble": settings.assemble.model_copy(update={"memory_mb": left})})
    bright = _bright_objects(repository, job)
    spans = _spans(repository, job, [item.info.id for item in inputs])
    made = coadd_patch(inputs, job.tract, job.patch, job.target, settings, bright, spans)
    entries = [calexp_entry(repository, id) for id in job.inputs]
    return _keep(repository, job, made, [item.about for item in inputs], entries)


def _coadd_warps(repository: Repository, job: _WarpsJob, settings: CoaddSettings) -> CoaddReport:
    kind, report = warp_type_name(settings.warp_type), CoaddReport()
    ids = [{"visit": visit, **job.data_id} for visit in job.visits]
    about: list[CalExpSummary] = [repository.get(f"{kind}.summary", **id) for id in ids]
    chosen = select_inputs([warp_quality(one) for one in about], settings.select)
    ids, about = [ids[k] for k in chosen.kept], [about[k] for k in chosen.kept]
    if settings.warp_type == "psf_matched":
        check_common_psf(about)
    warps = [stored_warp(one, partial(_pixels, repository, kind, id)) for one, id in zip(about, ids, strict=True)]
    warps = mask_spans(warps, _spans(repository, job, [one.info.id for one in about], detectors=False))
    made = coadd_warps(warps, about, job.tract, job.patch, settings, _bright_objects(repository, job))
    report = _keep(repository, job, made, about, [repository.entry(kind, **id) for id in ids])
    report.left_out += [f"{id} on {job}: {reason}" for id, reason in chosen.left_out.items()]
    return report


def _bright_objects(repository: Repository, job: PatchJob | _WarpsJob) -> BrightObjects:
    """Return the regions of the job's band, else those of all bands."""
    for band in (job.band, ANY_BAND):
        if repository.entry("brightObjectMask", band=band) is not None:
            found: BrightObjects = repository.get("brightObjectMask", band=band)
            return found
    return NO_BRIGHT_OBJECTS


def _spans(
    repository: Repository, job: PatchJob | _WarpsJob, inputs: Sequence[VisitDetector], *, detectors: bool = True
) -> list[MaskSpan]:
    """Return the mask spans of the inputs; rows without a detector, and all of warps of visits, go by visit alone."""
    place: dict[str, Any] = {"band": job.band, "tract": job.tract.id}
    if repository.entry("altMaskSpans", **place) is None:
        return []
    rows = repository.get("altMaskSpans", **place).to_pylist()
    return spans_of(
        {"value": True, **row, "name": str(id)}
        for row in rows
        for id in inputs
        if row.get("visit") == id.visit and (not detectors or row.get("detector") in (None, id.detector))
    )


def _pixels(repository: Repository, kind: str, data_id: dict[str, Any], box: Box) -> MaskedImage:
    image: MaskedImage = repository.get(kind, box=box, **data_id).image
    return image


def _keep(
    repository: Repository,
    job: PatchJob | _WarpsJob,
    made: CoaddPatch,
    about: Sequence[CalExpSummary],
    entries: Sequence[Entry | None],
) -> CoaddReport:
    """Store the products of a patch, the coadd itself last."""
    sources: list[Input] = [repository.input(e) for e in [*entries, repository.entry("skymap", name="main")] if e]
    coadd = made.coadd
    products = {
        "deepCoadd_nImage": coadd.count,
        "deepCoadd_inputMap": coadd.input_map,
        "deepCoadd_inputs": inputs_table(made, about, job.tract),
        "deepCoadd": made.calexp,
    }
    for name, value in products.items():
        repository.put(value, name, inputs=sources, **job.data_id)
    report = CoaddReport(patches=[f"deepCoadd {job}: {counted(len(coadd.inputs), 'input')}" + _psf_note(made.calexp)])
    report.left_out = [f"{one.name} on {job}: {one.reason}" for one in coadd.skipped]
    return report


def _psf_note(calexp: CalExp) -> str:
    if not calexp.psf_parts:
        return ""
    misfit = calexp.metrics["coadd.psf_misfit"]
    return f"; exposures of other seeing begin and end here: a smooth PSF is up to {misfit:.0%} off, its parts are kept"
