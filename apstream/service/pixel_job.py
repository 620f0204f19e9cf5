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
from apstream.pipeline.pixels import PixelResult, find_dia_sources
from apstream.repo.formats.raw import read_raw
from apstream.repo.repository import Repository
from apstream.service.gather import gather_inputs
from apstream.service.pixel_settings import PixelSettings
from apstream.service.request import PixelRequest
from apstream.service.save import save_result

__all__ = ["Stopwatch", "open_repository", "pixel_job", "process_raw"]


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
            repository = open_repository(where.root)
            raw = read_raw(path, load_camera(repository.camera), detector=detector)
            templates = open_repository(where.template_root or where.root)
            inputs = gather_inputs(repository, raw, known, templates=templates, template_id=where.template_id)
        result: PixelResult = find_dia_sources(raw, inputs, settings.stages, watch)
        with watch("save"):
            save_result(open_repository(where.output_root or where.root), result, frozenset(where.save))
    except ApstreamError as error:
        raise error.at(str(path)) from error
    return replace(result.products, timings_s=watch.seconds)


@lru_cache(maxsize=8)
def open_repository(root: Path) -> Repository:
    """Open a repository once per process."""
    return Repository(root)
