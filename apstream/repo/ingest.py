"""Taking files into a repository: raws by their headers, calibrations and catalogues by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, BadFile, FileMissing
from apstream.repo.formats.catalogs import read_refcat
from apstream.repo.formats.raw import read_raw_info
from apstream.repo.repository import FileRepository

__all__ = ["IngestReport", "ingest_sources"]

_FITS = re.compile(r"\.(fits?|fts)(\.(gz|fz|bz2))?$", re.IGNORECASE)
_CALIBS = {"bias", "dark", "flat", "defects"}
_NUMBER = re.compile(r"^d?(\d+)$")
_TABLE = {".parquet", ".csv", ".pq"}


@dataclass(slots=True)
class IngestReport:
    """How many datasets of each type came in, and what did not."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[ApstreamError] = field(default_factory=list)


def ingest_sources(repository: FileRepository, sources: Sequence[Path], *, copy: bool = False) -> IngestReport:
    """Take files and folders in; one bad file is reported and the others go on.

    Names decide: ``refcat*`` tables are reference catalogues, ``bias_0.fits``, ``dark_0.fits``,
    ``flat_r_0.fits`` and ``defects_0.fits`` (or ``bias_d00.fits``, ...) in a folder called ``calib`` are
    calibrations of that detector, every other FITS file is a raw frame, known by its header.
    """
    report = IngestReport()
    for path in _files(sources, report):
        try:
            report.counts[_ingest(repository, path, copy)] += 1
        except ApstreamError as error:
            report.problems.append(error.at(str(path)))
    return report


def _files(sources: Sequence[Path], report: IngestReport) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from sorted(p for p in source.rglob("*") if p.is_file() and _is_ours(p))
        elif source.is_file():
            yield source
        else:
            report.problems.append(FileMissing("no such file or folder", where=str(source), remedy="check the path"))


def _is_ours(path: Path) -> bool:
    if "truth" in path.parts:
        return False
    return bool(_FITS.search(path.name)) or (path.name.startswith("refcat") and path.suffix in _TABLE)


def _ingest(repository: FileRepository, path: Path, copy: bool) -> str:
    if path.name.lower().startswith("refcat"):
        read_refcat(path)
        repository.ingest(path, "refcat", copy=copy, name="main")
        return "refcat"
    if path.parent.name.startswith("calib"):
        return _ingest_calib(repository, path, copy)
    camera = load_camera(repository.camera)
    info = read_raw_info(path, camera)
    repository.ingest(
        path, "raw", copy=copy, visit=info.id.visit, detector=info.id.detector, band=info.band
    )
    return "raw"


def _ingest_calib(repository: FileRepository, path: Path, copy: bool) -> str:
    kind, *words = re.split(r"[-_.]", path.name.split(".")[0].lower())
    if kind not in _CALIBS:
        raise BadFile(
            "the name tells no calibration", where=str(path), remedy="call it bias_0.fits, flat_r_0.fits, ..."
        )
    numbers = [int(found[1]) for word in words if (found := _NUMBER.match(word))]
    bands = [word for word in words if not _NUMBER.match(word)]
    data_id: dict[str, Any] = {"detector": numbers[0] if numbers else 0}
    if kind == "flat":
        data_id["band"] = bands[0] if bands else "any"
    repository.ingest(path, kind, copy=copy, **data_id)
    return kind
