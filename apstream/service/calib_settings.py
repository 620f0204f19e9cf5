"""Settings of ``apstream calib``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from apstream.cameras import load_camera
from apstream.settings import (
    build_settings,
    camera_source,
    environment_sources,
    file_source,
    override_sources,
    personal_sources,
)
from apstream.tasks.isr import IsrConfig
from apstream.tasks.make_bias import BiasConfig
from apstream.tasks.make_crosstalk import CrosstalkConfig
from apstream.tasks.make_dark import DarkConfig
from apstream.tasks.make_defects import DefectsConfig
from apstream.tasks.make_flat import FlatConfig
from apstream.tasks.make_fringe import FringePatternConfig
from apstream.tasks.make_ptc import PtcConfig

__all__ = ["CalibRecord", "CalibSettings", "load_calib", "settings_of"]


class CalibSettings(BaseModel):
    """One branch for each product, and how raw frames are treated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    isr: IsrConfig = Field(IsrConfig(), description="Instrument signature removal")
    bias: BiasConfig = Field(BiasConfig(), description="Master bias")
    dark: DarkConfig = Field(DarkConfig(), description="Master dark")
    flat: FlatConfig = Field(FlatConfig(), description="Master flat")
    fringe: FringePatternConfig = Field(FringePatternConfig(), description="Fringe pattern")
    defects: DefectsConfig = Field(DefectsConfig(), description="Bad pixels and columns")
    crosstalk: CrosstalkConfig = Field(CrosstalkConfig(), description="Crosstalk between amplifiers")
    ptc: PtcConfig = Field(PtcConfig(), description="Gain, read noise, linearity")


class CalibRecord(BaseModel):
    """The settings that one product is made with."""

    model_config = ConfigDict(frozen=True)

    isr: IsrConfig
    product: SerializeAsAny[BaseModel]


def load_calib(
    camera: str,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> CalibSettings:
    """Build the settings: defaults < camera (if named) < personal file < files < environment < overrides.

    Raises
    ------
    BadSettings
        If a source or one of its values is refused; names it.
    """
    known = set(CalibSettings.model_fields)
    of_camera = {}
    if camera:
        of_camera = {key: value for key, value in load_camera(camera).settings.items() if key in known}
    from_environment = environment_sources(environment, {"pixels.stages": ""})
    sources = [
        camera_source(of_camera, camera),
        *personal_sources(known, environment),
        *map(file_source, files),
        *(source for source in from_environment if source.values.keys() <= known),
        *override_sources(overrides),
    ]
    return build_settings(CalibSettings, sources)


def settings_of(settings: CalibSettings, kind: str) -> CalibRecord:
    """Return what decides on one product: its branch and ISR's."""
    return CalibRecord(isr=settings.isr, product=getattr(settings, kind))
