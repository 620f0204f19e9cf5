"""The settings of the two halves: one config per stage, an absent stage is None."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from apstream.pipeline.stages import StageName, check_replacement
from apstream.tasks.calibrate import CalibrateConfig
from apstream.tasks.characterize import CharacterizeConfig
from apstream.tasks.cutouts import CutoutsConfig
from apstream.tasks.detect import DetectConfig
from apstream.tasks.external import ExternalConfig
from apstream.tasks.forced import ForcedConfig
from apstream.tasks.isr import IsrConfig
from apstream.tasks.measure import MeasureConfig
from apstream.tasks.register import RegisterConfig
from apstream.tasks.subtract import SubtractConfig
from apstream.tasks.template import TemplateConfig

__all__ = ["DifferenceConfig", "PairConfig", "PixelConfig"]


class DifferenceConfig(BaseModel):
    """From two images to DIA sources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: TemplateConfig = Field(TemplateConfig(), description="Template on the science grid")
    subtract: SubtractConfig = Field(SubtractConfig(), description="PSF matching and subtraction")
    detect: DetectConfig = Field(DetectConfig(), description="Detection on the difference")
    measure: MeasureConfig = Field(MeasureConfig(), description="Measurement of detections")
    replace: dict[StageName, str] = Field(
        {}, description="Functions in place of stages, as in {characterize: 'package.module:function'}"
    )

    @field_validator("replace")
    @classmethod
    def _can_be_called(cls, replace: dict[StageName, str]) -> dict[StageName, str]:
        for stage, path in replace.items():
            check_replacement(stage, path)
        return replace


class PixelConfig(DifferenceConfig):
    """From a raw frame to DIA sources."""

    isr: IsrConfig = Field(IsrConfig(), description="Instrument signature removal")
    characterize: CharacterizeConfig = Field(CharacterizeConfig(), description="Background, cosmic rays, PSF")
    calibrate: CalibrateConfig = Field(CalibrateConfig(), description="Astrometry and photometry on a catalogue")
    registration: RegisterConfig = Field(RegisterConfig(), description="Registration on a reference image")
    forced: ForcedConfig = Field(ForcedConfig(), description="Forced photometry at known objects")
    cutouts: CutoutsConfig = Field(CutoutsConfig(), description="Cutouts around sources")


class PairConfig(DifferenceConfig):
    """From two plain images to DIA sources."""

    external: ExternalConfig = Field(ExternalConfig(), description="Variance and mask of external images")
    characterize: CharacterizeConfig = Field(CharacterizeConfig(), description="Background, cosmic rays, PSF")
    characterize_template: CharacterizeConfig = Field(
        CharacterizeConfig(cosmic_rays=None), description="The same for the template"
    )
    calibrate: CalibrateConfig = Field(CalibrateConfig(), description="Astrometry and photometry on a catalogue")
    registration: RegisterConfig = Field(RegisterConfig(), description="Registration by star patterns")
