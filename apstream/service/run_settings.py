"""The settings of the batch commands, and where they come from."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from apstream.cameras import load_camera
from apstream.pipeline.catalogs import CatalogsConfig
from apstream.pipeline.config import PixelConfig
from apstream.service.pixel_settings import Product, RepositorySettings
from apstream.service.settings import ApdbSettings, WorkersSettings
from apstream.settings import (
    Source,
    build_settings,
    camera_source,
    environment_sources,
    file_source,
    merge,
    override_sources,
    personal_sources,
)

__all__ = ["RunApdb", "RunSettings", "load_coadd", "load_run", "stage_settings"]

M = TypeVar("M", bound=BaseModel)

#: Where the service's branches, which variables name, stand in the settings of a batch command.
_BRANCHES = {"pixels.stages": "", "catalogs": "catalogs", "apdb": "apdb", "workers": "workers"}


class RunApdb(ApdbSettings):
    """The APDB of a batch run; there is no default place."""

    url: str = Field("", description="sqlite:///FILE or postgresql://...; --apdb names it too")


class RunSettings(PixelConfig):
    """Settings of ``apstream run``: the pixel stages, and beside them the catalogue half and the machinery."""

    catalogs: CatalogsConfig = Field(CatalogsConfig(), description="Association and alerts")
    apdb: RunApdb = Field(RunApdb(), description="The APDB")
    workers: WorkersSettings = Field(WorkersSettings(), description="Child processes; their count is given by -j")
    save: tuple[Product, ...] = Field(RepositorySettings().save, description="Products to store")

    @property
    def stages(self) -> PixelConfig:
        """The pixel stages alone."""
        return PixelConfig.model_validate(self.model_dump(include=set(PixelConfig.model_fields)))


def load_run(
    camera: str,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    *,
    apdb: str = "",
) -> RunSettings:
    """Build the settings of ``apstream run``; `apdb` is what ``--apdb`` says.

    Raises
    ------
    BadSettings
        If a source or one of its values is refused; names it.
    """
    chosen = stage_settings(RunSettings, camera, files, overrides, environment)
    return chosen.model_copy(update={"apdb": chosen.apdb.model_copy(update={"url": apdb})}) if apdb else chosen


def stage_settings(
    model: type[M],
    camera: str | None,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> M:
    """Build the settings of a batch command whose stages stand at the top.

    Defaults < camera < personal file < files < environment < overrides.
    """
    known = set(model.model_fields)
    sources: list[Source] = []
    if camera:
        sources.append(camera_source(load_camera(camera).settings, camera))
    sources += personal_sources(known, environment)
    sources += map(file_source, files)
    sources += [s for s in environment_sources(environment, _BRANCHES) if s.values.keys() <= known]
    sources += override_sources(overrides)
    return build_settings(model, sources)


def load_coadd(
    model: type[M],
    camera: str,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> M:
    """Build the settings of ``apstream coadd``, whose pixel stages stand under ``stages``.

    What camera, personal file and environment say of the stages holds for the making of calexps too.

    Raises
    ------
    BadSettings
        If a source or one of its values is refused; names it.
    """
    stages = set(PixelConfig.model_fields)
    personal = personal_sources(stages | set(model.model_fields), environment)
    sources = [
        Source({"stages": load_camera(camera).settings}, f"camera {camera}, settings"),
        *(Source(_nested(one.values, stages), one.where, one.text) for one in personal),
        *map(file_source, files),
        *environment_sources(environment, {"pixels.stages": "stages"}),
        *override_sources(overrides),
    ]
    return build_settings(model, sources)


def _nested(values: Mapping[str, Any], stages: Collection[str]) -> dict[str, Any]:
    inner = {key: value for key, value in values.items() if key in stages}
    return merge({key: value for key, value in values.items() if key not in stages}, {"stages": inner})
