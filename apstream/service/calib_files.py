"""Calibrations in plain files that the user names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apstream.errors import naming
from apstream.repo.formats.calibs import require_kind
from apstream.repo.formats.registry import get_format
from apstream.tasks.isr_check import require_flat

__all__ = ["FORMAT_OF", "read_calibs"]

#: Storage format of each calibration type.
FORMAT_OF: Mapping[str, str] = {
    **{name: name for name in ("bias", "dark", "flat", "fringe", "bfKernel", "defects", "crosstalk", "linearity")},
    "ptc": "photon_transfer",
}


def read_calibs(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Read calibrations by type; FileMissing or BadFile names one that cannot be read or is of another type."""
    for name, path in paths.items():
        require_kind(path, name)
    found = {name: get_format(FORMAT_OF[name]).read(path) for name, path in paths.items()}
    if "flat" in found:
        with naming(str(paths["flat"])):
            require_flat(found["flat"])
    return found
