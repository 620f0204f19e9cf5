"""ISR: from a raw detector array to an image in electrons with mask and variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.brighter_fatter import undo_brighter_fatter
from apstream.arrays.isr import (
    Masters,
    Planes,
    apply_calibs,
    crosstalk_signal,
    flag_high,
    follow_bleeds,
    grow_flags,
    mirrored,
    place_amplifier,
    plateau_level,
)
from apstream.arrays.linearity import linearize
from apstream.arrays.masks import count_flags
from apstream.arrays.types import F32, BoolArray, IntArray
from apstream.errors import NoGoodPixels
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import Exposure, RawExposure
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane
from apstream.tasks.isr_check import require_fit
from apstream.tasks.isr_fringe import FringeConfig, subtract_fringe
from apstream.tasks.isr_overscan import LineOverscan, OverscanChoice, OverscanLevels, overscan_levels

__all__ = ["BrighterFatterConfig", "IsrConfig", "isr"]

_EMPTY = np.zeros((0, 0), np.float32)
_STRIDE = 8


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrighterFatterConfig(_Frozen):
    """Settings of the brighter-fatter correction."""

    max_iterations: int = Field(10, ge=1, description="most iterations")
    threshold: float = Field(
        1e-3, gt=0, description="end when no pixel changes by more than this fraction of the largest correction"
    )


class IsrConfig(BaseModel):
    """Settings of `isr`, in the order of its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overscan: OverscanChoice = Field(
        LineOverscan(), description="bias levels from the serial overscan: line (each row), spline, polynomial, ..."
    )
    parallel_overscan: OverscanChoice = Field(
        LineOverscan(), description="the same from the parallel overscan, where the camera has one: line is each column"
    )
    crosstalk: bool = Field(True, description="subtract what amplifiers hear of each other where that is known")
    crosstalk_mask_electron: float | None = Field(
        30.0,
        gt=0,
        description="pixels from which more crosstalk than this was taken are CROSSTALK, electrons; null: none",
    )
    suspect_fraction: float | None = Field(
        None, gt=0, le=1, description="pixels above this fraction of saturation are SUSPECT; null: none"
    )
    linearity: bool = Field(True, description="straighten the response where its departure is known")
    bias: bool = Field(True, description="subtract the master bias where there is one")
    dark: bool = Field(True, description="subtract the master dark where there is one")
    transfer: bool = Field(True, description="measured gains and read noises, where there are, replace the camera's")
    brighter_fatter: BrighterFatterConfig | None = Field(
        None, description="undo the brighter-fatter effect where its kernel is known; null: not"
    )
    flat: bool = Field(True, description="divide by the master flat where there is one")
    min_flat: float = Field(0.05, gt=0, description="pixels whose flat is lower are bad")
    bleed_fraction: float | None = Field(
        0.1,
        gt=0,
        description="columns are followed on from saturated pixels down to this fraction of saturation; null: not",
    )
    saturation_grow_px: int = Field(1, ge=0, description="how far saturated pixels are grown, pixels")
    edge_px: int = Field(4, ge=0, description="width of the border flagged EDGE, pixels")
    max_noise_factor: float = Field(
        3.0, gt=1, description="an amplifier whose overscan is this much noisier than expected is bad, factor"
    )
    min_noise_factor: float = Field(
        0.1, ge=0, lt=1, description="an amplifier whose overscan has less of the noise expected is bad, factor"
    )
    fringe: FringeConfig | None = Field(None, description="subtract fringes in the bands listed; null: not")


