"""Fringes: subtract a known pattern, as strong as it is in the image."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.fringe import fringe_amplitude
from apstream.arrays.types import F32, IntArray
from apstream.model.mask import planes

__all__ = ["FringeConfig", "subtract_fringe"]

_UNUSABLE = planes("BAD", "SAT", "NO_DATA", "SUSPECT", "CR")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FringeConfig(_Frozen):
    """Settings of `subtract_fringe`."""

    bands: tuple[str, ...] = Field(min_length=1, description="bands in which there are fringes")
    cell_px: int = Field(128, ge=16, description="in cells of this size the sky is a plane, pixels")
    n_sigma: float = Field(3.0, gt=1, description="pixels further from the fit are left out of it, sigma")
    iterations: int = Field(4, ge=1, description="how often the fit is repeated without what stands off")


def subtract_fringe(image: F32, mask: IntArray, pattern: F32, config: FringeConfig) -> dict[str, float]:
    """Subtract from `image`, in place, the pattern times what fits the sky; return the amplitude and its error.

    Nothing is subtracted where no amplitude can be had (too little sky).
    """
    bad = np.asarray((mask & _UNUSABLE) != 0)
    amplitude, error = fringe_amplitude(
        image, pattern, bad, cell_px=config.cell_px, n_sigma=config.n_sigma, iterations=config.iterations
    )
    if np.isfinite(amplitude):
        image -= np.float32(amplitude) * np.nan_to_num(pattern)
    return {"isr.fringe_amplitude": amplitude, "isr.fringe_amplitude_error": error}
