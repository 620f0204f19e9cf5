"""How the values of a pixel become one: the choices of the setting `statistic`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ImportString

from apstream.arrays.coadd import masked_median
from apstream.arrays.types import F32, F64, BoolArray
from apstream.errors import BadSettings

__all__ = ["ClippedMean", "Function", "Median", "Statistic", "Values", "WeightedMean", "sigma_clip", "value_of"]

#: Efficiency of the median of many Gaussian values: its variance over that of their mean.
_MEDIAN_VARIANCE = np.pi / 2


class WeightedMean(BaseModel):
    """The mean with one weight per input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mean"] = "mean"


class ClippedMean(BaseModel):
    """The weighted mean of the values near the median; it changes the cores of stars where seeing differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["clipped_mean"] = "clipped_mean"
    nsigma: float = Field(3.0, gt=0, description="Values farther than so many standard deviations are clipped")
    iterations: int = Field(2, ge=1, le=20, description="How often centre and clipping are renewed")


class Median(BaseModel):
    """The unweighted median."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["median"] = "median"


class Function(BaseModel):
    """A function of one's own.

    It is called with `stack`, `variance`, `use`, each of shape (n, ny, nx), and `weights` (n,), and returns
    value and variance, each of shape (ny, nx), NaN where nothing counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["function"] = "function"
    function: ImportString[Callable[..., Any]] = Field(description="Written MODULE:NAME")
    inputs: tuple[str, ...] = Field((), description="Names of further inputs it takes, one value per exposure each")


Statistic = Annotated[WeightedMean | ClippedMean | Median | Function, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What a statistic sees: `stack`, `variance`, `use` of shape (n, ny, nx), `weights` (n,), and more by name."""

    stack: F32
    variance: F32
    use: BoolArray
    weights: F64
    extras: Mapping[str, Any]


def sigma_clip(stack: F32, variance: F32, good: BoolArray, statistic: ClippedMean) -> BoolArray:
    """Return which good values are clipped; a pixel with fewer than three keeps all.

    The first centre is the median, later ones the mean of what is left.
    """
    centre, use = masked_median(stack, good), good
    for _ in range(statistic.iterations):
        near = np.abs(stack - centre) <= statistic.nsigma * np.sqrt(variance)
        enough = good.sum(axis=0) >= 3
        use = good & (near | ~enough)
        number = use.sum(axis=0)
        with np.errstate(invalid="ignore"):
            centre = np.where(use, stack, 0).sum(axis=0, dtype=np.float64) / number
    return np.asarray(good & ~use)


def value_of(values: Values, statistic: Median | Function) -> tuple[F32, F32]:
    """Return value and variance of every pixel.

    Raises
    ------
    BadSettings
        If a further input is missing, or a function returns something else than two images.
    """
    if isinstance(statistic, Median):
        return _median(values)
    absent = [name for name in statistic.inputs if name not in values.extras]
    if absent:
        raise BadSettings(
            f"statistic.inputs names {', '.join(absent)}, which are not given; there are "
            f"{', '.join(values.extras) or 'none'}",
            remedy="pass them, one value per exposure",
        )
    chosen = {name: values.extras[name] for name in statistic.inputs}
    found = statistic.function(
        stack=values.stack, variance=values.variance, use=values.use, weights=values.weights, **chosen
    )
    shape = values.stack.shape[1:]
    if len(found) != 2 or any(np.shape(plane) != shape for plane in found):
        raise BadSettings(
            f"statistic.function {statistic.function!r} must return value and variance of shape {shape}",
            remedy="let it reduce the first axis of `stack`",
        )
    value, noise = found
    return np.asarray(value, np.float32), np.asarray(noise, np.float32)


def _median(values: Values) -> tuple[F32, F32]:
    n = values.use.sum(axis=0)
    spread = np.where(values.use, values.variance, 0).sum(axis=0, dtype=np.float64)
    factor = np.where(n > 2, _MEDIAN_VARIANCE, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(n > 0, factor * spread / n**2, np.nan)
    return masked_median(values.stack, values.use), noise.astype(np.float32)
