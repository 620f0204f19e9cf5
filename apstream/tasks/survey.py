"""A first look at calibration frames, one at a time: overscan, noise, level, saturation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.isr import mirrored
from apstream.arrays.linearity import linearize
from apstream.arrays.stats import mad_sigma
from apstream.arrays.types import F32, FloatArray
from apstream.errors import BadFile, MixedFrames, TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import ExposureInfo, RawExposure
from apstream.model.frames import RawFrames, Rejected
from apstream.model.geometry import Box
from apstream.tasks.isr import IsrConfig
from apstream.tasks.isr_overscan import OverscanLevels, overscan_levels
from apstream.words import counted, listed

__all__ = [
    "FrameLook",
    "Survey",
    "amplifier_gain",
    "amplifier_noise",
    "amplifier_signal",
    "flips",
    "odd_levels",
    "require_enough",
    "straight",
    "survey",
]

#: A pixel value is never known better than its digit.
_DIGIT_ADU = 12**-0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameLook:
    """What one frame showed.

    Parameters
    ----------
    index
        Of the frame among those given.
    levels
        By amplifier: bias levels of its rows and columns, as ISR takes them.
    noise
        By amplifier: read noise, ADU, of the overscan where there is one, else the camera's.
    medians
        By amplifier: median of the pixels less level, bias and dark, ADU.
    saturated
        Fraction of the pixels at or above saturation.
    """

    index: int
    info: ExposureInfo
    levels: dict[str, OverscanLevels]
    noise: dict[str, float]
    medians: dict[str, float]
    saturated: float

    @property
    def name(self) -> str:
        """What the frame is called in reports and errors."""
        return self.info.origin or str(self.info.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The frames of one detector that could be read, and those that could not."""

    detector: Detector
    looks: tuple[FrameLook, ...]
    rejected: tuple[Rejected, ...]

    def split(self, faults: Sequence[str]) -> Survey:
        """Return the survey without the frames that have a fault; an empty text is none."""
        bad = tuple(Rejected(look.name, fault) for look, fault in zip(self.looks, faults, strict=True) if fault)
        good = tuple(look for look, fault in zip(self.looks, faults, strict=True) if not fault)
        return Survey(detector=self.detector, looks=good, rejected=self.rejected + bad)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the frames that are left."""
        return tuple(look.name for look in self.looks)


def survey(frames: RawFrames, calibs: IsrCalibs, config: IsrConfig, *, one_band: bool = False) -> Survey:
    """Look at every frame once; one whose file cannot be read is left out and named.

    Parameters
    ----------
    one_band
        Whether all frames must be of one filter.

    Raises
    ------
    MixedFrames
        If frames are of different detectors, geometries or (if told) filters.
    TooFewFrames
        If none can be read.
    WrongSize, BadHeader
        If a frame does not fit the camera; names it.
    """
    detector, looks, rejected = None, list[FrameLook](), list[Rejected]()
    for index in range(len(frames)):
        try:
            raw = frames.frame(index)
        except BadFile as error:
            rejected.append(Rejected(error.where, error.message))
            continue
        detector = detector or raw.detector
        _require_same(detector, raw)
        looks.append(_look(index, raw, calibs, config))
    if detector is None:
        raise _too_few("frame", 0, 1, rejected)
    if one_band:
        _require_one_band(looks)
    return Survey(detector=detector, looks=tuple(looks), rejected=tuple(rejected))


def require_enough(found: Survey, least: int, what: str) -> None:
    """Refuse too few frames; TooFewFrames says why others were left out."""
    if len(found.looks) < least:
        raise _too_few(what, len(found.looks), least, found.rejected)


def _too_few(what: str, count: int, least: int, rejected: Iterable[Rejected]) -> TooFewFrames:
    """Return the error that says how many frames are left and why the others are not."""
    reasons = [f"{one.name}: {one.reason}" for one in rejected]
    shown = listed(reasons, between="; ")
    return TooFewFrames(
        f"{counted(count, f'usable {what}')}, at least {least} are needed"
        + (f". Left out: {shown}" if reasons else ""),
        remedy="give more frames, or lower combine.min_frames of this product, as in -c bias.combine.min_frames=1",
    )


def amplifier_gain(amplifier: Amplifier, calibs: IsrCalibs) -> float:
    """Return electrons per ADU: as measured where it was, else the camera's."""
    return amplifier.gain if calibs.transfer is None else calibs.transfer.of(amplifier.name)[0]


