"""Taking files into a repository: raws by their headers, calibrations and catalogues by their names."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from astropy.io import fits

from apstream.cameras import Camera, load_camera
from apstream.errors import ApstreamError, BadFile, FileMissing
from apstream.model.bright_objects import ANY_BAND
from apstream.model.exposures import ExposureInfo
from apstream.repo.data_ids import parse_date
from apstream.repo.formats.calibs import require_kind
from apstream.repo.formats.companions import bundle_raw, companion_paths
from apstream.repo.formats.hats import is_hats
from apstream.repo.formats.hdus import open_fits
from apstream.repo.formats.htm import is_htm_shards
from apstream.repo.formats.parquet import read_any_table
from apstream.repo.formats.raw import list_detectors
from apstream.repo.formats.regions import read_regions
from apstream.repo.repository import Repository
from apstream.repo.validity import ALWAYS

__all__ = ["IngestReport", "ingest_curated", "ingest_sources"]

_FITS = re.compile(r"\.(fits?|fts)(\.(gz|fz|bz2))?$", re.IGNORECASE)
#: What the first word of a file's name, in lower case, says it is.
_CALIBS = {
    kind.lower(): kind
    for kind in (
        *("bias", "dark", "flat", "fringe", "defects"),
        *("crosstalk", "linearity", "ptc", "bfKernel", "transmission"),
    )
}
_NUMBER = re.compile(r"^d?(\d+)$")
_TABLE = {".parquet", ".csv", ".pq"}
_NO_FRAMES = {*_TABLE, ".ecsv", ".yaml", ".yml", ".txt"}
_BRIGHT = re.compile(r"^bright[a-z]*(?:_(?:objects?|stars?|masks?))*(?:_([a-z0-9]+))?$", re.IGNORECASE)
_SPANS = re.compile(r"^mask_spans_([a-z0-9]+)_(\d+)$", re.IGNORECASE)
_VALID_CARDS = ("VALIDBEG", "VALIDEND")


@dataclass(slots=True)
class IngestReport:
    """How many datasets of each type came in, and what did not."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[ApstreamError] = field(default_factory=list)


def ingest_sources(
    repository: Repository,
    sources: Sequence[Path],
    *,
    copy: bool = False,
    valid: tuple[float, float] | None = None,
) -> IngestReport:
    """Take files and folders in; one bad file is reported and the others go on.

    Names decide: ``refcat*`` tables, HATS folders and HTM shards are reference catalogues; ``bias_0.fits``,
    ``flat_r_0.fits``, ``defects_0.yaml``, ``crosstalk_0.yaml`` (or ``bias_d00.fits``, ...) in a folder whose
    name begins with calib are calibrations of that detector; ``bright_r.reg`` (or .csv, .parquet) are bright objects
    of a band, ``bright.reg`` of all that have none of their own; ``mask_spans_r_0.csv`` (or .parquet) are spans of
    band r on tract 0; every other FITS file is a raw frame, known by its header.

    Parameters
    ----------
    valid
        Span (MJD TAI) that calibrations hold for; default: their VALIDBEG and VALIDEND cards, or always.
    """
    report = IngestReport()
    camera = load_camera(repository.camera)
    for path in _files(sources, report):
        try:
            for kind, count in _ingest(repository, camera, path, copy=copy, valid=valid).items():
                report.counts[kind] += count
        except ApstreamError as error:
            report.problems.append(error.at(str(path)))
    return report


def ingest_curated(repository: Repository) -> IngestReport:
    """Store the calibrations that ship with the camera; those of an earlier time stay as they are."""
    report = IngestReport()
    for calib in load_camera(repository.camera).curated():
        try:
            repository.put(calib.value, calib.type, valid=calib.valid, detector=calib.detector)
            report.counts[calib.type] += 1
        except ApstreamError as error:
            report.problems.append(error.at(f"curated {calib.type} of detector {calib.detector}"))
    return report


def _files(sources: Sequence[Path], report: IngestReport) -> Iterator[Path]:
    for source in sources:
        if is_hats(source) or is_htm_shards(source):
            yield source
        elif source.is_dir():
            yield from _inside(source)
        elif source.is_file():
            yield source
        else:
            report.problems.append(FileMissing("no such file or folder", where=str(source), remedy="check the path"))


def _inside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name == "truth" or path.name.startswith("."):
            continue
        if path.is_dir():
            yield from [path] if is_hats(path) or is_htm_shards(path) else _inside(path)
        elif _is_ours(path):
            yield path


def _is_ours(path: Path) -> bool:
    if _FITS.search(path.name):
        return True
    if _is_bright(path) or _is_spans(path):
        return True
    if path.suffix in _TABLE:
        return path.name.startswith("refcat") or _is_calib(path)
    return path.suffix in {".yaml", ".yml"} and _is_calib(path)


def _is_calib(path: Path) -> bool:
    return path.parent.name.lower().startswith("calib")


def _is_bright(path: Path) -> bool:
    return path.suffix.lower() in {".reg", *_TABLE} and path.name.lower().startswith("bright")


