"""The master flat: how the pixels of a detector respond to the same light."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.stats import mad_sigma, subsample
from apstream.errors import NoGoodPixels
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Detector
from apstream.model.frames import CalibReport, Master, RawFrames
from apstream.tasks.isr import IsrConfig
from apstream.tasks.stack import CombineConfig, Recipe, Stack, stack
from apstream.tasks.survey import FrameLook, Survey, amplifier_gain, require_enough, survey

__all__ = ["FlatConfig", "make_flat"]


class FlatConfig(BaseModel):
    """Settings of `make_flat`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: CombineConfig = Field(CombineConfig(), description="how frames are combined")
    max_saturated_fraction: float = Field(
        0.01, ge=0, lt=1, description="a frame with more saturated pixels is left out, fraction"
    )
    max_level_fraction: float = Field(
        0.9, gt=0, le=1, description="a frame whose median is above this fraction of saturation is left out"
    )
    min_level_adu: float = Field(200.0, gt=0, description="a frame with less light is left out, ADU")


def make_flat(
    frames: RawFrames,
    calibs: IsrCalibs | None = None,
    isr: IsrConfig | None = None,
    config: FlatConfig | None = None,
) -> Master:
    """Combine flats, each over its own level, to mean one over the detector.

    Amplifiers keep the ratios that their gains leave: ISR multiplies by the same gains before it divides by the flat,
    so gains must be measured before flats are made.

    Parameters
    ----------
    calibs
        Bias, dark and linearity to apply, and the measured gains.

    Raises
    ------
    TooFewFrames
        If fewer than ``combine.min_frames`` are neither saturated nor empty; names the others.
    MixedFrames
        If frames are of different detectors or filters.
    NoGoodPixels
        If the mean over the detector is not positive.
    """
    calibs, isr, config = calibs or IsrCalibs(), isr or IsrConfig(), config or FlatConfig()
    given = IsrCalibs(bias=calibs.bias, dark=calibs.dark, linearity=calibs.linearity, transfer=calibs.transfer)
    found = survey(frames, given, isr, one_band=True)
    found = found.split([_fault(look, found.detector, config) for look in found.looks])
    require_enough(found, config.combine.min_frames, "flat")
    levels = np.array([_electrons(look, found.detector, given) for look in found.looks])
    recipe = Recipe(calibs=given, divisors=levels, unit="electron", typical=1.0)
    made = stack(frames, found, recipe, config.combine)
    mean = _mean(made)
    flat = Stack(made.mean / np.float32(mean), made.error / np.float32(mean), made.count)
    metrics = _metrics(flat, found, given) | {"level_electron": float(np.median(levels))}
    report = CalibReport(kind="flat", used=found.names, rejected=found.rejected, metrics=metrics)
    return Master(image=flat.mean, noise=flat.error, report=report)


def _fault(look: FrameLook, detector: Detector, config: FlatConfig) -> str:
    """Return why a flat cannot be used; empty if it can."""
    if look.saturated > config.max_saturated_fraction:
        return f"saturated: {100 * look.saturated:.1f} % of the pixels"
    for amplifier in detector.amplifiers:
        level = look.medians[amplifier.name]
        if level > config.max_level_fraction * amplifier.saturation:
            return f"saturated: amplifier {amplifier.name} has {level:.0f} of {amplifier.saturation:.0f} ADU"
        if not level >= config.min_level_adu:
            return f"empty: amplifier {amplifier.name} has {level:.0f} ADU"
    return ""


def _electrons(look: FrameLook, detector: Detector, calibs: IsrCalibs) -> float:
    """Return the level of a frame, averaged over the detector, electrons."""
    levels = [look.medians[a.name] * amplifier_gain(a, calibs) for a in detector.amplifiers]
    areas = [a.target.shape[0] * a.target.shape[1] for a in detector.amplifiers]
    return float(np.average(levels, weights=areas))


def _mean(made: Stack) -> float:
    """Return the mean over the pixels that respond; hot and dead ones do not count."""
    values = made.mean[np.isfinite(made.mean)]
    middle = float(np.median(values)) if values.size else float("nan")
    if not middle > 0:
        raise NoGoodPixels("the mean of the flats is not positive", remedy="look at bias and overscan")
    return float(np.mean(values[(values > 0.2 * middle) & (values < 3 * middle)], dtype=np.float64))


def _metrics(flat: Stack, found: Survey, calibs: IsrCalibs) -> dict[str, float]:
    whole = flat.mean
    step = max(1, min(whole.shape) // 512)
    across, down = np.diff(whole, axis=1)[::step, ::step], np.diff(whole, axis=0)[::step, ::step]
    noise = float(np.median(subsample(flat.error)))
    pixels = np.median([mad_sigma(across.ravel()), mad_sigma(down.ravel())]) / np.sqrt(2)
    metrics = {
        "frames": float(len(found.looks)),
        "rejected_frames": float(len(found.rejected)),
        "noise": noise,
        "pixel_response": float(np.sqrt(max(pixels**2 - noise**2, 0.0))),
        "shape": mad_sigma(subsample(whole)),
        "clipped_fraction": flat.clipped_fraction(len(found.looks)),
    }
    for amplifier in found.detector.amplifiers:
        part = whole[amplifier.target.slices(found.detector.box)]
        metrics[f"{amplifier.name}.mean"] = float(np.nanmedian(part))
        metrics[f"{amplifier.name}.gain_electron_adu"] = amplifier_gain(amplifier, calibs)
    return metrics
