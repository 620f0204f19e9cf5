"""Settings of the commands that make warps and coadds, and what these report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from apstream.errors import ApstreamError
from apstream.pipeline.coadds import CoaddConfig
from apstream.pipeline.config import PixelConfig

__all__ = ["CoaddReport", "CoaddSettings", "Progress", "WarpSettings"]

Progress = Callable[[str, int, int], None]


class CoaddSettings(CoaddConfig):
    """Settings of ``apstream coadd``."""

    stages: PixelConfig = Field(PixelConfig(), description="How calexps are made of raws")
    patch_size_pixel: int = Field(4096, gt=63, description="Side of a patch")
    border_pixel: int = Field(128, ge=0, description="Overlap of a patch with its neighbours")


class WarpSettings(CoaddSettings):
    """Settings of ``apstream warp``."""

    warp_types: tuple[Literal["direct", "psf_matched"], ...] = Field(
        ("direct", "psf_matched"), min_length=1, description="Which warps are written"
    )


@dataclass(slots=True)
class CoaddReport:
    """What was made, what failed, and which exposures were left out, with the reason.

    Parameters
    ----------
    calexps
        Number of calexps that there are to choose from.
    patches
        A line for each patch, or warp.
    left_out
        A line for each exposure.
    notes
        What is to be known of the inputs.
    """

    calexps: int = 0
    patches: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[ApstreamError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
