"""The linearity of amplifiers from the levels of flats of several exposure times."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.straighten import fit_polynomial, fit_table
from apstream.arrays.types import F64
from apstream.errors import TooFewFrames
from apstream.model.detector import Amplifier
from apstream.model.linearity import Linearity
from apstream.tasks.survey import Survey

__all__ = ["LinearityConfig", "make_linearity"]


class LinearityConfig(BaseModel):
    """Settings of `make_linearity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["polynomial", "table"] = Field("polynomial", description="what is fitted")
    order: int = Field(3, ge=2, le=8, description="highest power of the polynomial")
    max_level_fraction: float = Field(
        0.9, gt=0, le=1, description="levels above this fraction of saturation are left out; SUSPECT begins there"
    )


def make_linearity(found: Survey, config: LinearityConfig | None = None) -> Linearity:
    """Fit level over exposure time of the flats of a survey; the lamp must be steady, its strength does not matter.

    Raises
    ------
    TooFewFrames
        If an amplifier has too few exposure times below saturation.
    """
    config = config or LinearityConfig()
    fits = [_of_amplifier(found, amplifier, config) for amplifier in found.detector.amplifiers]
    return Linearity(
        names=tuple(amplifier.name for amplifier in found.detector.amplifiers),
        kind=config.kind,
        coefficients=tuple(fits),
        max_adu=tuple(config.max_level_fraction * a.saturation for a in found.detector.amplifiers),
    )


def _of_amplifier(found: Survey, amplifier: Amplifier, config: LinearityConfig) -> F64:
    limit = config.max_level_fraction * amplifier.saturation
    seen = [(look.info.exposure_s, look.medians[amplifier.name]) for look in found.looks if look.info.exposure_s > 0]
    seen = [(time, level) for time, level in seen if 0 < level < limit]
    time, level = np.array(seen, float).reshape(-1, 2).T
    try:
        coefficients, slope = fit_polynomial(time, level, order=config.order)
    except ValueError as error:
        raise TooFewFrames(
            f"no linearity of amplifier {amplifier.name}: {error}",
            remedy="give flats of more exposure times below saturation",
        ) from None
    return coefficients if config.kind == "polynomial" else fit_table(time, level, slope)
