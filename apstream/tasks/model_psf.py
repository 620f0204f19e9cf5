"""Model the PSF from chosen stars."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.psf_model import PsfForm, PsfSolution, fit_psf
from apstream.arrays.sources import Shapes
from apstream.arrays.types import BoolArray
from apstream.tasks.working_image import WorkingImage

__all__ = ["PsfConfig", "model_psf", "used_stars"]


class PsfConfig(BaseModel):
    """The PSF model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Literal["pixel", "pca"] = Field(
        "pixel", description="pixel: every pixel varies by itself; pca: principal components of the stars vary"
    )
    components: int = Field(4, ge=1, le=20, description="principal components beside the mean, for pca")
    deblend: bool = Field(True, description="neighbours of PSF stars are fitted along with them")
    degree: int = Field(2, ge=0, le=4, description="highest degree of the variation over the field")
    half_size_fwhm: float = Field(3.5, gt=1, description="half side of the kernel, FWHM")
    max_half_px: int = Field(32, ge=5, description="largest half side of the kernel, pixels")
    iterations: int = Field(4, ge=1, description="corrections of the model")
    max_stars: int = Field(400, ge=3, description="most stars used, the brightest")
    min_stars: int = Field(3, ge=1, description="with fewer stars the image is unfit")


def model_psf(state: WorkingImage, shapes: Shapes, chosen: BoolArray, config: PsfConfig) -> PsfSolution:
    """Solve for the PSF with the `chosen` among `shapes`."""
    half = min(int(np.ceil(config.half_size_fwhm * state.fwhm)), config.max_half_px)
    half = min(half, (min(state.shape) - 1) // 2)
    return fit_psf(
        state.image,
        state.variance,
        shapes,
        chosen,
        PsfForm(
            half=half,
            degree=config.degree,
            iterations=config.iterations,
            deblend=config.deblend,
            components=config.components if config.basis == "pca" else 0,
        ),
    )


def used_stars(chosen: BoolArray, solution: PsfSolution) -> BoolArray:
    """Return True for the sources that shaped the PSF in the end."""
    used = np.zeros(len(chosen), bool)
    used[np.flatnonzero(chosen)[solution.used]] = True
    return used