def _is_spans(path: Path) -> bool:
    return path.suffix.lower() in _TABLE and path.name.lower().startswith("mask_spans")


def _ingest(
    repository: Repository,
    camera: Camera,
    path: Path,
    *,
    copy: bool,
    valid: tuple[float, float] | None,
) -> dict[str, int]:
    if path.name.lower().startswith("refcat") or is_hats(path) or is_htm_shards(path):
        repository.ingest_refcat([path], copy=copy)
        return {"refcat": 1}
    if _is_bright(path):
        repository.put(read_regions(path), "brightObjectMask", band=_bright_band(path))
        return {"brightObjectMask": 1}
    if _is_spans(path):
        repository.put(_spans(path), "altMaskSpans", **_spans_id(path))
        return {"altMaskSpans": 1}
    if _is_calib(path):
        return {_ingest_calib(repository, path, copy, valid): 1}
    if _is_companion(path, camera):
        return {}
    if path.suffix.lower() in _NO_FRAMES:
        remedy = "call a catalogue refcat*, or say --refcat main; put calibrations into a folder called calib"
        raise BadFile("its name does not say what it is", where=str(path), remedy=remedy)
    infos = list_detectors(path, camera)
    with _with_companions(path, camera, copy=copy or "://" in repository.root) as source:
        repository.ingest_many(source, "raw", [_raw_id(info) for info in infos], copy=copy)
    return {"raw": len(infos)}


def _bright_band(path: Path) -> str:
    found = _BRIGHT.match(path.stem)
    if found is None:
        raise BadFile("the name tells no band", where=str(path), remedy="call it bright_r.reg, or bright.reg for all")
    return found[1] or ANY_BAND


def _spans(path: Path) -> pa.Table:
    table = read_any_table(path)
    if missing := {"visit", "plane", "y0", "x0", "y1", "x1"} - set(table.column_names):
        message = f"mask spans without {', '.join(sorted(missing))}"
        raise BadFile(message, where=str(path), remedy="give visit, perhaps detector, plane, y0, x0, y1, x1 and value")
    return table


def _spans_id(path: Path) -> dict[str, Any]:
    found = _SPANS.match(path.stem)
    if found is None:
        raise BadFile("the name tells no band and tract", where=str(path), remedy="call it mask_spans_r_0.csv")
    return {"band": found[1], "tract": int(found[2])}


@contextmanager
def _with_companions(path: Path, camera: Camera, *, copy: bool) -> Iterator[Path]:
    """A copy cannot find what lies beside the original: it takes weight and mask along."""
    if not copy or not companion_paths(path, camera):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / path.name
        bundle_raw(path, camera, bundle)
        yield bundle


def _is_companion(path: Path, camera: Camera) -> bool:
    """Whether a file is the weight or mask beside an image, which is taken in with it."""
    swaps = [spec.replace for spec in camera.companions.items().values()]
    return any(new in path.name and path.with_name(path.name.replace(new, old)).exists() for old, new in swaps)


def _raw_id(info: ExposureInfo) -> dict[str, Any]:
    return {
        "visit": info.id.visit,
        "detector": info.id.detector,
        "band": info.band,
        "day": _night(info.mid_mjd_tai),
        "observation_type": info.observation_type,
    }


def _night(mjd_tai: float) -> int:
    """Return the date, yyyymmdd, of the evening of the night (UTC noon to noon)."""
    from astropy.time import Time

    evening = Time(mjd_tai - 0.5, format="mjd", scale="tai").utc
    return int(evening.strftime("%Y%m%d"))


def _ingest_calib(repository: Repository, path: Path, copy: bool, valid: tuple[float, float] | None) -> str:
    first, *words = re.split(r"[-_.]", path.name.split(".")[0].lower())
    kind = _CALIBS.get(first)
    if kind is None:
        raise BadFile(
            "the name tells no calibration", where=str(path), remedy="call it bias_0.fits, flat_r_0.fits, ..."
        )
    require_kind(path, kind)
    numbers = [int(found[1]) for word in words if (found := _NUMBER.match(word))]
    bands = [word for word in path.name.split(".")[0].split("_")[1:] if not _NUMBER.match(word)]
    data_id: dict[str, Any] = {} if kind == "transmission" else {"detector": numbers[0] if numbers else 0}
    if kind in ("flat", "fringe", "transmission"):
        data_id["band"] = bands[0] if bands else "any"
    repository.ingest(path, kind, copy=copy, valid=valid or _span_of(path), **data_id)
    return kind


def _span_of(path: Path) -> tuple[float, float] | None:
    if not _FITS.search(path.name):
        return None
    with open_fits(path) as hdus:
        header: fits.Header = hdus[0].header
        begin, end = (header.get(card) for card in _VALID_CARDS)
    if begin is None and end is None:
        return None
    return (
        ALWAYS[0] if begin is None else parse_date(begin),
        ALWAYS[1] if end is None else parse_date(end),
    )