@dataclass(slots=True)
class _Segment:
    """One amplifier's pixels as they lie in the raw array, their bias levels, and what they heard of others."""

    data: F32
    levels: OverscanLevels
    heard: F32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One frame on its way: inputs, and the detector being assembled; `rows` counts saturated pixels."""

    raw: RawExposure
    detector: Detector
    calibs: IsrCalibs
    config: IsrConfig
    planes: Planes
    rows: IntArray
    metrics: dict[str, float]

    def mask_of(self, amplifier: Amplifier) -> IntArray:
        return self.planes.mask[amplifier.target.slices(self.detector.box)]

    @property
    def corrects_fatness(self) -> bool:
        return self.calibs.brighter_fatter is not None and self.config.brighter_fatter is not None


def isr(raw: RawExposure, calibs: IsrCalibs | None = None, config: IsrConfig | None = None) -> Exposure:
    """Remove the instrument's signature, mask, and make the variance.

    The steps, in this order: overscan (serial, then parallel), crosstalk, assembly, saturation and suspect levels,
    linearity, bias, dark, gain, brighter-fatter, variance, flat, bleed trails, defects, edges, fringe. The order is
    that of the Rubin Observatory's Data Preview 1 (RTN-095).

    Parameters
    ----------
    raw
        ADU. Pixels that are not finite become NO_DATA. A mask and a variance that came with it are taken over;
        pixels whose variance is not known keep ours, and are BAD if nothing else says what they are.
    calibs
        Masters on the assembled detector; a step without its master is left out.

    Returns
    -------
    Exposure
        Electrons; NaN only under NO_DATA. Variance is max(electrons, 0) + read noise^2, carried through the
        flat. Metrics give each amplifier's overscan level and noise, and the noise relative to what the
        camera expects; an amplifier that is BAD as a whole has ``isr.NAME.dead`` or ``isr.NAME.noisy``.

    Raises
    ------
    WrongSize
        If the raw array, a master or what is known of amplifiers does not fit the camera's geometry.
    NoGoodPixels
        If all pixels are NaN, saturated or bad.
    """
    work = _begin(raw, calibs or IsrCalibs(), config or IsrConfig())
    segments = {a.name: _segment(work, a) for a in work.detector.amplifiers}
    work = _saturated_at(work, segments)
    _hear_crosstalk(work, segments)
    masters = _masters(work)
    for amplifier in work.detector.amplifiers:
        _place(work, amplifier, segments[amplifier.name])
        _to_electrons(work, amplifier, masters)
    if work.corrects_fatness:
        _undo_fatness(work, masters.flat)
    for amplifier in work.detector.amplifiers:
        _follow_bleeds(work, amplifier)
    grow_flags(work.planes.mask, int(MaskPlane.SAT), work.rows, work.config.saturation_grow_px)
    for amplifier in work.detector.amplifiers:
        _take_over(work, amplifier, masters.flat)
    _flag_pixels(work)
    _subtract_fringe(work)
    metrics = work.metrics | _require_good(work.planes.mask)
    image = MaskedImage.make(*work.planes, "electron", work.detector.box)
    return Exposure(image=image, info=raw.info, wcs=raw.wcs, metrics=metrics)


def _begin(raw: RawExposure, calibs: IsrCalibs, config: IsrConfig) -> _Work:
    require_fit(raw, calibs)
    detector = raw.detector
    if calibs.transfer is not None and config.transfer:
        measured = [(a, calibs.transfer.of(a.name)) for a in detector.amplifiers]
        amplifiers = tuple(replace(a, gain=gain, read_noise=noise) for a, (gain, noise) in measured)
        detector = replace(detector, amplifiers=amplifiers)
    shape = detector.shape
    planes = Planes(np.empty(shape, np.float32), np.zeros(shape, np.int32), np.empty(shape, np.float32))
    return _Work(
        raw=raw,
        detector=detector,
        calibs=calibs,
        config=config,
        planes=planes,
        rows=np.zeros(shape[0], np.int64),
        metrics={},
    )


def _segment(work: _Work, amplifier: Amplifier) -> _Segment:
    """Cut out one amplifier and measure its levels; say if it is dead or too noisy, which makes it BAD."""
    levels = overscan_levels(work.raw, amplifier, work.config.overscan, work.config.parallel_overscan)
    segment = _Segment(_part(work.raw, work.raw.pixels, amplifier), levels)
    head = f"isr.{amplifier.name}"
    work.metrics.update(levels.metrics)
    ratio = levels.metrics.get(f"{head}.noise_ratio", 1.0)
    seen = segment.data[::_STRIDE, ::_STRIDE]
    seen = seen[np.isfinite(seen)]
    dead = levels.noise == 0 or ratio < work.config.min_noise_factor or (seen.size > 1 and np.ptp(seen) == 0)
    noisy = ratio > work.config.max_noise_factor
    work.metrics.update({f"{head}.dead": 1.0} if dead else {f"{head}.noisy": 1.0} if noisy else {})
    if dead or noisy:
        work.mask_of(amplifier)[:] |= int(MaskPlane.BAD)
    return segment


def _saturated_at(work: _Work, segments: dict[str, _Segment]) -> _Work:
    """Lower the saturation of amplifiers whose pixels pile up below what the camera says."""
    amplifiers = []
    for amplifier in work.detector.amplifiers:
        levels = segments[amplifier.name].levels
        bias = float(levels.rows.max(initial=0) + levels.columns.max(initial=0))
        level = plateau_level(segments[amplifier.name].data) - bias - 0.5
        if 0 < level < amplifier.saturation:
            work.metrics[f"isr.{amplifier.name}.saturation_adu"] = level
            amplifier = replace(amplifier, saturation=level)
        amplifiers.append(amplifier)
    return replace(work, detector=replace(work.detector, amplifiers=tuple(amplifiers)))


def _part(raw: RawExposure, image: np.ndarray[Any, Any], amplifier: Amplifier) -> np.ndarray[Any, Any]:
    return image[amplifier.data.slices(Box.from_shape(raw.pixels.shape))]


def _hear_crosstalk(work: _Work, segments: dict[str, _Segment]) -> None:
    """Fill in what each amplifier heard of the others, where that is known."""
    crosstalk, amplifiers = work.calibs.crosstalk, work.detector.amplifiers
    if crosstalk is None or not work.config.crosstalk or not crosstalk.matrix.any():
        return
    order = [crosstalk.names.index(amplifier.name) for amplifier in amplifiers]
    parts = [segments[a.name] for a in amplifiers]
    signals = [
        _in_order_of_reading(part.levels.taken_from(part.data), a) for part, a in zip(parts, amplifiers, strict=True)
    ]
    heard = crosstalk_signal(signals, crosstalk.matrix[np.ix_(order, order)])
    for amplifier, added in zip(amplifiers, heard, strict=True):
        segments[amplifier.name].heard = _in_order_of_reading(added, amplifier)


def _in_order_of_reading(image: F32, amplifier: Amplifier) -> F32:
    """Mirror pixels of the raw array into the order of reading, or back."""
    return mirrored(image, flip_y=amplifier.backward_y, flip_x=amplifier.backward_x)


def _masters(work: _Work) -> Masters:
    """Return the masters that are there and wanted."""
    found = (getattr(work.calibs, name) if getattr(work.config, name) else None for name in Masters._fields)
    return Masters(*(_EMPTY if m is None else np.ascontiguousarray(m, np.float32) for m in found))


def _place(work: _Work, amplifier: Amplifier, segment: _Segment) -> None:
    """Put one amplifier into the detector: ADU above the bias level, flagged where too high, straightened."""
    image, mask = work.planes.image[amplifier.target.slices(work.detector.box)], work.mask_of(amplifier)
    heard, flips = segment.heard, {"flip_y": amplifier.flip_y, "flip_x": amplifier.flip_x}
    data = np.asarray(segment.data, np.float32)
    data = data if heard is None else data - heard
    place_amplifier(data, segment.levels.rows, segment.levels.columns, image, **flips)
    if heard is not None and work.config.crosstalk_mask_electron is not None:
        loud = np.abs(heard) * np.float32(amplifier.gain) > work.config.crosstalk_mask_electron
        _flag(mask, mirrored(loud, **flips), MaskPlane.CROSSTALK)
    limits = np.array([amplifier.saturation, _suspect_level(work, amplifier)], np.float32)
    bits = np.array([MaskPlane.SAT, MaskPlane.SUSPECT], np.int32)
    flag_high(work.planes, _corners(amplifier), limits, bits, work.rows)
    if work.calibs.linearity is not None and work.config.linearity:
        of = work.calibs.linearity
        linearize(image, of.coefficients[of.names.index(amplifier.name)])


def _suspect_level(work: _Work, amplifier: Amplifier) -> float:
    """Return the lowest of the levels, ADU, above which signals are not to be trusted."""
    linearity, transfer, fraction = work.calibs.linearity, work.calibs.transfer, work.config.suspect_fraction
    levels = [np.inf if fraction is None else fraction * amplifier.saturation]
    if linearity is not None and work.config.linearity:
        levels.append(linearity.max_adu[linearity.names.index(amplifier.name)])
    if transfer is not None and work.config.transfer:
        levels.append(transfer.turnoff_adu[transfer.names.index(amplifier.name)])
    return float(np.nanmin(levels))


def _to_electrons(work: _Work, amplifier: Amplifier, masters: Masters) -> None:
    """Subtract bias and dark and apply gain; divide by the flat unless the brighter-fatter effect comes first."""
    if work.corrects_fatness:
        masters = masters._replace(flat=_EMPTY)
    numbers = [amplifier.gain, amplifier.read_noise, work.raw.info.exposure_s, work.config.min_flat]
    _apply(work, amplifier, masters, numbers)


def _undo_fatness(work: _Work, flat: F32) -> None:
    """Undo the brighter-fatter effect in electrons, make the variance anew, and divide by the flat."""
    assert work.calibs.brighter_fatter is not None
    assert work.config.brighter_fatter is not None
    image, count = undo_brighter_fatter(
        work.planes.image,
        work.calibs.brighter_fatter,
        max_iterations=work.config.brighter_fatter.max_iterations,
        threshold=work.config.brighter_fatter.threshold,
    )
    work.planes.image[:] = image
    work.metrics["isr.brighter_fatter_iterations"] = float(count)
    for amplifier in work.detector.amplifiers:
        _apply(work, amplifier, Masters(_EMPTY, _EMPTY, flat), [1.0, amplifier.read_noise, 0.0, work.config.min_flat])


def _apply(work: _Work, amplifier: Amplifier, masters: Masters, numbers: Sequence[float]) -> None:
    bits = np.array([MaskPlane.NO_DATA, MaskPlane.BAD], np.int32)
    apply_calibs(work.planes, masters, _corners(amplifier), np.array(numbers, np.float32), bits)


def _corners(amplifier: Amplifier) -> IntArray:
    box = amplifier.target
    return np.array([box.y0, box.x0, box.y1, box.x1])


def _follow_bleeds(work: _Work, amplifier: Amplifier) -> None:
    """Flag the trails of an amplifier's saturated pixels, in the finished image."""
    if work.config.bleed_fraction is None or not work.rows.any():
        return
    part = work.planes.image[amplifier.target.slices(work.detector.box)][::_STRIDE, ::_STRIDE]
    part = part[np.isfinite(part)]
    if part.size:
        sky = float(np.median(part))
        level = sky + work.config.bleed_fraction * (amplifier.saturation * amplifier.gain - sky)
        follow_bleeds(work.planes, _corners(amplifier), level, int(MaskPlane.SAT), work.rows)


