"""Columns that judge a detection: bright-star residual and reliability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.reliability import VERSION, Evidence, misfit, near_bright_star, reliability
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.exposures import CalExp, CharacterizedExposure
from apstream.tasks.stamps import cut_points

__all__ = ["fill_bright_stars", "fill_reliability"]

_CENTER_FWHM, _VARIABLE = 0.15, 3.0
_SATURATED_REACH = 2.0


def fill_bright_stars(
    rows: Records,
    science: CalExp | CharacterizedExposure,
    *,
    fwhm: float,
    half: int,
    reach_fwhm: float,
    fraction: float,
) -> None:
    """Set isBrightStarResidual: near a star of the science image, and faint beside it.

    Faint means less than `fraction` of the star's flux within one FWHM, and less with the square of the
    distance beyond, up to `reach_fwhm`. A source of at least a third of that on the very centre of the star
    that looks like a point is taken for a variable star and not flagged. A saturated star, whose flux is
    unknown, counts as brighter than any source and reaches twice as far.
    """
    stars = science.stars[np.isfinite(science.stars["flux"])]
    places = np.stack([rows["y"], rows["x"]], axis=1).astype(float)
    stars = _near(stars, places, _SATURATED_REACH * reach_fwhm * fwhm)
    if len(stars) == 0:
        return
    y, x = stars["y"].astype(float), stars["x"].astype(float)
    measured = cut_points(science.image, science.psf, y, x, side=2 * half + 1).fluxes(y, x, half=half)
    star_flux = np.where(stars["saturated"], np.inf, np.nan_to_num(measured["flux"]))
    reach = np.where(stars["saturated"], _SATURATED_REACH, 1.0) * reach_fwhm * fwhm
    spots, flux = np.stack([y, x], axis=1), np.abs(np.nan_to_num(rows["psfFlux"])).astype(float)
    wings = near_bright_star(places, flux, spots, star_flux, core=fwhm, reach=reach) * fraction
    center = near_bright_star(places, flux, spots, star_flux, core=fwhm, reach=np.full(len(spots), _CENTER_FWHM * fwhm))
    variable = (center > 0) & (wings < _VARIABLE) & ~_misfitting(rows) & ~rows["isDipole"]
    rows["isBrightStarResidual"] = (wings > 1) & ~variable


def _near(stars: Records, places: F64, radius: float) -> Records:
    from scipy.spatial import cKDTree

    if len(stars) == 0 or len(places) == 0:
        return stars[:0]
    distance, _ = cKDTree(places).query(np.stack([stars["y"], stars["x"]], axis=1))
    return np.asarray(stars[distance <= radius])


def _misfitting(rows: Records) -> BoolArray:
    n = rows["psfNdata"]
    return np.asarray((rows["psfChi2"] > n + 4 * np.sqrt(2.0 * n)) | rows["centroid_flag"])


def fill_reliability(rows: Records) -> None:
    """Set reliability and reliabilityVersion from the other columns."""
    rows["reliability"] = reliability(_evidence(rows))
    rows["reliabilityVersion"] = VERSION


def _evidence(rows: Records) -> Evidence:
    trail = np.isfinite(rows["trailFlux"])
    chi2 = np.where(trail, rows["trailChi2"], rows["psfChi2"])
    n_data = np.where(trail, rows["trailNdata"], rows["psfNdata"])
    power = np.where(trail, np.abs(rows["trailFlux"] / rows["trailFluxErr"]), rows["snr"])
    area, psf_area = rows["ixx"] + rows["iyy"], rows["ixxPSF"] + rows["iyyPSF"]
    off = np.abs(np.log(area / psf_area)) - 4 / np.maximum(rows["snr"], 1)
    return Evidence(
        strength=np.clip(np.log10(np.maximum(rows["snr"], 1e-3) / 5), 0, 1),
        misfit=misfit(chi2, n_data, power),
        wrong_shape=np.where(trail, 0, np.clip(off, 0, 2)),
        dipole=rows["isDipole"],
        bright_star=rows["isBrightStarResidual"],
        bad_pixels=_any(rows, "nodataCenter", "crCenter", "saturatedCenter", "saturated_templateCenter", "bad"),
        doubtful_pixels=rows["pixelFlags"],
        no_centroid=rows["centroid_flag"] & ~trail & ~rows["isDipole"],
        below_sky=rows["scienceFlux"] < -3 * rows["scienceFluxErr"],
    )


def _any(rows: Records, *names: str) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.reduce([rows[f"pixelFlags_{name}"] for name in names]))