def amplifier_noise(amplifier: Amplifier, calibs: IsrCalibs) -> float:
    """Return the read noise in electrons: as measured where it was, else the camera's."""
    return amplifier.read_noise if calibs.transfer is None else calibs.transfer.of(amplifier.name)[1]


def _look(index: int, raw: RawExposure, calibs: IsrCalibs, config: IsrConfig) -> FrameLook:
    whole = Box.from_shape(raw.pixels.shape)
    levels, noise, medians, saturated = {}, {}, {}, 0
    for amplifier in raw.detector.amplifiers:
        data = np.asarray(raw.pixels[amplifier.data.slices(whole)], np.float32)
        level = overscan_levels(raw, amplifier, config.overscan, config.parallel_overscan)
        scatter = level.noise
        if not scatter > 0:
            scatter = amplifier_noise(amplifier, calibs) / amplifier_gain(amplifier, calibs)
        levels[amplifier.name], noise[amplifier.name] = level, max(scatter, _DIGIT_ADU)
        step = max(1, int(np.sqrt(data.size / 100_000)))
        above = level.taken_from(data)
        sample: FloatArray = straight(above[::step, ::step].copy(), amplifier, calibs)
        target = amplifier.target.slices(raw.detector.box)
        for master, factor in ((calibs.bias, 1.0), (calibs.dark, raw.info.exposure_s)):
            if master is not None:
                sample = sample - np.float32(factor) * mirrored(master[target], **flips(amplifier))[::step, ::step]
        finite = sample[np.isfinite(sample)]
        medians[amplifier.name] = float(np.median(finite)) if finite.size else float("nan")
        saturated += int(np.count_nonzero(above >= amplifier.saturation))
    return FrameLook(
        index=index,
        info=raw.info,
        levels=levels,
        noise=noise,
        medians=medians,
        saturated=saturated / (raw.detector.shape[0] * raw.detector.shape[1]),
    )


def amplifier_signal(raw: RawExposure, look: FrameLook, amplifier: Amplifier, calibs: IsrCalibs) -> F32:
    """Return the pixels of an amplifier in the raw array less bias level and master bias, made linear, ADU."""
    data = raw.pixels[amplifier.data.slices(Box.from_shape(raw.pixels.shape))]
    signal = straight(look.levels[amplifier.name].taken_from(data), amplifier, calibs)
    if calibs.bias is not None:
        signal -= mirrored(calibs.bias[amplifier.target.slices(raw.detector.box)], **flips(amplifier))
    return signal


def straight(signal: F32, amplifier: Amplifier, calibs: IsrCalibs) -> F32:
    """Return pixels above the bias level made linear, where that is known."""
    if calibs.linearity is None:
        return signal
    made = np.ascontiguousarray(signal)
    linearize(made, calibs.linearity.coefficients[calibs.linearity.names.index(amplifier.name)])
    return made


def flips(amplifier: Amplifier) -> dict[str, bool]:
    """Return how the raw pixels of an amplifier are mirrored on assembly."""
    return {"flip_y": amplifier.flip_y, "flip_x": amplifier.flip_x}


def _require_same(first: Detector, raw: RawExposure) -> None:
    def geometry(detector: Detector) -> object:
        return detector.number, detector.shape, [(a.name, a.data, a.overscan, a.target) for a in detector.amplifiers]

    if geometry(first) != geometry(raw.detector):
        raise MixedFrames(
            f"a frame of detector {raw.detector.number}, {raw.detector.shape}, among those of detector "
            f"{first.number}, {first.shape}",
            where=raw.info.origin,
            remedy="give frames of one detector, read out in one way",
        )


def _require_one_band(looks: Sequence[FrameLook]) -> None:
    bands: dict[str, list[str]] = {}
    for look in looks:
        bands.setdefault(look.info.band, []).append(look.name)
    if len(bands) > 1:
        shown = "; ".join(f"{band}: {listed(names)}" for band, names in sorted(bands.items()))
        raise MixedFrames(f"frames of {len(bands)} filters: {shown}", remedy="give the frames of one filter")


def odd_levels(values: Sequence[float], *, n_sigma: float, floor: float, unit: str) -> list[str]:
    """Return a fault for each value that stands off from the median of all, empty for the others."""
    middle = float(np.median(values))
    width = n_sigma * max(mad_sigma(np.asarray(values, float)), floor)
    return ["" if abs(v - middle) <= width else f"level {v:.4g} {unit}, the others have {middle:.4g}" for v in values]