def _take_over(work: _Work, amplifier: Amplifier, flat: F32) -> None:
    """Take over the mask and the variance that came with the frame."""
    raw, flips = work.raw, {"flip_y": amplifier.flip_y, "flip_x": amplifier.flip_x}
    where, mask = amplifier.target.slices(work.detector.box), work.mask_of(amplifier)
    if raw.mask is not None:
        mask |= mirrored(_part(raw, raw.mask, amplifier), **flips)
    if raw.variance is None:
        return
    given = mirrored(_part(raw, raw.variance, amplifier), **flips) * np.float32(amplifier.gain**2)
    known = np.isfinite(given) & (given > 0)
    if flat.size:
        given /= np.square(flat[where])
    np.copyto(work.planes.variance[where], given, where=known)
    _flag(mask, ~known & (mask == 0), MaskPlane.BAD)


def _flag(mask: IntArray, where: BoolArray, plane: MaskPlane) -> None:
    np.bitwise_or(mask, int(plane), out=mask, where=where)


def _flag_pixels(work: _Work) -> None:
    """Flag defects and edges."""
    mask, edge = work.planes.mask, work.config.edge_px
    if work.calibs.defects is not None:
        _flag(mask, work.calibs.defects, MaskPlane.BAD)
    if edge:
        for border in (mask[:edge], mask[-edge:], mask[:, :edge], mask[:, -edge:]):
            border |= int(MaskPlane.EDGE)


def _subtract_fringe(work: _Work) -> None:
    config, pattern = work.config.fringe, work.calibs.fringe
    if config is not None and pattern is not None and work.raw.info.band in config.bands:
        work.metrics.update(subtract_fringe(work.planes.image, work.planes.mask, pattern, config))


def _require_good(mask: IntArray) -> dict[str, float]:
    """Return what fraction of the pixels is lost, and to what; NoGoodPixels if all are."""
    names = {"saturated": MaskPlane.SAT, "NaN": MaskPlane.NO_DATA, "bad": MaskPlane.BAD}
    unusable = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA)
    lost, *counts = count_flags(mask, np.array([unusable, *map(int, names.values())]))
    if lost == mask.size:
        cause = max(zip(counts, names, strict=True))[1]
        raise NoGoodPixels(
            f"no pixel can be used; most are {cause}",
            remedy="check the exposure, and the saturation level of the camera description",
        )
    keys = ("isr.saturated_fraction", "isr.no_data_fraction", "isr.bad_fraction")
    return {key: float(count / mask.size) for key, count in zip(keys, counts, strict=True)}
