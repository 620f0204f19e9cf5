"""Gain, read noise and turn-off of amplifiers from pairs of flats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.linearity import linearize
from apstream.arrays.stats import clip_mask
from apstream.arrays.transfer_curve import CurveFit, TransferPoints, fit_curve, pair_points, turnoff
from apstream.arrays.types import F32
from apstream.errors import CalibrationFailed, TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Amplifier
from apstream.model.exposures import RawExposure
from apstream.model.frames import CalibReport, RawFrames, Rejected
from apstream.model.geometry import Box
from apstream.model.linearity import Linearity
from apstream.model.transfer import PhotonTransfer
from apstream.tasks.isr import IsrConfig
from apstream.tasks.make_kernel import KernelConfig, make_kernel
from apstream.tasks.make_linearity import LinearityConfig, make_linearity
from apstream.tasks.survey import FrameLook, Survey, amplifier_signal, survey
from apstream.words import counted, listed

__all__ = ["PtcConfig", "TransferResult", "make_ptc"]

_Pair = tuple[FrameLook, FrameLook]
_MAX_GAIN_ERROR = 0.5  # a gain that is known to no better than this fraction is none


class PtcConfig(BaseModel):
    """Settings of `make_ptc`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["auto", "linear", "brighter_fatter"] = Field(
        "auto", description="straight line, or a curve that bends with light; auto: the curve from four levels on"
    )
    bins: int = Field(20, ge=1, description="most levels within a pair whose light is uneven")
    min_pixels: int = Field(2000, ge=16, description="fewest pixels of such a level")
    max_level_difference: float = Field(
        0.1, gt=0, description="pairs whose levels differ by more are left out, fraction"
    )
    min_pairs: int = Field(1, ge=1, description="fewer pairs are refused")
    linearity: LinearityConfig | None = Field(
        None, description="measure the linearity too, and apply it before all else; null: not"
    )
    kernel: KernelConfig | None = Field(None, description="make the brighter-fatter kernel too; null: not")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferResult:
    """What pairs of flats told; `linearity` and `kernel` (brighter-fatter, 1/electron) where they were asked for."""

    transfer: PhotonTransfer
    report: CalibReport
    linearity: Linearity | None = None
    kernel: F32 | None = None


def make_ptc(
    frames: RawFrames,
    calibs: IsrCalibs | None = None,
    isr: IsrConfig | None = None,
    config: PtcConfig | None = None,
) -> TransferResult:
    """Measure gain, read noise, turn-off and a00 of each amplifier.

    Frames of one exposure time and filter that follow each other make pairs. Frames without exposure are pairs
    of bias frames, from which the read noise is taken; else it is that of the overscan of the pairs, else fitted.

    Parameters
    ----------
    calibs
        With bias to apply, and linearity unless that is measured here.

    Raises
    ------
    TooFewFrames
        If there are fewer than ``min_pairs`` pairs, or too few exposure times for the linearity.
    CalibrationFailed
        If the variance of an amplifier does not grow with the light, or its gain would be worth nothing.
    """
    calibs, isr, config = calibs or IsrCalibs(), isr or IsrConfig(), config or PtcConfig()
    given = IsrCalibs(bias=calibs.bias, linearity=None if config.linearity else calibs.linearity)
    found = survey(frames, given, isr)
    linearity = make_linearity(found, config.linearity) if config.linearity else None
    given = IsrCalibs(bias=given.bias, linearity=linearity or given.linearity)
    flats, biases, left = _pairs(found.looks, config)
    if len(flats) < config.min_pairs:
        reasons = listed((f"{one.name}: {one.reason}" for one in left), between="; ")
        raise TooFewFrames(
            f"{counted(len(flats), 'pair')} of flats, at least {config.min_pairs} are needed. {reasons}".strip(),
            remedy="give two or more flats of one filter and exposure time",
        )
    measured = _measure(frames, found, flats, biases, given, config)
    transfer, metrics = _summary(found, measured, config)
    used = tuple(look.name for pair in (*flats, *biases) for look in pair)
    metrics |= {"pairs": float(len(flats)), "bias_pairs": float(len(biases))}
    if linearity is not None:
        metrics |= _bends(linearity, found)
    report = CalibReport(kind="ptc", used=used, rejected=(*found.rejected, *left), metrics=metrics)
    kernel = None
    if config.kernel is not None:
        kernel = make_kernel(frames, found, flats, calibs=given, transfer=transfer, config=config.kernel)
    return TransferResult(transfer=transfer, report=report, linearity=linearity, kernel=kernel)


