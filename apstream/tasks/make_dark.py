"""The master dark: how fast a detector fills in darkness."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.stats import subsample
from apstream.arrays.types import F64
from apstream.errors import TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.frames import CalibReport, Master, RawFrames
from apstream.tasks.isr import IsrConfig
from apstream.tasks.stack import CombineConfig, Recipe, Stack, stack
from apstream.tasks.survey import FrameLook, Survey, amplifier_gain, odd_levels, require_enough, survey

__all__ = ["DarkConfig", "make_dark"]


class DarkConfig(BaseModel):
    """Settings of `make_dark`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: CombineConfig = Field(CombineConfig(), description="how frames are combined")
    exposure: Literal["header", "fitted"] = Field(
        "header",
        description="dark time: the exposure time, or that and a dead time fitted to frames of several exposure times",
    )
    min_exposure_s: float = Field(1.0, gt=0, description="a frame exposed shorter is no dark, seconds")
    level_n_sigma: float = Field(
        8.0, gt=0, description="frames whose rate stands off from the others' by more are left out, sigma"
    )


def make_dark(
    frames: RawFrames,
    calibs: IsrCalibs | None = None,
    isr: IsrConfig | None = None,
    config: DarkConfig | None = None,
) -> Master:
    """Combine dark frames, less overscan and master bias, each over its exposure time; cosmic rays are left out.

    Parameters
    ----------
    calibs
        With the master bias; without one the dark contains the bias structure over the exposure time.

    Returns
    -------
    Master
        ADU per second. Metrics give the median rate in ADU and electrons, the noise, and the fraction of values
        left out: cosmic rays.

    Raises
    ------
    TooFewFrames
        If fewer than ``combine.min_frames`` can be used, or a dead time is to be fitted to one exposure time.
    MixedFrames
        If frames are of different detectors.
    """
    calibs, isr, config = calibs or IsrCalibs(), isr or IsrConfig(), config or DarkConfig()
    given = IsrCalibs(bias=calibs.bias, linearity=calibs.linearity, transfer=calibs.transfer)
    found = survey(frames, given, isr)
    found = found.split([_short(look, config.min_exposure_s) for look in found.looks])
    require_enough(found, config.combine.min_frames, "dark frame")
    times, dead = _times(found.looks, config.exposure)
    rates = np.array([_level(look) for look in found.looks]) / times
    faults = odd_levels(rates.tolist(), n_sigma=config.level_n_sigma, floor=1.0 / float(times.min()), unit="ADU/s")
    found, times = found.split(faults), times[[not fault for fault in faults]]
    require_enough(found, config.combine.min_frames, "dark frame")
    recipe = Recipe(calibs=given, divisors=times, typical=max(float(np.median(rates)), 0.0))
    made = stack(frames, found, recipe, config.combine)
    metrics = _metrics(made, found, given) | {"dead_time_s": dead, "exposure_s": float(np.sum(times))}
    report = CalibReport(kind="dark", used=found.names, rejected=found.rejected, metrics=metrics)
    return Master(image=made.mean, noise=made.error, report=report)


def _short(look: FrameLook, limit_s: float) -> str:
    seconds = look.info.exposure_s
    return f"exposed for {seconds:g} s only" if seconds < limit_s else ""


def _level(look: FrameLook) -> float:
    return float(np.mean(list(look.medians.values())))


def _times(looks: tuple[FrameLook, ...], how: str) -> tuple[F64, float]:
    """Return the dark times and the dead time in them, seconds.

    The dead time is where the straight line of level over exposure time meets zero.
    """
    times = np.array([look.info.exposure_s for look in looks])
    if how == "header":
        return times, 0.0
    if np.ptp(times) < 0.2 * times.max():
        raise TooFewFrames(
            f"a dead time cannot be fitted to exposures of {times.min():g} to {times.max():g} s",
            remedy="give darks of several exposure times, or set dark.exposure=header",
        )
    slope, offset = np.polyfit(times, [_level(look) for look in looks], 1)
    dead = float(offset / slope) if slope > 0 else 0.0
    if dead <= -times.min():
        raise TooFewFrames(
            f"levels of the darks give a dead time of {dead:.3g} s", remedy="set dark.exposure=header, look at the bias"
        )
    return times + dead, dead


def _metrics(made: Stack, found: Survey, calibs: IsrCalibs) -> dict[str, float]:
    gains = [amplifier_gain(amplifier, calibs) for amplifier in found.detector.amplifiers]
    rate = float(np.median(subsample(made.mean)))
    return {
        "frames": float(len(found.looks)),
        "rejected_frames": float(len(found.rejected)),
        "rate_adu_s": rate,
        "rate_electron_s": rate * float(np.mean(gains)),
        "noise_adu_s": float(np.median(subsample(made.error))),
        "clipped_fraction": made.clipped_fraction(len(found.looks)),
    }
