"""ISR: from a raw detector array to an image in electrons with mask and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.isr import (
    apply_calibs,
    crosstalk_signal,
    grow_bleeds,
    mirrored,
    overscan_level,
    overscan_noise,
    place_amplifier,
)
from apstream.arrays.masks import count_flags, dilate, flag_hollow
from apstream.arrays.types import F32, BoolArray, IntArray
from apstream.errors import NoGoodPixels, WrongSize
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Amplifier, Detector
from apstream.model.exposures import Exposure, RawExposure
from apstream.model.geometry import Box
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane

__all__ = ["IsrConfig", "isr"]

_EMPTY = np.zeros((0, 0), np.float32)


class IsrConfig(BaseModel):
    """Settings of `isr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overscan: Literal["row", "constant", "none"] = Field(
        "row",
        description="bias level from the serial overscan: per row, one for the amplifier, or not at all",
    )
    overscan_smooth_rows: int = Field(1, ge=1, description="odd length of a running mean over row levels, rows")
    crosstalk: bool = Field(True, description="subtract what amplifiers hear of each other where that is known")
    crosstalk_mask_electron: float | None = Field(
        30.0,
        gt=0,
        description="pixels from which more crosstalk than this was taken are CROSSTALK, electrons; null: none",
    )
    bias: bool = Field(True, description="subtract the master bias where there is one")
    dark: bool = Field(True, description="subtract the master dark where there is one")
    flat: bool = Field(True, description="divide by the master flat where there is one")
    min_flat: float = Field(0.05, gt=0, description="pixels whose flat is lower are bad")
    saturation_grow_px: int = Field(1, ge=0, description="how far saturated pixels are grown, pixels")
    bleed_fraction: float | None = Field(
        0.1,
        gt=0,
        description="columns are followed on from saturated pixels down to this fraction of saturation",
    )
    suspect_fraction: float | None = Field(
        None, gt=0, le=1, description="pixels above this fraction of saturation are SUSPECT; null: none"
    )
    edge_px: int = Field(4, ge=0, description="width of the border flagged EDGE, pixels")
    max_noise_factor: float = Field(
        3.0, gt=1, description="an amplifier whose overscan is this much noisier than expected is bad, factor"
    )


@dataclass(frozen=True, slots=True)
class _Planes:
    """The detector being assembled."""

    image: F32
    mask: IntArray
    variance: F32
    origin: Box

    def part(self, box: Box) -> tuple[F32, IntArray, F32]:
        where = box.slices(self.origin)
        return self.image[where], self.mask[where], self.variance[where]


@dataclass(slots=True)
class _Segment:
    """One amplifier's pixels as they lie in the raw array, their overscan level, and what they heard of others."""

    data: F32
    level: F32
    heard: F32 | None = None

    def signal(self) -> F32:
        return np.asarray(self.data, np.float32) - self.level[:, None]


def isr(raw: RawExposure, calibs: IsrCalibs | None = None, config: IsrConfig | None = None) -> Exposure:
    """Remove overscan and crosstalk, assemble, subtract bias and dark, flat-field, mask, and make the variance.

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
        camera expects.

    Raises
    ------
    WrongSize
        If the raw array, a master or the crosstalk does not fit the camera's geometry.
    NoGoodPixels
        If all pixels are NaN, or all are saturated.
    """
    calibs, config = calibs or IsrCalibs(), config or IsrConfig()
    detector = raw.detector
    _require_fit(raw, calibs)
    planes = _Planes(
        np.empty(detector.shape, np.float32),
        np.zeros(detector.shape, np.int32),
        np.empty(detector.shape, np.float32),
        detector.box,
    )
    metrics: dict[str, float] = {}
    segments: dict[str, _Segment] = {}
    for amplifier in detector.amplifiers:
        level, seen = _overscan(raw, amplifier, config)
        segments[amplifier.name] = _Segment(_part(raw, raw.pixels, amplifier), level)
        metrics |= seen
    _hear_crosstalk(detector, segments, calibs, config)
    for amplifier in detector.amplifiers:
        _amplifier(raw, amplifier, planes, segment=segments[amplifier.name], calibs=calibs, config=config)
        if metrics.get(f"isr.{amplifier.name}.noise_ratio", 0.0) > config.max_noise_factor:
            planes.part(amplifier.target)[1][:] |= int(MaskPlane.BAD)
    _detector_masks(planes, calibs, config)
    metrics |= _require_good(planes.mask)
    image = MaskedImage.make(planes.image, planes.mask, planes.variance, "electron", detector.box)
    return Exposure(image=image, info=raw.info, wcs=raw.wcs, metrics=metrics)


def _require_fit(raw: RawExposure, calibs: IsrCalibs) -> None:
    detector, remedy = raw.detector, "check that file, detector number and camera description belong together"
    boxes = [box for a in detector.amplifiers for box in (a.data, a.overscan) if box is not None]
    whole = Box.from_shape(raw.pixels.shape) if raw.pixels.ndim == 2 else Box(0, 0, 0, 0)
    outside = [box for box in boxes if box.intersect(whole) != box]
    if outside:
        need = Box.bounding(boxes)
        raise WrongSize(
            f"raw array {raw.pixels.shape} does not hold the amplifiers of detector {detector.name}, "
            f"which reach to ({need.y1}, {need.x1})",
            remedy=remedy,
        )
    for name in ("variance", "mask"):
        beside = getattr(raw, name)
        if beside is not None and beside.shape != raw.pixels.shape:
            raise WrongSize(f"the frame is {raw.pixels.shape}, its {name} {beside.shape}", remedy=remedy)
    for name in ("bias", "dark", "flat", "defects"):
        master = getattr(calibs, name)
        if master is not None and master.shape != detector.shape:
            raise WrongSize(
                f"master {name} is {master.shape}, detector {detector.name} is {detector.shape}",
                remedy=remedy,
            )


def _part(raw: RawExposure, image: np.ndarray[Any, Any], amplifier: Amplifier) -> np.ndarray[Any, Any]:
    return image[amplifier.data.slices(Box.from_shape(raw.pixels.shape))]


def _hear_crosstalk(
    detector: Detector, segments: dict[str, _Segment], calibs: IsrCalibs, config: IsrConfig
) -> None:
    """Fill in what each amplifier heard of the others, where that is known."""
    crosstalk, amplifiers = calibs.crosstalk, detector.amplifiers
    if crosstalk is None or not config.crosstalk or not crosstalk.matrix.any():
        return
    if set(crosstalk.names) != set(segments):
        raise WrongSize(
            f"crosstalk is of amplifiers {', '.join(crosstalk.names)}, detector {detector.name} has "
            f"{', '.join(segments)}",
            remedy="check that crosstalk, detector number and camera description belong together",
        )
    order = [crosstalk.names.index(amplifier.name) for amplifier in amplifiers]
    signals = [_in_order_of_reading(segments[a.name].signal(), a) for a in amplifiers]
    heard = crosstalk_signal(signals, crosstalk.matrix[np.ix_(order, order)])
    for amplifier, added in zip(amplifiers, heard, strict=True):
        segments[amplifier.name].heard = _in_order_of_reading(added, amplifier)


def _in_order_of_reading(image: F32, amplifier: Amplifier) -> F32:
    """Mirror pixels of the raw array into the order of reading, or back."""
    return mirrored(image, flip_y=amplifier.backward_y, flip_x=amplifier.backward_x)


def _amplifier(
    raw: RawExposure,
    amplifier: Amplifier,
    planes: _Planes,
    *,
    segment: _Segment,
    calibs: IsrCalibs,
    config: IsrConfig,
) -> None:
    """Process one amplifier into `planes`."""
    image, mask, variance = planes.part(amplifier.target)
    heard, flips = segment.heard, {"flip_y": amplifier.flip_y, "flip_x": amplifier.flip_x}
    data = np.asarray(segment.data, np.float32)
    place_amplifier(data if heard is None else data - heard, segment.level, image, **flips)
    if heard is not None and config.crosstalk_mask_electron is not None:
        loud = np.abs(heard) * np.float32(amplifier.gain) > config.crosstalk_mask_electron
        _flag(mask, mirrored(loud, **flips), MaskPlane.CROSSTALK)
    _saturation(image, mask, amplifier, config)
    where = amplifier.target.slices(planes.origin)
    masters = [_master(calibs, config, name, where) for name in ("bias", "dark", "flat")]
    numbers = np.array([amplifier.gain, amplifier.read_noise, raw.info.exposure_s], np.float32)
    apply_calibs(image, *masters, variance, numbers)
    if masters[2].size:
        _flag(mask, ~(masters[2] >= config.min_flat), MaskPlane.BAD)
    _take_over(raw, amplifier, mask, variance, flat=masters[2])


def _take_over(raw: RawExposure, amplifier: Amplifier, mask: IntArray, variance: F32, *, flat: F32) -> None:
    """Take over the mask and the variance that came with the frame."""
    flips = {"flip_y": amplifier.flip_y, "flip_x": amplifier.flip_x}
    if raw.mask is not None:
        mask |= mirrored(_part(raw, raw.mask, amplifier), **flips)
    if raw.variance is None:
        return
    given = mirrored(_part(raw, raw.variance, amplifier), **flips) * np.float32(amplifier.gain**2)
    known = np.isfinite(given) & (given > 0)
    if flat.size:
        given /= np.square(flat)
    np.copyto(variance, given, where=known)
    _flag(mask, ~known & (mask == 0), MaskPlane.BAD)


def _overscan(raw: RawExposure, amplifier: Amplifier, config: IsrConfig) -> tuple[F32, dict[str, float]]:
    """Return the level of each row and what is worth recording."""
    rows = amplifier.data.shape[0]
    if amplifier.overscan is None or config.overscan == "none":
        return np.zeros(rows, np.float32), {}
    pixels = np.asarray(raw.pixels[amplifier.overscan.slices(Box.from_shape(raw.pixels.shape))], np.float32)
    level = overscan_level(pixels, by_row=config.overscan == "row", smooth_rows=config.overscan_smooth_rows | 1)
    noise = overscan_noise(pixels)
    head = f"isr.{amplifier.name}"
    metrics = {
        f"{head}.overscan_adu": float(np.mean(level)),
        f"{head}.noise_electron": noise * amplifier.gain,
    }
    if amplifier.read_noise > 0:
        metrics[f"{head}.noise_ratio"] = noise * amplifier.gain / amplifier.read_noise
    return level, metrics


def _saturation(image: F32, mask: IntArray, amplifier: Amplifier, config: IsrConfig) -> None:
    """Flag saturated pixels, grown, with their bleed trails; `image` is in ADU above the bias level."""
    if config.suspect_fraction is not None:
        _flag(mask, image >= config.suspect_fraction * amplifier.saturation, MaskPlane.SUSPECT)
    saturated: BoolArray = np.asarray(image >= amplifier.saturation)
    if not saturated.any():
        return
    if config.bleed_fraction is not None:
        sky = float(np.nanmedian(image[::8, ::8]))
        level = sky + config.bleed_fraction * (amplifier.saturation - sky)
        grow_bleeds(saturated, image, mask, level, int(MaskPlane.SAT))
        saturated |= (mask & int(MaskPlane.SAT)) != 0
    _flag(mask, dilate(saturated, config.saturation_grow_px), MaskPlane.SAT)


def _flag(mask: IntArray, where: BoolArray, plane: MaskPlane) -> None:
    np.bitwise_or(mask, int(plane), out=mask, where=where)


def _master(calibs: IsrCalibs, config: IsrConfig, name: str, where: tuple[slice, slice]) -> F32:
    master = getattr(calibs, name)
    if master is None or not getattr(config, name):
        return _EMPTY
    return np.asarray(master[where], np.float32)


def _detector_masks(planes: _Planes, calibs: IsrCalibs, config: IsrConfig) -> None:
    """Flag defects, pixels without a value, and edges."""
    if calibs.defects is not None:
        _flag(planes.mask, calibs.defects, MaskPlane.BAD)
    flag_hollow(planes.image, planes.variance, planes.mask, int(MaskPlane.NO_DATA))
    edge = config.edge_px
    if edge:
        for border in (
            planes.mask[:edge],
            planes.mask[-edge:],
            planes.mask[:, :edge],
            planes.mask[:, -edge:],
        ):
            border |= int(MaskPlane.EDGE)


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
