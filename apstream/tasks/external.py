"""External images enter without ISR: electrons, variance and mask are supplied where the file has none."""

from __future__ import annotations

import numpy as np
import sep
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.masks import dilate
from apstream.arrays.types import F32, BoolArray
from apstream.errors import NoGoodPixels
from apstream.model.exposures import Exposure
from apstream.model.external import ExternalImage
from apstream.model.image import MaskedImage
from apstream.model.mask import MaskPlane

__all__ = ["ExternalConfig", "enter"]


class ExternalConfig(BaseModel):
    """How missing parts of an external image are supplied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mesh_pixel: int = Field(128, gt=15, description="Cell of the sky mesh that the variance is measured on")
    grow_saturated_pixel: int = Field(2, ge=0, description="How far saturated spots are grown")
    plateau_count: int = Field(8, gt=1, description="Pixels at one highest value that betray saturation")


def enter(external: ExternalImage, config: ExternalConfig) -> Exposure:
    """Turn an external image into an exposure in electrons (in its own unit if the gain is unknown).

    Where the file has no variance it is the measured sky variance of a mesh plus the photon noise of what is
    above the sky, so that it holds for images with and without sky.

    Raises
    ------
    NoGoodPixels
        If nothing is left unmasked.
    """
    gain = external.gain or 1.0
    empty = ~np.isfinite(external.pixels)
    saturated = (~empty & (external.pixels >= _saturation(external, config))) | external.saturated
    saturated = dilate(saturated, config.grow_saturated_pixel)
    if np.all(empty | external.bad | saturated):
        kind = "not a number" if empty.all() else "saturated" if saturated.all() else "flagged or not a number"
        raise NoGoodPixels(f"every pixel is {kind}", where=external.path, remedy="leave this image out")
    electrons = np.where(empty, np.float32(0), external.pixels * np.float32(gain))
    if external.variance is None:
        variance = _variance(electrons, empty | external.bad | saturated, external.read_noise, config.mesh_pixel)
    else:
        variance = external.variance * np.float32(gain**2)
        empty = empty | ~(variance > 0) | ~np.isfinite(variance)
        if empty.any():
            variance = np.where(empty, np.float32(np.median(variance[~empty])) if not empty.all() else 1, variance)
    mask = np.zeros(electrons.shape, np.int32)
    mask[empty] |= MaskPlane.NO_DATA
    mask[external.bad] |= MaskPlane.BAD
    mask[saturated] |= MaskPlane.SAT
    image = MaskedImage.make(electrons, mask, variance, "electron" if external.gain else "count")
    return Exposure(image=image, info=external.info, wcs=external.wcs)


def _saturation(external: ExternalImage, config: ExternalConfig) -> float:
    if np.isfinite(external.saturation):
        return external.saturation
    finite = external.pixels[np.isfinite(external.pixels)]
    if finite.size == 0:
        return float("inf")
    top = finite.max()
    at_top = np.count_nonzero(finite == top)
    return float(top) if config.plateau_count <= at_top <= finite.size // 2 else float("inf")


def _variance(electrons: F32, bad: BoolArray, read_noise: float, mesh: int) -> F32:
    sky = sep.Background(electrons, mask=bad, bw=mesh, bh=mesh)
    noise = np.maximum(sky.rms(), np.float32(max(read_noise, 1e-3)))
    signal = np.maximum(electrons - sky.back(), 0)
    return np.asarray(noise**2 + signal, np.float32)
