"""The settings that a child process needs: where data are, and the stages' configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from apstream.pipeline.config import PixelConfig

__all__ = ["PixelSettings", "Product", "RepositorySettings", "Root"]

Product = Literal["calexp", "src", "deepDiff_differenceExp", "deepDiff_diaSrc", "processing_metadata"]


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


#: A folder, or a URL such as ``s3://bucket/prefix``.
Root = Annotated[str, BeforeValidator(_text)]


class RepositorySettings(BaseModel):
    """Where data are read and written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Root = Field("repo", description="Repository with calibrations and reference catalogue")
    template_root: Root | None = Field(None, description="Repository with templates; default: the same")
    output_root: Root | None = Field(None, description="Repository for products; default: the same")
    template_id: dict[str, int] | None = Field(None, description="Calexps to use as template instead of coadds")
    save: tuple[Product, ...] = Field(
        ("calexp", "src", "deepDiff_differenceExp", "deepDiff_diaSrc", "processing_metadata"),
        description="Products to store",
    )
    run: str = Field("", description="Id of the record of settings and versions, kept with each product")


class PixelSettings(BaseModel):
    """All that a pixel job is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: RepositorySettings = Field(RepositorySettings(), description="Where data are")
    stages: PixelConfig = Field(PixelConfig(), description="The stages' configs")
