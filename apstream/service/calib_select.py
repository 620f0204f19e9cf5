"""Which raw frames go into which calibration product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apstream.cameras import Camera, load_camera
from apstream.errors import DatasetNotFound, FileMissing
from apstream.model.exposures import ExposureInfo
from apstream.repo.data_ids import check_keys
from apstream.repo.entries import Entry, Input
from apstream.repo.formats.raw import read_raw_info
from apstream.repo.repository import Repository
from apstream.repo.selection import Selection
from apstream.service.roots import local_file
from apstream.service.targets import require_distinct

__all__ = ["FrameGroup", "group_files", "group_raws"]

_KIND = "observation_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGroup:
    """Raw frames of one detector, and of one band where that matters.

    Parameters
    ----------
    detector
        None: the one that the files hold.
    band
        Empty where it does not matter.
    mjd
        Time of the first frame, MJD TAI.
    """

    detector: int | None
    band: str = ""
    paths: tuple[str, ...]
    inputs: tuple[Input, ...] = ()
    mjd: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"detector={self.detector}" + (f" band={self.band}" if self.band else "")


def group_files(paths: Sequence[Path], detector: int | None) -> FrameGroup:
    """Return files as one group; FileMissing names one that is not there, BadSettings one that is there twice."""
    for path in paths:
        if not path.is_file():
            raise FileMissing("no such file", where=str(path), remedy="check the path")
    require_distinct(paths)
    return FrameGroup(detector=detector, paths=tuple(map(str, paths)))


def group_raws(
    repository: Repository, words: Sequence[str], observed: Sequence[str], *, by_band: bool
) -> list[FrameGroup]:
    """Return the raws that a selection names, by detector and band, in order of visit.

    Parameters
    ----------
    observed
        Kinds of frames that are taken where the selection names no ``observation_type``.

    Raises
    ------
    DatasetNotFound
        If the selection names none, or a key that raws do not have.
    """
    selection = repository.select(words)
    check_keys(selection.choices, repository.policy.keys("raw"), "raw")
    wanted = Selection({_KIND: selection.choices.get(_KIND, tuple(observed))})
    others = Selection({key: choices for key, choices in selection.choices.items() if key != _KIND})
    camera = load_camera(repository.camera)
    entries = [
        entry
        for entry in repository.find("raw", others)
        if wanted.matches({_KIND: entry.data_id.get(_KIND) or _info(repository, camera, entry).observation_type})
    ]
    if not entries:
        raise DatasetNotFound(
            f"no location for raw with {' '.join([str(others), str(wanted)]).strip()}",
            where=repository.root,
            remedy="apstream repo ls REPO raw shows what there is; name the kind with --id observation_type=KIND",
        )
    groups: dict[tuple[int, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: int(entry.identity["visit"])):
        band = str(entry.data_id.get("band", "")) if by_band else ""
        groups.setdefault((int(entry.identity["detector"]), band), []).append(entry)
    return [_group(repository, camera, *key, groups[key]) for key in sorted(groups)]


def _group(repository: Repository, camera: Camera, detector: int, band: str, entries: Sequence[Entry]) -> FrameGroup:
    return FrameGroup(
        detector=detector,
        band=band,
        paths=tuple(repository.location(entry) for entry in entries),
        inputs=tuple(repository.input(entry) for entry in entries),
        mjd=_info(repository, camera, entries[0]).mid_mjd_tai,
    )


def _info(repository: Repository, camera: Camera, entry: Entry) -> ExposureInfo:
    with local_file(repository.location(entry)) as path:
        return read_raw_info(path, camera, detector=int(entry.identity["detector"]))
