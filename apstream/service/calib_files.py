"""Calibrations as ISR gets them: read of plain files that the user names, and found fit for use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apstream.errors import naming
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Detector
from apstream.repo.formats.calibs import require_kind
from apstream.repo.formats.registry import get_format
from apstream.tasks.isr_check import require_calib, require_flat

if TYPE_CHECKING:
    from apstream.repo.entries import Entry
    from apstream.repo.repository import Repository

__all__ = ["FORMAT_OF", "read_calibs", "read_stored", "require_usable"]

#: Storage format of each calibration type.
FORMAT_OF: Mapping[str, str] = {
    **{name: name for name in ("bias", "dark", "flat", "fringe", "bfKernel", "defects", "crosstalk", "linearity")},
    "ptc": "photon_transfer",
}
_FIELDS = {"bfKernel": "brighter_fatter", "ptc": "transfer"}


def read_calibs(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Read calibrations by type; FileMissing or BadFile names one that cannot be read or is of another type."""
    for name, path in paths.items():
        require_kind(path, name)
    found = {name: get_format(FORMAT_OF[name]).read(path) for name, path in paths.items()}
    if "flat" in found:
        with naming(str(paths["flat"])):
            require_flat(found["flat"])
    return found


def read_stored(repository: Repository, entry: Entry) -> Any:
    """Read a calibration of a repository; BadFile names a flat that can be no relative response."""
    value = repository.get_entry(entry)
    if entry.type == "flat":
        with naming(repository.location(entry)):
            require_flat(value)
    return value


def require_usable(calibs: IsrCalibs, detector: Detector, frame: str, places: Mapping[str, str]) -> None:
    """Refuse calibrations that cannot be used on a frame.

    Parameters
    ----------
    frame
        Its file.
    places
        The files of the calibrations that there are, by dataset type.

    Raises
    ------
    WrongSize
        If one does not fit the detector; names the frame and the calibration.
    BadFile
        If the flat can be no relative response.
    """
    for kind, place in places.items():
        with naming(f"{frame} with {place}"):
            require_calib(calibs, _FIELDS.get(kind, kind), detector)
            require_flat(calibs.flat if kind == "flat" else None)
