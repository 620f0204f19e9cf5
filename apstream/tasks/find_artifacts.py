"""Artifact rejection between epochs: what is there in one or two exposures only."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.coadd import ClipLimits, clip_outliers
from apstream.arrays.types import F32, BoolArray

__all__ = ["ArtifactConfig", "find_artifacts", "margin_of"]


class ArtifactConfig(BaseModel):
    """What is left out of a coadd because other epochs do not show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_nsigma: float = Field(5.0, gt=0, description="Pixels farther from the median are artifacts, standard errors.")
    pixel_fraction: float = Field(
        0.8, ge=0, description="Fraction of the local brightness that pixels may differ by, for their seeing."
    )
    reach_pixels: int = Field(4, ge=0, le=50, description="About the FWHM of a star, pixels.")
    grow_pixels: int = Field(3, ge=0, le=50, description="How far an artifact takes its rim along, pixels.")


def margin_of(config: ArtifactConfig) -> int:
    """Return how many pixels around a region its artifacts depend on."""
    return _limits(config).margin


def find_artifacts(stack: F32, variance: F32, good: BoolArray, config: ArtifactConfig) -> BoolArray:
    """Tell which good pixels are artifacts.

    Parameters
    ----------
    stack, variance, good : ndarray, shape (n, ny, nx)
        Values on one flux scale, the variance that single pixels scatter with, and which pixels count.
    """
    return clip_outliers(stack, variance, good, _limits(config))


def _limits(config: ArtifactConfig) -> ClipLimits:
    return ClipLimits(
        nsigma=config.pixel_nsigma,
        fraction=config.pixel_fraction,
        reach=config.reach_pixels,
        grow=config.grow_pixels,
    )