def _pairs(looks: Sequence[FrameLook], config: PtcConfig) -> tuple[list[_Pair], list[_Pair], list[Rejected]]:
    """Return pairs of flats, pairs of bias frames, and the frames that have no partner."""
    groups: dict[tuple[str, float], list[FrameLook]] = {}
    for look in sorted(looks, key=lambda look: look.info.id):
        dark = look.info.exposure_s == 0 or look.info.observation_type == "bias"
        key = ("", 0.0) if dark else (look.info.band, float(f"{look.info.exposure_s:.3g}"))
        groups.setdefault(key, []).append(look)
    flats, biases, left = list[_Pair](), list[_Pair](), list[Rejected]()
    for (band, seconds), group in sorted(groups.items()):
        for pair in zip(group[0::2], group[1::2], strict=False):
            fault = _unlike(pair, config.max_level_difference) if seconds else ""
            left += [Rejected(look.name, fault) for look in pair if fault]
            if not fault:
                (flats if seconds else biases).append(pair)
        if len(group) % 2:
            left.append(Rejected(group[-1].name, f"no partner of {seconds:g} s{' in ' + band if band else ''}"))
    return flats, biases, left


def _unlike(pair: _Pair, limit: float) -> str:
    first, second = pair
    for name, level in first.medians.items():
        other = second.medians[name]
        if not abs(level - other) <= limit * max(abs(level + other) / 2, 1.0):
            return f"levels of the pair differ: {level:.0f} and {other:.0f} ADU in amplifier {name}"
    return ""


@dataclass(slots=True)
class _Measured:
    """What the pairs say of one amplifier: points of the curve, and read noises in ADU."""

    points: list[TransferPoints]
    overscan: list[float]
    bias: list[float]

    @property
    def noise(self) -> float | None:
        """The read noise by the best way there is; None: none."""
        for values in (self.bias, self.overscan):
            if values:
                return float(np.median(values))
        return None


def _measure(
    frames: RawFrames,
    found: Survey,
    flats: Sequence[_Pair],
    biases: Sequence[_Pair],
    calibs: IsrCalibs,
    config: PtcConfig,
) -> dict[str, _Measured]:
    measured = {amplifier.name: _Measured([], [], []) for amplifier in found.detector.amplifiers}
    for pair in (*flats, *biases):
        raws = [frames.frame(look.index) for look in pair]
        for amplifier in found.detector.amplifiers:
            of = measured[amplifier.name]
            signals = [amplifier_signal(raw, look, amplifier, calibs) for raw, look in zip(raws, pair, strict=True)]
            if pair in biases:
                of.bias.append(_pair_noise(signals[0] - signals[1]))
                continue
            of.points.append(pair_points(*signals, bins=config.bins, pixels=config.min_pixels))
            if amplifier.overscan is not None:
                of.overscan.append(_pair_noise(_overscan(raws[0], amplifier) - _overscan(raws[1], amplifier)))
    return measured


