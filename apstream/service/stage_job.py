"""One stage on the frames of a repository: what ``apstream isr REPO`` and its sisters do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, DatasetNotFound
from apstream.model.exposures import CalExp, CharacterizedExposure, Exposure, RawExposure
from apstream.model.sources import source_catalog
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.stages import stages_of
from apstream.repo.checksums import checksum_of
from apstream.repo.entries import Input
from apstream.repo.formats.single import read_any_psf
from apstream.repo.repository import Repository
from apstream.service.batch import BatchJob, BatchResult
from apstream.service.gather import gather_calibs, gather_reference
from apstream.service.outputs import BatchPlaces, keep_record
from apstream.service.references import notes_on
from apstream.service.roots import read_raw_at
from apstream.service.save import data_id_of, raw_input
from apstream.tasks.astrometry import with_first_guess

__all__ = ["STAGES", "run_stage"]

#: How many sources a stage found, and what is to be known of its inputs.
_Made: TypeAlias = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shop:
    """Where a stage works and what it is told."""

    repository: Repository
    output: Repository
    config: PixelConfig
    run: str
    psf: Path | None = None

    def raw(self, job: BatchJob) -> RawExposure:
        return read_raw_at(job.path, load_camera(self.repository.camera), detector=job.id.detector)

    def put(self, value: Any, dataset_type: str, inputs: Sequence[Input], data_id: Mapping[str, Any]) -> None:
        self.output.put(value, dataset_type, inputs=inputs, run=self.run, **data_id)

    @contextmanager
    def reading(self) -> Iterator[list[Input]]:
        """Yield a list that all that is read from either repository is added to."""
        found: list[Input] = []
        with self.output.tracking() as here, self.repository.tracking() as there:
            yield found
            found += [*here, *(one for one in there if one not in here)]


def run_stage(
    stage: str,
    places: BatchPlaces,
    jobs: Sequence[BatchJob],
    config: PixelConfig,
    *,
    replace_run: bool = False,
    psf: Path | None = None,
    on_end: Callable[[BatchResult], None] = lambda result: None,
) -> list[BatchResult]:
    """Run one stage on the selected frames; one that fails does not stop the others.

    Parameters
    ----------
    stage
        ``isr`` makes postISRCCD of raws, ``characterize`` icExp and icSrc of these, ``calibrate`` calexp and src.
    psf
        File of the PSF of all frames, for ``characterize``, whose settings must let it be supplied.

    Raises
    ------
    Conflict
        If the stage ran there with other settings, versions or schemas.
    """
    repository = Repository(places.root)
    output = places.open_output()
    run = keep_record(output, stage, config, {}, replace=replace_run)
    shop = _Shop(repository=repository, output=output, config=config, run=run, psf=psf)
    results = []
    for job in jobs:
        results.append(_attempt(STAGES[stage], shop, job))
        on_end(results[-1])
    return results


def _attempt(stage: Callable[[_Shop, BatchJob], _Made], shop: _Shop, job: BatchJob) -> BatchResult:
    started = time.perf_counter()
    try:
        n_sources, notes = stage(shop, job)
    except ApstreamError as error:
        reason = f"{type(error).__name__}: {error.at(str(job.path))}"
        return BatchResult(id=job.id, outcome="failed", reason=reason, seconds=time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return BatchResult(id=job.id, outcome="processed", n_sources=n_sources, seconds=seconds, notes=notes)


def _isr(shop: _Shop, job: BatchJob) -> _Made:
    raw = shop.raw(job)
    with shop.reading() as read:
        calibs = gather_calibs(shop.repository, raw, shop.config)
    exposure = stages_of(shop.config.replace).isr(raw, calibs, shop.config.isr)
    inputs = [raw_input(shop.repository, job.id, job.path), *read]
    shop.put(exposure, "postISRCCD", inputs, data_id_of(raw.info))
    return 0, ()


def _characterize(shop: _Shop, job: BatchJob) -> _Made:
    with shop.reading() as read:
        exposure: Exposure = _get(shop.output, "postISRCCD", job, "make it with apstream isr, into the same rerun")
    if shop.psf is not None:
        exposure = replace(exposure, psf=read_any_psf(shop.psf, exposure.box))
        read.append(Input("psf", {"path": str(shop.psf)}, checksum_of(shop.psf)))
    found = stages_of(shop.config.replace).characterize(exposure, shop.config.characterize)
    shop.put(found, "icExp", read, data_id_of(found.info))
    shop.put(source_catalog(found.stars, found.wcs, found.measured), "icSrc", read, data_id_of(found.info))
    return len(found.stars), ()


def _calibrate(shop: _Shop, job: BatchJob) -> _Made:
    with shop.reading() as read:
        found: CharacterizedExposure = _get(shop.output, "icExp", job, _way_to_characterized(shop.output, job))
        raw = shop.raw(job)
        reference = gather_reference(shop.repository, raw, shop.config.calibrate)
    if reference is None:
        remedy = "apstream repo ingest a catalogue; apstream run registers frames on their template without one"
        raise DatasetNotFound("no location for refcat with name=main", where=shop.repository.root, remedy=remedy)
    found = with_first_guess(found, shop.config.calibrate.astrometry, raw.detector.pixel_scale_arcsec)
    calexp: CalExp = stages_of(shop.config.replace).calibrate(found, reference, shop.config.calibrate)
    shop.put(calexp, "calexp", read, data_id_of(calexp.info))
    shop.put(source_catalog(calexp.stars, calexp.wcs, calexp.measured), "src", read, data_id_of(calexp.info))
    return len(calexp.stars), notes_on(reference, raw.info.band)


def _way_to_characterized(repository: Repository, job: BatchJob) -> str:
    if repository.entry("postISRCCD", visit=job.id.visit, detector=job.id.detector) is not None:
        return "make it with apstream characterize, into the same rerun"
    return "apstream isr and apstream characterize go before, into the same rerun; apstream coadd takes raws itself"


def _get(repository: Repository, dataset_type: str, job: BatchJob, remedy: str) -> Any:
    try:
        return repository.get(dataset_type, visit=job.id.visit, detector=job.id.detector)
    except DatasetNotFound as error:
        raise DatasetNotFound(error.message, where=error.where, remedy=remedy) from error


#: The stages that run alone.
STAGES: dict[str, Callable[[_Shop, BatchJob], _Made]] = {
    "isr": _isr,
    "characterize": _characterize,
    "calibrate": _calibrate,
}
