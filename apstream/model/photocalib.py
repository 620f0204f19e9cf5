"""Photometric calibration: electrons to nanojansky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F64, FloatArray
from apstream.model.geometry import Box

__all__ = ["AB_ZEROPOINT_NJY", "PhotoCalib", "magnitude_to_njy", "njy_to_magnitude"]

#: AB magnitude of one nanojansky.
AB_ZEROPOINT_NJY = 31.4


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoCalib:
    """Scale from image units to nJy.

    Parameters
    ----------
    njy_per_unit
        nJy for one unit (electron or ADU) of the uncalibrated image.
    error
        Standard error of the scale, same unit.
    n_stars
        Stars that fixed it.
    relative
        True when the scale is relative to a template and not to a catalogue.
    spatial_mag
        Magnitudes by which the zero point rises over `box`, terms of `poly_terms` there; none: the same everywhere.
    box
        Where `spatial_mag` holds.

    Raises
    ------
    ValueError
        If the scale is not positive and finite, or a map has no box.
    """

    njy_per_unit: float
    error: float = 0.0
    n_stars: int = 0
    relative: bool = False
    spatial_mag: tuple[float, ...] = ()
    box: Box | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.njy_per_unit) and self.njy_per_unit > 0):
            raise ValueError(f"photometric scale must be positive, not {self.njy_per_unit}")
        if self.spatial_mag:
            degree_of(len(self.spatial_mag))
            if self.box is None:
                raise ValueError("a map of the zero point needs the box on which it is defined")

    def scale_at(self, y: FloatArray, x: FloatArray) -> F64:
        """Return nJy for one unit of the uncalibrated image at absolute pixels, which broadcast."""
        if not self.spatial_mag or self.box is None:
            return np.full(np.broadcast(y, x).shape, self.njy_per_unit)
        ty, tx = self.box.normalize(y, x)
        terms = poly_terms(ty, tx, degree_of(len(self.spatial_mag)))
        return np.asarray(self.njy_per_unit * 10 ** (-0.4 * np.tensordot(self.spatial_mag, terms, axes=(0, 0))))

    def scale_over(self, box: Box) -> float | F64:
        """Return the scale of all pixels of a box: one number, or where it varies an array of the box's shape."""
        if not self.spatial_mag:
            return self.njy_per_unit
        return self.scale_at(np.arange(box.y0, box.y1, dtype=float)[:, None], np.arange(box.x0, box.x1, dtype=float))

    @property
    def zero_point(self) -> float:
        """AB magnitude of one unit of the uncalibrated image."""
        return float(AB_ZEROPOINT_NJY - 2.5 * np.log10(self.njy_per_unit))

    @classmethod
    def from_zero_point(cls, zero_point: float, *, error_mag: float = 0.0, n_stars: int = 0) -> PhotoCalib:
        """Make the calibration whose one unit has AB magnitude `zero_point`."""
        scale = 10 ** (-0.4 * (zero_point - AB_ZEROPOINT_NJY))
        return cls(njy_per_unit=scale, error=scale * error_mag * 0.921, n_stars=n_stars)


def magnitude_to_njy(mag: FloatArray | float) -> F64:
    """Convert AB magnitudes to nJy."""
    return np.asarray(10 ** (-0.4 * (np.asarray(mag, float) - AB_ZEROPOINT_NJY)))


def njy_to_magnitude(flux: FloatArray | float) -> F64:
    """Convert nJy to AB magnitudes; NaN for fluxes that are not positive."""
    flux = np.asarray(flux, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0, AB_ZEROPOINT_NJY - 2.5 * np.log10(flux), np.nan)