def _overscan(raw: RawExposure, amplifier: Amplifier) -> F32:
    """Return the overscan without its outermost columns, which have not settled or have charge in them."""
    assert amplifier.overscan is not None
    pixels = raw.pixels[amplifier.overscan.slices(Box.from_shape(raw.pixels.shape))]
    edge = min(2, (pixels.shape[1] - 4) // 2)
    return np.asarray(pixels[:, edge:-edge] if edge > 0 else pixels, np.float32)


def _pair_noise(difference: F32) -> float:
    """Return the noise of one of two frames from their difference, row levels taken out, ADU."""
    width = difference.shape[1]
    flat = difference - np.median(difference, axis=1, keepdims=True)
    keep = clip_mask(flat.ravel()[:: max(1, flat.size // 400_000)], n_sigma=5.0)
    limit = np.max(np.abs(flat.ravel()[:: max(1, flat.size // 400_000)][keep]))
    kept = np.where(np.abs(flat) <= limit, difference, np.nan)
    kept -= np.nanmean(kept, axis=1, keepdims=True)
    return float(np.sqrt(np.nanmean(np.square(kept)) * width / (width - 1) / 2))


def _summary(
    found: Survey, measured: dict[str, _Measured], config: PtcConfig
) -> tuple[PhotonTransfer, dict[str, float]]:
    rows, metrics = [], dict[str, float]()
    for amplifier in found.detector.amplifiers:
        of = measured[amplifier.name]
        points = TransferPoints.joined(of.points)
        limit = turnoff(points)
        fit = _fitted(amplifier.name, points[points.mean < limit] if limit > 0 else points, of, config)
        rows.append((fit.gain, fit.gain_err, fit.noise * fit.gain, limit, fit.a00))
        head = amplifier.name
        metrics |= {
            f"{head}.gain_electron_adu": fit.gain,
            f"{head}.gain_err_electron_adu": fit.gain_err,
            f"{head}.read_noise_adu": fit.noise,
            f"{head}.read_noise_electron": fit.noise * fit.gain,
            f"{head}.a00_per_electron": fit.a00,
            f"{head}.turnoff_adu": limit,
            f"{head}.chi2": fit.chi2,
            f"{head}.levels": float(len(points.mean)),
        }
    gain, gain_err, noise, limits, a00 = zip(*rows, strict=True)
    names = tuple(amplifier.name for amplifier in found.detector.amplifiers)
    transfer = PhotonTransfer(names=names, gain=gain, gain_err=gain_err, read_noise=noise, turnoff_adu=limits, a00=a00)
    return transfer, metrics


def _fitted(name: str, points: TransferPoints, of: _Measured, config: PtcConfig) -> CurveFit:
    bend = config.model == "brighter_fatter" or (config.model == "auto" and _levels(of) >= 4)
    try:
        fit = fit_curve(points, noise=of.noise, bend=bend)
        _require_sound(fit, points)
        return fit
    except ValueError as error:
        raise CalibrationFailed(
            f"no photon transfer of amplifier {name}: {error}",
            remedy="give different frames of one level in each pair, with more light, or of several levels; "
            "look at the overscan",
        ) from None


def _require_sound(fit: CurveFit, points: TransferPoints) -> None:
    """Refuse numbers that nothing can be calibrated with; ValueError says which."""
    numbers = {"gain": fit.gain, "error of the gain": fit.gain_err, "read noise": fit.noise, "chi2": fit.chi2}
    for name, value in numbers.items():
        if not np.isfinite(value):
            raise ValueError(f"the {name} of the fit is {value}")
    if fit.gain_err > _MAX_GAIN_ERROR * fit.gain:
        raise ValueError(f"the gain is {fit.gain:.3g} with an error of {fit.gain_err:.3g}")
    if points.mean.max() / fit.gain < fit.noise**2:
        raise ValueError(f"the light of {points.mean.max():.3g} ADU varies less than the read noise")


def _levels(of: _Measured) -> int:
    """Return how many different levels of light the pairs have: by steps of a tenth."""
    brightest = sorted(float(points.mean.max()) for points in of.points if len(points.mean))
    count, last = 0, 0.0
    for level in brightest:
        if level > 1.1 * last:
            count, last = count + 1, level
    return count


def _bends(linearity: Linearity, found: Survey) -> dict[str, float]:
    """Return the largest correction of each amplifier, as a fraction of the highest level seen."""
    metrics = {}
    for name, values in zip(linearity.names, linearity.coefficients, strict=True):
        top = max(look.medians[name] for look in found.looks)
        level = np.array([[top]], np.float32)
        linearize(level, values)
        metrics[f"{name}.nonlinearity"] = float(level[0, 0] / top - 1)
    return metrics
