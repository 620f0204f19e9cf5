"""Save: the products of one exposure go into the repository, each with what it was made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apstream.arrays.types import Records
from apstream.model.exposures import CalExp, ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.sources import source_catalog
from apstream.pipeline.pixels import PixelResult
from apstream.pipeline.report import stage_records
from apstream.repo.checksums import checksum_of
from apstream.repo.entries import Input
from apstream.repo.repository import Repository
from apstream.service.pixel_settings import RepositorySettings
from apstream.service.roots import local_file

__all__ = ["MadeFrom", "data_id_of", "raw_input", "save_result"]

_TEMPLATES = ("deepCoadd", "calexp")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFrom:
    """What the products of one exposure were made from."""

    calibration: tuple[Input, ...]
    templates: tuple[Input, ...]

    @classmethod
    def sort(cls, raw: Input, read: Iterable[Input]) -> MadeFrom:
        """Tell templates from the rest; without a reference catalogue they are what the calexp was calibrated on."""
        unique = list(_unique(read))
        templates = tuple(one for one in unique if one.type in _TEMPLATES)
        others = (raw, *(one for one in unique if one.type not in _TEMPLATES and one.type != "raw"))
        registered = templates if all(one.type != "refcat" for one in others) else ()
        return cls(calibration=(*others, *registered), templates=templates)


def save_result(
    output: Repository,
    result: PixelResult,
    made_from: MadeFrom,
    where: RepositorySettings,
    seconds: Mapping[str, float],
) -> None:
    """Store the wanted products of one exposure; a product that is stored stands for what it was made from."""
    put = _Putter(output, data_id_of(result.calexp.info), where)
    calexp = put("calexp", result.calexp, made_from.calibration)
    put("src", _sources(result.calexp), calexp)
    difference = put("deepDiff_differenceExp", result.pair.difference, (*calexp, *made_from.templates))
    put("deepDiff_diaSrc", result.pair.dia_sources, difference)
    put("processing_metadata", stage_records(result.products.metrics, seconds), difference)


def _sources(calexp: CalExp) -> Records:
    return source_catalog(calexp.stars, calexp.wcs, calexp.measured)


def data_id_of(info: ExposureInfo) -> dict[str, Any]:
    """Return the data id of an exposure's products."""
    return {"visit": info.id.visit, "detector": info.id.detector, "band": info.band}


def raw_input(repository: Repository, id: VisitDetector, path: Path | str) -> Input:
    """Return a raw frame as what others are made from, whether the repository has it or an event brought it."""
    entry = repository.entry("raw", visit=id.visit, detector=id.detector)
    if entry is not None and _real(repository.location(entry)) == _real(str(path)):
        return repository.input(entry)
    with local_file(path) as file:
        checksum = checksum_of(file)
    return Input("raw", {"visit": id.visit, "detector": id.detector}, checksum, "")


@dataclass(frozen=True, slots=True)
class _Putter:
    output: Repository
    data_id: Mapping[str, Any]
    where: RepositorySettings

    def __call__(self, dataset_type: str, value: Any, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        """Store a product if it is wanted; return what stands for it in the provenance of the next."""
        if dataset_type not in self.where.save:
            return inputs
        self.output.put(value, dataset_type, inputs=inputs, run=self.where.run, **self.data_id)
        entry = self.output.entry(dataset_type, **self.data_id)
        return inputs if entry is None else (self.output.input(entry),)


def _real(location: str) -> str:
    return location if "://" in location else os.path.realpath(location)


def _unique(read: Iterable[Input]) -> Iterator[Input]:
    seen: list[Input] = []
    for one in read:
        if one not in seen:
            seen.append(one)
            yield one
