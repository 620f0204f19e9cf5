"""Overscan: the bias levels of an amplifier's rows and columns, and its read noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from apstream.arrays.overscan import (
    constant_levels,
    line_levels,
    overscan_noise,
    polynomial_levels,
    smoothed_levels,
    spline_levels,
    trailed_lines,
)
from apstream.arrays.types import F32
from apstream.model.detector import Amplifier
from apstream.model.exposures import RawExposure
from apstream.model.geometry import Box

__all__ = [
    "ConstantOverscan",
    "LineOverscan",
    "NoOverscan",
    "OverscanChoice",
    "OverscanLevels",
    "PolynomialOverscan",
    "SplineOverscan",
    "overscan_levels",
]

_NONE = np.zeros(0, np.float32)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NoOverscan(_Frozen):
    """The overscan is not looked at."""

    kind: Literal["none"] = "none"


class ConstantOverscan(_Frozen):
    """One level for the amplifier: the median of its lines."""

    kind: Literal["constant"] = "constant"


class LineOverscan(_Frozen):
    """Every line (row, or column of a parallel overscan) has its own level: its clipped mean."""

    kind: Literal["line"] = "line"
    smooth_lines: int = Field(1, ge=1, description="odd length of a running mean over the levels, lines; 1: none")


class SplineOverscan(_Frozen):
    """A cubic smoothing spline through the lines' levels."""

    kind: Literal["spline"] = "spline"
    n_sigma: float = Field(3.0, gt=1, description="lines further from the fit are left out of it, sigma")


class PolynomialOverscan(_Frozen):
    """A polynomial through the lines' levels."""

    kind: Literal["polynomial"] = "polynomial"
    family: Literal["chebyshev", "legendre"] = Field("chebyshev", description="which polynomials")
    order: int = Field(3, ge=0, le=20, description="degree")
    n_sigma: float = Field(3.0, gt=1, description="lines further from the fit are left out of it, sigma")


Overscan = NoOverscan | ConstantOverscan | LineOverscan | SplineOverscan | PolynomialOverscan


def _by_word(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


#: One of the kinds, as a mapping with `kind`, or the kind's name alone.
OverscanChoice = Annotated[Overscan, Field(discriminator="kind"), BeforeValidator(_by_word)]


@dataclass(frozen=True, slots=True, eq=False)
class OverscanLevels:
    """Bias levels of one amplifier in ADU, as it lies in the raw array.

    Parameters
    ----------
    rows : ndarray, shape (ny,), float32
    columns : ndarray, shape (nx,) or (0,)
        What is left in the columns once the rows' levels are gone; empty where it is not known.
    noise
        Read noise, ADU; NaN without serial overscan.
    """

    rows: F32
    columns: F32
    noise: float
    metrics: dict[str, float]

    def taken_from(self, data: F32, rows: slice = slice(None)) -> F32:
        """Return the amplifier's pixels, or `data` of some of its rows, above their bias levels."""
        above = np.asarray(data, np.float32) - self.rows[rows, None]
        return above - self.columns if self.columns.size else above


def overscan_levels(raw: RawExposure, amplifier: Amplifier, serial: Overscan, parallel: Overscan) -> OverscanLevels:
    """Return the bias levels of an amplifier: first of its rows, then, with these subtracted, of its columns.

    Lines into which charge has run from bright pixels do not count; see `apstream.arrays.overscan`. Where the two
    overscans meet, the serial one gives the level of the parallel one.
    """
    head, metrics = f"isr.{amplifier.name}", {}
    rows, noise, columns = np.zeros(amplifier.data.shape[0], np.float32), float("nan"), _NONE
    if amplifier.overscan is not None and not isinstance(serial, NoOverscan):
        pixels = _cut(raw, amplifier.overscan)
        rows, trailed = _levels(pixels, serial)
        noise = overscan_noise(pixels)
        metrics = {f"{head}.overscan_adu": float(np.mean(rows)), f"{head}.noise_electron": noise * amplifier.gain}
        metrics |= {f"{head}.n_trailed_rows": float(trailed)} if trailed else {}
        if amplifier.read_noise > 0:
            metrics[f"{head}.noise_ratio"] = noise * amplifier.gain / amplifier.read_noise
    if amplifier.parallel_overscan is not None and not isinstance(parallel, NoOverscan):
        pixels = _cut(raw, amplifier.parallel_overscan) - _corner_level(raw, amplifier, rows, serial)
        columns, trailed = _levels(np.ascontiguousarray(pixels.T), parallel)
        columns = np.nan_to_num(columns)
        metrics[f"{head}.parallel_overscan_adu"] = float(np.mean(columns))
        metrics |= {f"{head}.n_trailed_columns": float(trailed)} if trailed else {}
    return OverscanLevels(rows, columns, noise, metrics)


def _levels(overscan: F32, config: Overscan) -> tuple[F32, int]:
    """Return the level of each line and how many lines charge has run into."""
    levels = line_levels(overscan)
    trailed = trailed_lines(overscan, levels)
    match config:
        case LineOverscan():
            levels = smoothed_levels(levels, trailed, smooth_lines=config.smooth_lines | 1)
        case SplineOverscan():
            levels = spline_levels(levels, trailed, n_sigma=config.n_sigma)
        case PolynomialOverscan():
            levels = polynomial_levels(
                levels, trailed, family=config.family, order=config.order, n_sigma=config.n_sigma
            )
        case _:
            levels = constant_levels(levels)
    return levels, int(trailed.sum())


def _corner_level(raw: RawExposure, amplifier: Amplifier, rows: F32, serial: Overscan) -> np.float32:
    """Return the serial overscan's level in the rows of the parallel one; the image rows' where there is none."""
    over, below = amplifier.overscan, amplifier.parallel_overscan
    if over is None or below is None or isinstance(serial, NoOverscan):
        return np.float32(0)
    corner = Box(below.y0, over.x0, below.y1, over.x1)
    if corner.intersect(Box.from_shape(raw.pixels.shape)) != corner:
        return np.float32(np.median(rows))
    level = constant_levels(line_levels(_cut(raw, corner)))[0]
    return np.float32(level if np.isfinite(level) else np.median(rows))


def _cut(raw: RawExposure, box: Box) -> F32:
    return np.asarray(raw.pixels[box.slices(Box.from_shape(raw.pixels.shape))], np.float32)
