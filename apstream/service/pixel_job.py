"""The work of a child process for one exposure: gather, compute, save."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from apstream.cameras import load_camera
from apstream.errors import ApstreamError
from apstream.model.products import KnownObjects, PixelProducts
from apstream.pipeline.config import PixelConfig
from apstream.pipeline.pixels import find_dia_sources
from apstream.repo.repository import Repository
from apstream.service.gather import gather_inputs
from apstream.service.pixel_settings import PixelSettings, RepositorySettings
from apstream.service.references import notes_on
from apstream.service.request import PixelRequest
from apstream.service.roots import read_raw_at
from apstream.service.save import MadeFrom, raw_input, save_result
from apstream.settings import Source, build_settings, camera_source

__all__ = ["Stopwatch", "open_repository", "pixel_job", "process_raw", "stages_for"]


class Stopwatch:
    """Seconds spent per stage, in the order in which the stages ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def pixel_job(request: PixelRequest) -> PixelProducts:
    """Do the work of one request; what a child process of the service calls."""
    settings = PixelSettings.model_validate(request.settings)
    return process_raw(request.path, request.event.detector, request.known, settings)


def process_raw(path: Path | str, detector: int | None, known: KnownObjects, settings: PixelSettings) -> PixelProducts:
    """Turn one raw file into DIA sources, store the images, and return the small things.

    Raises
    ------
    ApstreamError
        Whatever is wrong with the file or its inputs; names the file.
    """
    watch = Stopwatch()
    where = settings.repository
    try:
        with watch("gather"):
            output = open_repository(where.output_root or where.root)
            repository = open_repository(where.root)
            templates = _templates(where, repository, output)
            raw = read_raw_at(path, load_camera(repository.camera), detector=detector)
            with repository.tracking() as read, templates.tracking() as read_there:
                stages = stages_for(repository.camera, settings.stages)
                inputs = gather_inputs(
                    repository,
                    raw,
                    known,
                    templates=templates,
                    template_id=where.template_id,
                    config=stages,
                )
        result = find_dia_sources(raw, inputs, stages, watch)
        with watch("save"):
            made_from = MadeFrom.sort(raw_input(repository, raw.info.id, path), [*read, *read_there])
            save_result(output, result, made_from, where, watch.seconds)
    except ApstreamError as error:
        raise error.at(str(path)) from error
    notes = notes_on(inputs.reference, raw.info.band)
    return replace(result.products, timings_s=watch.seconds, notes=notes)


def _templates(where: RepositorySettings, repository: Repository, output: Repository) -> Repository:
    """Templates come from where the products go if that is a rerun of the repository, else from the repository."""
    if where.template_root:
        return open_repository(where.template_root)
    is_rerun = any(place.store.url == repository.root for place in output.chain.places)
    return output if is_rerun else repository


@lru_cache(maxsize=8)
def open_repository(root: str) -> Repository:
    """Open a repository once per process."""
    return Repository(root)


def stages_for(camera: str, chosen: PixelConfig) -> PixelConfig:
    """Return the stages' settings with the camera's below them.

    Raises
    ------
    BadSettings
        If the camera's settings are wrong.
    """
    own = load_camera(camera).settings
    if not own:
        return chosen
    given = chosen.model_dump(mode="json", exclude_unset=True)
    return build_settings(PixelConfig, [camera_source(own, camera), Source(given, "pixels.stages")])
