"""The image that characterization works on: pixels, what is usable, and the sky known so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.background import evaluate_mesh, measure_mesh
from apstream.arrays.masks import split_usable, subtract_sky
from apstream.arrays.sources import Sky, source_mask
from apstream.arrays.types import F32, BoolArray, IntArray
from apstream.errors import NoGoodPixels
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane

__all__ = ["BackgroundConfig", "WorkingImage", "begin", "measure_sky", "take_sky"]

_LEAST_PIXELS, _LEAST_SIDE = 400, 8  # fewer do not tell the sky
_UNUSABLE = int(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA)


class BackgroundConfig(BaseModel):
    """The sky."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell_px: int = Field(128, ge=8, description="side of a cell of the mesh, pixels")
    smooth_cells: int = Field(3, ge=1, description="side of the median filter over the mesh, cells")
    source_sigma: float = Field(3.0, gt=0, description="sources above this many sigma are masked")
    grow_fwhm: float = Field(1.5, ge=0, description="how far masked sources are grown, FWHM")


@dataclass(slots=True)
class WorkingImage:
    """An image on its way through characterization; array coordinates throughout."""

    data: F32  # as given, finite, rays repaired
    variance: F32  # NaN where a pixel must not be used
    bad: BoolArray
    mask: IntArray
    mesh: F32
    sky: Sky
    image: F32  # data less sky
    covered: BoolArray | None = None
    fwhm: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.data.shape[0], self.data.shape[1]


def begin(image: MaskedImage, config: BackgroundConfig) -> WorkingImage:
    """Check the pixels and take the first look at the sky."""
    data, variance, bad, mask = split_usable(
        image.image, image.variance, image.mask, bits=_UNUSABLE, no_data=int(MaskPlane.NO_DATA)
    )
    _require_pixels(image, bad)
    mesh, rms = measure_mesh(data, bad, cell=config.cell_px, smooth=config.smooth_cells)
    if not np.any(rms > 0):
        raise NoGoodPixels("the image has no noise: its pixels are all alike", remedy="check that the shutter opened")
    cell = min(config.cell_px, *data.shape)
    state = WorkingImage(data, variance, bad, mask, mesh, Sky(rms, cell), data)
    take_sky(state)
    return state


def _require_pixels(image: MaskedImage, bad: BoolArray) -> None:
    usable = np.count_nonzero(~bad)
    if bad.size < _LEAST_PIXELS or min(bad.shape) < _LEAST_SIDE:
        size = f"the image is only {bad.shape[0]} x {bad.shape[1]} pixels"
        raise NoGoodPixels(f"{usable} pixels can be used: {size}", remedy="take one of some hundred pixels a side")
    if usable >= max(_LEAST_PIXELS, 0.005 * bad.size):
        return
    counts = {
        "NaN": int(np.count_nonzero(~np.isfinite(image.image))),
        "saturated": int(np.count_nonzero(image.flagged(MaskPlane.SAT))),
        "without data": int(np.count_nonzero(image.flagged(MaskPlane.NO_DATA))),
        "bad": int(np.count_nonzero(image.flagged(MaskPlane.BAD))),
    }
    worst = max(counts, key=lambda name: counts[name])
    cause = f"mostly {worst}" if counts[worst] else "no variance"
    raise NoGoodPixels(
        f"{usable} of {bad.size} pixels can be used ({cause})",
        remedy="check exposure, saturation level and mask of the image",
    )


def take_sky(state: WorkingImage) -> None:
    """Make the image: the data less the sky known so far."""
    state.image = evaluate_mesh(state.mesh, cell=state.sky.cell, shape=state.shape)
    subtract_sky(state.data, state.image, state.bad, state.mask, int(MaskPlane.SAT))


def measure_sky(state: WorkingImage, config: BackgroundConfig) -> None:
    """Measure the sky again, sources masked."""
    grow = round(config.grow_fwhm * state.fwhm)
    state.covered = source_mask(state.image, state.sky, fwhm=state.fwhm, n_sigma=config.source_sigma, grow=grow)
    state.mesh, rms = measure_mesh(
        state.data, state.bad | state.covered, cell=config.cell_px, smooth=config.smooth_cells
    )
    state.sky = Sky(rms, state.sky.cell)
    take_sky(state)
