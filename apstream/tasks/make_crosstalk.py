"""The crosstalk between the amplifiers of a detector, from frames with bright sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.crosstalk_fit import CrosstalkSums
from apstream.arrays.isr import mirrored
from apstream.arrays.types import F64
from apstream.errors import TooFewFrames
from apstream.model.calibs import IsrCalibs
from apstream.model.crosstalk import Crosstalk
from apstream.model.frames import CalibReport, RawFrames
from apstream.tasks.isr import IsrConfig
from apstream.tasks.survey import amplifier_signal, require_enough, survey

__all__ = ["CrosstalkConfig", "CrosstalkResult", "make_crosstalk"]


class CrosstalkConfig(BaseModel):
    """Settings of `make_crosstalk`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bright_fraction: float = Field(
        0.1, gt=0, lt=1, description="sources count from this fraction of saturation on, above their background"
    )
    max_fraction: float = Field(0.95, gt=0, le=1, description="... up to this fraction of saturation")
    n_sigma: float = Field(4.0, gt=0, description="a victim that stands off by more has light of its own, sigma")
    significance: float = Field(3.0, ge=0, description="coefficients below this many errors become zero")
    min_pixels: int = Field(100, ge=16, description="bright pixels that a source must have, in all frames together")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrosstalkResult:
    """Crosstalk and the errors of its matrix, shape (n, n)."""

    crosstalk: Crosstalk
    error: F64
    report: CalibReport


def make_crosstalk(
    frames: RawFrames,
    calibs: IsrCalibs | None = None,
    isr: IsrConfig | None = None,
    config: CrosstalkConfig | None = None,
) -> CrosstalkResult:
    """Regress every amplifier's background on what every other one reads at the same moment.

    Pixels are compared in the order of reading, as ISR takes crosstalk out. Coefficients that are not significant, and
    those of amplifiers without bright sources, are zero.

    Parameters
    ----------
    calibs
        With bias to apply.

    Raises
    ------
    TooFewFrames
        If no frame can be read, the detector has one amplifier, or none of them has bright pixels enough.
    """
    calibs, isr, config = calibs or IsrCalibs(), isr or IsrConfig(), config or CrosstalkConfig()
    given = IsrCalibs(bias=calibs.bias)
    found = survey(frames, given, isr)
    require_enough(found, 1, "frame")
    amplifiers = found.detector.amplifiers
    if len(amplifiers) < 2:
        raise TooFewFrames(
            f"detector {found.detector.name} has one amplifier: no crosstalk", remedy="check the camera description"
        )
    lowest = min(amplifier.saturation for amplifier in amplifiers)
    sums = CrosstalkSums(len(amplifiers), config.bright_fraction * lowest, config.n_sigma)
    for look in found.looks:
        raw = frames.frame(look.index)
        segments = [
            mirrored(amplifier_signal(raw, look, a, given), flip_y=a.backward_y, flip_x=a.backward_x)
            for a in amplifiers
        ]
        sums.add(segments, [config.max_fraction * a.saturation for a in amplifiers])
    names = tuple(amplifier.name for amplifier in amplifiers)
    matrix, error = _significant(sums, config)
    metrics = {"frames": float(len(found.looks)), "nonzero": float(np.count_nonzero(matrix))}
    for i, victim in enumerate(names):
        for j, source in enumerate(names):
            if i != j:
                metrics[f"{source}_in_{victim}"] = float(matrix[i, j])
                metrics[f"{source}_in_{victim}_err"] = float(error[i, j])
    report = CalibReport(kind="crosstalk", used=found.names, rejected=found.rejected, metrics=metrics)
    return CrosstalkResult(crosstalk=Crosstalk(names, matrix), error=error, report=report)


def _significant(sums: CrosstalkSums, config: CrosstalkConfig) -> tuple[F64, F64]:
    value, error = sums.coefficients()
    seen = sums.count >= config.min_pixels
    if not seen.any():
        raise TooFewFrames(
            f"no amplifier has {config.min_pixels} pixels above {sums.bright_adu:.0f} ADU",
            remedy="give frames with bright stars, or lower crosstalk.bright_fraction",
        )
    matrix = np.where(seen & (np.abs(value) > config.significance * error), value, 0.0)
    np.fill_diagonal(matrix, 0.0)
    return matrix, np.where(seen, error, np.nan)
