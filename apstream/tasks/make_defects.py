"""Defects of a detector, from its master dark and flats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.bad_pixels import deviant_columns, deviant_pixels, filled_columns, smooth_shape
from apstream.arrays.types import F32, BoolArray
from apstream.errors import TooFewFrames, WrongSize
from apstream.model.defects import Defects
from apstream.model.frames import CalibReport
from apstream.words import listed

__all__ = ["DefectsConfig", "DefectsResult", "make_defects"]


class DefectsConfig(BaseModel):
    """Settings of `make_defects`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_sigma: float = Field(8.0, gt=0, description="pixels that stand off by less are good, sigma of all pixels")
    hot_adu_s: float = Field(
        0.5, gt=0, description="pixels that fill by less than this above the others are not hot, ADU/s"
    )
    low_response: float = Field(
        0.8, gt=0, lt=1, description="pixels with more of the response around them are not dead"
    )
    high_response: float = Field(1.2, gt=1, description="pixels with less of the response around them are not hot")
    column_n_sigma: float = Field(8.0, gt=0, description="the same for medians of stretches of columns, sigma")
    column_hot_adu_s: float = Field(0.1, gt=0, description="stretches of columns that fill by less are good, ADU/s")
    column_response: float = Field(0.03, gt=0, description="stretches whose response is off by less are good, fraction")
    column_density: float = Field(
        0.3, gt=0, le=1, description="columns with so many bad pixels in a stretch are bad all along it, fraction"
    )
    max_fraction: float = Field(0.2, gt=0, le=1, description="more bad pixels are refused: the masters are wrong")


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectsResult:
    """Defects, and how many of which kind."""

    defects: Defects
    report: CalibReport


def make_defects(
    dark: F32 | None, flats: Sequence[F32], config: DefectsConfig | None = None, *, used: Sequence[str] = ()
) -> DefectsResult:
    """Find hot pixels in the dark, dead and too sensitive ones in the flats, and bad columns in both.

    Parameters
    ----------
    dark : ndarray, shape (ny, nx)
        ADU per second; None: there is none.
    flats : arrays, shape (ny, nx)
        Mean one, of any number of bands; a pixel is bad if it is in one of them.
    used
        What the masters are called in the report.

    Raises
    ------
    TooFewFrames
        If there is neither a dark nor a flat.
    WrongSize
        If their sizes differ, or more than ``max_fraction`` of the pixels would be bad.
    """
    config = config or DefectsConfig()
    masters = [*([] if dark is None else [dark]), *flats]
    if not masters:
        raise TooFewFrames(
            "neither a master dark nor a master flat", remedy="make one with apstream calib dark or flat"
        )
    if len({master.shape for master in masters}) > 1:
        sizes = listed(dict.fromkeys(master.shape for master in masters))
        raise WrongSize(f"masters of different sizes: {sizes}", remedy="give masters of one detector")
    found = {"hot": _hot(dark, config)} if dark is not None else {}
    for flat in flats:
        found["unresponsive"] = found.get("unresponsive", np.zeros(flat.shape, bool)) | _unresponsive(flat, config)
    bad = np.logical_or.reduce(list(found.values()))
    bad = filled_columns(bad, density=config.column_density, least=8)
    if bad.mean() > config.max_fraction:
        raise WrongSize(
            f"{100 * bad.mean():.0f} % of the pixels would be bad", remedy="look at the masters, or raise max_fraction"
        )
    defects = Defects.from_mask(bad)
    metrics = {f"{kind}_pixels": float(where.sum()) for kind, where in found.items()}
    metrics |= {"pixels": float(bad.sum()), "fraction": float(bad.mean()), "boxes": float(len(defects.boxes))}
    return DefectsResult(defects=defects, report=CalibReport(kind="defects", used=tuple(used), metrics=metrics))


def _hot(dark: F32, config: DefectsConfig) -> BoolArray:
    excess = dark - smooth_shape(dark)
    pixels = deviant_pixels(excess, n_sigma=config.n_sigma, low=-config.hot_adu_s, high=config.hot_adu_s)
    return pixels | deviant_columns(excess, n_sigma=config.column_n_sigma, least=config.column_hot_adu_s)


def _unresponsive(flat: F32, config: DefectsConfig) -> BoolArray:
    shape = smooth_shape(flat)
    excess = np.asarray(flat / np.where(shape > 0, shape, np.nan) - 1, np.float32)
    low, high = config.low_response - 1, config.high_response - 1
    pixels = deviant_pixels(excess, n_sigma=config.n_sigma, low=low, high=high)
    return pixels | deviant_columns(excess, n_sigma=config.column_n_sigma, least=config.column_response)
