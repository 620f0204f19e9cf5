"""Photometry: the scale from image units to nJy from catalogue magnitudes, colour terms and a map over the detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.types import F64, BoolArray, Records
from apstream.arrays.zeropoint import ResidualMap, ZeroPoint, fit_residual_map, fit_zero_point
from apstream.errors import CalibrationFailed
from apstream.model.exposures import ExposureInfo
from apstream.model.geometry import Box
from apstream.model.photocalib import PhotoCalib

__all__ = ["ColorTerm", "Photometry", "PhotometryConfig", "fit_photometry"]

#: Magnitude error taken for catalogue stars that have none.
_DEFAULT_MAG_ERROR = 0.02


class ColorTerm(BaseModel):
    """Magnitude in the image's band: primary + c0 + c1 colour + c2 colour^2, colour = primary - secondary.

    Bands are the catalogue's, or names of its magnitude columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary: str = Field(min_length=1, description="Band of the catalogue nearest to the image's.")
    secondary: str = Field(min_length=1, description="Band that with the primary one makes the colour.")
    c0: float = Field(0.0, description="Constant, mag.")
    c1: float = Field(0.0, description="Linear term.")
    c2: float = Field(0.0, description="Quadratic term, 1/mag.")

    def magnitude(self, primary: F64, color: F64) -> F64:
        """Return magnitudes in the image's band; NaN where a colour is needed and not known."""
        if not (self.c1 or self.c2):
            return primary + self.c0
        return primary + self.c0 + color * (self.c1 + self.c2 * color)


class PhotometryConfig(BaseModel):
    """How the zero point is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_stars: int = Field(3, ge=2, description="Fewest stars of a zero point.")
    min_snr: float = Field(10.0, gt=0, description="Fainter stars do not shape the zero point.")
    nsigma: float = Field(3.0, gt=1, description="Residuals beyond so many standard deviations are rejected.")
    error_floor_mag: float = Field(0.005, ge=0, description="No star's magnitude is better known than this.")
    color_terms: Mapping[str, ColorTerm] = Field({}, description="By the image's physical filter or band.")
    spatial_degree: int = Field(
        0, ge=0, le=4, description="Highest degree of the map of residuals over the detector, if they prove one."
    )

    def color_term(self, info: ExposureInfo) -> ColorTerm | None:
        """Return the colour term for an image, if there is one."""
        return self.color_terms.get(info.physical_filter) or self.color_terms.get(info.band)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Photometry:
    """The calibration, the zero point it is made of, and the map of residuals if there is one."""

    calib: PhotoCalib
    zero: ZeroPoint
    map: ResidualMap | None


def fit_photometry(
    stars: Records, catalogue: Records, info: ExposureInfo, box: Box, config: PhotometryConfig
) -> Photometry:
    """Fit the zero point, and after it the map of residuals.

    Parameters
    ----------
    stars, catalogue
        Matched rows of `STAR_DTYPE` and `REFCAT_DTYPE`.
    box
        Of the image, on which a map is defined.

    Raises
    ------
    CalibrationFailed
        If too few stars are left; the message counts them.
    """
    mag = _magnitudes(catalogue, info, config)
    good, snr = _good_stars(stars, mag, config)
    known = np.where(catalogue["mag_err"] > 0, catalogue["mag_err"], _DEFAULT_MAG_ERROR)
    error = np.hypot(np.hypot(1.0857 / np.maximum(snr, 1e-3), known), config.error_floor_mag)[good]
    flux = stars["flux"][good]
    zero = fit_zero_point(flux, mag[good], error, nsigma=config.nsigma)
    if zero is None or zero.count < config.min_stars:
        raise CalibrationFailed(
            f"no zero point: {len(stars)} matched stars, {int(good.sum())} of them unsaturated with "
            f"S/N above {config.min_snr:g}, {zero.count if zero else 0} agree",
            remedy="check that the catalogue has magnitudes in the image's band, and colours if "
            "calibrate.photometry.color_terms asks for them",
        )
    ty, tx = box.normalize(stars["y"][good], stars["x"][good])
    residual = mag[good] + 2.5 * np.log10(flux) - zero.value
    error = np.hypot(error, zero.intrinsic)
    found = fit_residual_map(ty, tx, residual, error, max_degree=config.spatial_degree, nsigma=config.nsigma)
    return Photometry(calib=_calibration(zero, found, box), zero=zero, map=found)


def _calibration(zero: ZeroPoint, found: ResidualMap | None, box: Box) -> PhotoCalib:
    constant = 0.0 if found is None else found.terms[0]
    calib = PhotoCalib.from_zero_point(zero.value + constant, error_mag=zero.error, n_stars=zero.count)
    return calib if found is None else replace(calib, spatial_mag=(0.0, *found.terms[1:]), box=box)


def _magnitudes(catalogue: Records, info: ExposureInfo, config: PhotometryConfig) -> F64:
    mag, term = catalogue["mag"].astype(float), config.color_term(info)
    return mag if term is None else term.magnitude(mag, catalogue["color"].astype(float))


def _good_stars(stars: Records, mag: F64, config: PhotometryConfig) -> tuple[BoolArray, F64]:
    """Tell which stars may shape the zero point, and the S/N of all: isolated stars as long as enough are left."""
    snr = stars["flux"] / np.maximum(stars["flux_err"], 1e-30)
    good = (snr >= config.min_snr) & ~stars["saturated"] & np.isfinite(mag)
    for clean in (stars["is_star"] & ~stars["blended"], stars["is_star"]):
        if (good & clean).sum() >= max(10, config.min_stars):
            return good & clean, snr
    return good, snr
