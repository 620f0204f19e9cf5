"""Find and repair cosmic rays: what is sharper than the PSF."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.cosmic import find_cosmic_rays, repair, sharpness_limits, spare_stars
from apstream.arrays.kernel_shape import gaussian_match
from apstream.arrays.masks import dilate
from apstream.arrays.moments import FWHM_PER_SIGMA
from apstream.arrays.types import F64
from apstream.model.mask import MaskPlane
from apstream.tasks.working_image import WorkingImage

__all__ = ["CosmicRayConfig", "repair_cosmic_rays"]

_SPOILED_PX = 4


class CosmicRayConfig(BaseModel):
    """Cosmic rays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_sigma: float = Field(6.0, gt=0, description="least height of a ray's first pixel, sigma")
    grow_sigma: float = Field(2.5, gt=0, description="least height of pixels next to it, sigma")
    margin: float = Field(1.1, ge=1, description="a ray is sharper than a PSF narrower by this factor")
    iterations: int = Field(8, ge=0, description="rounds of growth, one pixel each")


def repair_cosmic_rays(state: WorkingImage, kernels: F64, config: CosmicRayConfig | None) -> None:
    """Find rays sharper than all of `kernels`, flag and repair them."""
    if config is None:
        return
    # Bleed trails end as sharply as rays do; what lies beside saturated pixels cannot be judged.
    spoiled = state.bad | dilate((state.mask & MaskPlane.SAT) != 0, _SPOILED_PX)
    hit = find_cosmic_rays(
        state.image,
        state.variance,
        spoiled,
        sharpness_limits(kernels, margin=config.margin),
        n_sigma=config.n_sigma,
        grow_sigma=config.grow_sigma,
        iterations=config.iterations,
    )
    middle = gaussian_match(kernels.mean(axis=0))
    rows, cols = spare_stars(state.image, hit, minor=middle[1], axis_ratio=middle[2])
    if not len(rows):
        return
    fixed = repair(state.image, rows, cols, state.bad, sigma=max(state.fwhm / FWHM_PER_SIGMA, 0.7))
    state.data[rows, cols] += fixed - state.image[rows, cols]
    state.image[rows, cols] = fixed
    state.mask[rows, cols] |= int(MaskPlane.CR | MaskPlane.INTRP)
