"""Combine many raw frames into one on the assembled detector, in bands of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.isr import mirrored
from apstream.arrays.master import clipped_mean, noise_excess
from apstream.arrays.types import F32, F64
from apstream.model.calibs import IsrCalibs
from apstream.model.detector import Amplifier
from apstream.model.frames import RawFrames
from apstream.tasks.survey import FrameLook, Survey, amplifier_gain, flips, straight

__all__ = ["CombineConfig", "Recipe", "Stack", "stack"]


class CombineConfig(BaseModel):
    """Settings of `stack`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_sigma: float = Field(4.0, gt=0, description="values that stand off by more are left out, sigma")
    iterations: int = Field(5, ge=1, description="how often at most the clipping is repeated")
    min_frames: int = Field(2, ge=1, description="fewer frames are refused; outliers can be told from 2 on")
    memory_mb: int = Field(512, ge=1, description="memory for the pixels that are combined at a time, MB")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recipe:
    """What is done to the frames before they are combined.

    Parameters
    ----------
    calibs
        Its bias, its dark (by exposure time) and its linearity are applied.
    divisors : ndarray, shape (n,)
        What each frame is divided by.
    unit
        Before the division.
    typical
        Value that the mean will have about, for the weights of the frames.
    lit
        Whether what is left after overscan and calibrations is light, which has noise of its own.
    """

    calibs: IsrCalibs
    divisors: F64
    unit: Literal["adu", "electron"] = "adu"
    typical: float = 0.0
    lit: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Mean, its error, and the number of values at each pixel of the assembled detector, shape (ny, nx)."""

    mean: F32
    error: F32
    count: F32

    def clipped_fraction(self, frames: int) -> float:
        """Return the fraction of all values that was left out."""
        return 1 - float(np.mean(self.count, dtype=np.float64)) / frames


def stack(frames: RawFrames, found: Survey, recipe: Recipe, config: CombineConfig) -> Stack:
    """Combine the frames of a survey; memory does not grow with their number.

    Only so many rows are held at a time that those of all frames fit into ``memory_mb``; beside them stand the
    results and the overscan levels, four bytes for each row of an amplifier of each frame.

    Returns
    -------
    Stack
        In `recipe.unit` over the unit of the divisors.
    """
    shape = found.detector.shape
    planes = [np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)]
    for y0, y1 in _bands(found, config.memory_mb):
        cube = _cube(frames, found.looks, y0, y1)
        for amplifier in found.detector.amplifiers:
            first, last = max(y0, amplifier.data.y0), min(y1, amplifier.data.y1)
            if first >= last:
                continue
            part = cube[:, first - y0 : last - y0, amplifier.data.x0 : amplifier.data.x1]
            rows = slice(first - amplifier.data.y0, last - amplifier.data.y0)
            values = _prepared(part, found.looks, amplifier, rows=rows, recipe=recipe, found=found)
            combined = _combined(values, found.looks, amplifier, recipe, config)
            target = amplifier.target.slices(found.detector.box)
            for plane, result in zip(planes, combined, strict=True):
                mirrored(plane[target], **flips(amplifier))[rows] = result.reshape(part.shape[1:])
    return Stack(*planes)


def _cube(frames: RawFrames, looks: Sequence[FrameLook], y0: int, y1: int) -> F32:
    """Return a band of rows of all frames."""
    first = frames.rows(looks[0].index, y0, y1)
    cube = np.empty((len(looks), *first.shape), np.float32)
    cube[0] = first
    for k, look in enumerate(looks[1:], 1):
        cube[k] = frames.rows(look.index, y0, y1)
    return cube


def _bands(found: Survey, memory_mb: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of raw rows whose pixels in all frames fit into the memory given, twice over."""
    boxes = [amplifier.data for amplifier in found.detector.amplifiers]
    boxes += [a.overscan for a in found.detector.amplifiers if a.overscan is not None]
    width = max(box.x1 for box in boxes)
    rows = max(1, int(memory_mb * 1e6 / (8 * width * max(1, len(found.looks)))))
    first = min(a.data.y0 for a in found.detector.amplifiers)
    last = max(a.data.y1 for a in found.detector.amplifiers)
    for y0 in range(first, last, rows):
        yield y0, min(y0 + rows, last)


def _prepared(
    part: F32,
    looks: Sequence[FrameLook],
    amplifier: Amplifier,
    *,
    rows: slice,
    recipe: Recipe,
    found: Survey,
) -> F32:
    """Return the values of an amplifier's rows in all frames as they are combined, shape (n, pixels)."""
    values = np.empty((len(looks), part.shape[1] * part.shape[2]), np.float32)
    calibs, target = recipe.calibs, amplifier.target.slices(found.detector.box)
    bias, dark = (
        None if master is None else mirrored(master[target], **flips(amplifier))[rows]
        for master in (calibs.bias, calibs.dark)
    )
    gain = amplifier_gain(amplifier, calibs) if recipe.unit == "electron" else 1.0
    for k, look in enumerate(looks):
        signal = straight(look.levels[amplifier.name].taken_from(part[k], rows), amplifier, calibs)
        if bias is not None:
            signal -= bias
        if dark is not None:
            signal -= dark * np.float32(look.info.exposure_s)
        signal *= np.float32(gain / recipe.divisors[k])
        values[k] = signal.ravel()
    return values


def _combined(
    values: F32, looks: Sequence[FrameLook], amplifier: Amplifier, recipe: Recipe, config: CombineConfig
) -> tuple[F32, F32, F32]:
    gain = amplifier_gain(amplifier, recipe.calibs)
    scale = (gain if recipe.unit == "electron" else 1.0) / recipe.divisors
    noise2 = (np.array([look.noise[amplifier.name] for look in looks]) * scale) ** 2
    photon = scale / gain if recipe.lit else np.zeros(len(looks))
    excess = noise_excess(values, noise2, photon) ** 2
    noise2, photon = noise2 * excess, photon * excess
    weights = 1 / (noise2 + photon * max(recipe.typical, 0.0))
    return clipped_mean(values, weights, noise2, photon, n_sigma=config.n_sigma, iterations=config.iterations)
