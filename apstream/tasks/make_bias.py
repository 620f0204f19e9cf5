"""The master bias: what is left of a frame without light or time when its overscan is subtracted."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.stats import mad_sigma, subsample
from apstream.arrays.types import F32
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import CalibReport, Master, RawFrames
from apstream.tasks.isr import IsrConfig
from apstream.tasks.stack import CombineConfig, Recipe, Stack, stack
from apstream.tasks.survey import FrameLook, Survey, odd_levels, require_enough, survey

__all__ = ["BiasConfig", "make_bias"]


class BiasConfig(BaseModel):
    """Settings of `make_bias`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: CombineConfig = Field(CombineConfig(), description="how frames are combined")
    max_exposure_s: float = Field(1.0, ge=0, description="a frame exposed longer is no bias, seconds")
    level_n_sigma: float = Field(
        8.0, gt=0, description="frames whose median stands off from the others' by more are left out, sigma"
    )


def make_bias(frames: RawFrames, isr: IsrConfig | None = None, config: BiasConfig | None = None) -> Master:
    """Combine bias frames, overscan-subtracted as ISR does it.

    Returns
    -------
    Master
        ADU. Metrics: its level, the structure that it takes out of images (all, along columns, along rows) and
        the noise that it adds to them.

    Raises
    ------
    TooFewFrames
        If fewer than ``combine.min_frames`` can be used; says why the others cannot.
    MixedFrames
        If frames are of different detectors.
    """
    isr, config = isr or IsrConfig(), config or BiasConfig()
    found = survey(frames, IsrCalibs(), isr)
    found = found.split([_exposed(look, config.max_exposure_s) for look in found.looks])
    require_enough(found, config.combine.min_frames, "bias frame")
    levels = [float(np.mean(list(look.medians.values()))) for look in found.looks]
    found = found.split(odd_levels(levels, n_sigma=config.level_n_sigma, floor=0.5, unit="ADU"))
    require_enough(found, config.combine.min_frames, "bias frame")
    recipe = Recipe(calibs=IsrCalibs(), divisors=np.ones(len(found.looks)), lit=False)
    made = stack(frames, found, recipe, config.combine)
    report = CalibReport(kind="bias", used=found.names, rejected=found.rejected, metrics=_metrics(made, found))
    return Master(image=made.mean, noise=made.error, report=report)


def _exposed(look: FrameLook, limit_s: float) -> str:
    seconds = look.info.exposure_s
    return f"exposed for {seconds:g} s" if seconds > limit_s else ""


def _metrics(made: Stack, found: Survey) -> dict[str, float]:
    columns, rows = _profiles(made.mean)
    count = len(found.looks)
    metrics = {
        "frames": float(count),
        "rejected_frames": float(len(found.rejected)),
        "level_adu": float(np.nanmedian(subsample(made.mean))),
        "structure_adu": mad_sigma(subsample(made.mean)),
        "column_structure_adu": mad_sigma(columns),
        "row_structure_adu": mad_sigma(rows),
        "noise_adu": float(np.nanmedian(subsample(made.error))),
        "clipped_fraction": made.clipped_fraction(count),
    }
    for amplifier in found.detector.amplifiers:
        noises = [look.noise[amplifier.name] for look in found.looks]
        metrics[f"{amplifier.name}.frame_noise_adu"] = float(np.median(noises))
    return metrics


def _profiles(image: F32) -> tuple[F32, F32]:
    """Return the median of each column and of each row."""
    return np.nanmedian(image, axis=0), np.nanmedian(image, axis=1)
