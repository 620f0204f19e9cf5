"""The settings that a child process needs: where data are, and the stages' configs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from apstream.pipeline.config import PixelConfig

__all__ = ["PixelSettings", "RepositorySettings"]

Product = Literal["calexp", "deepDiff_differenceExp", "deepDiff_diaSrc"]


class RepositorySettings(BaseModel):
    """Where data are read and written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(Path("repo"), description="Repository with calibrations and reference catalogue")
    template_root: Path | None = Field(None, description="Repository with templates; default: the same")
    output_root: Path | None = Field(None, description="Repository for products; default: the same")
    template_id: dict[str, int] | None = Field(None, description="Calexps to use as template instead of coadds")
    save: tuple[Product, ...] = Field(("calexp", "deepDiff_differenceExp"), description="Products to store")


class PixelSettings(BaseModel):
    """All that a pixel job is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: RepositorySettings = Field(RepositorySettings(), description="Where data are")
    stages: PixelConfig = Field(PixelConfig(), description="The stages' configs")
