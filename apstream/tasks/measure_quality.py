"""Columns that judge a detection: bright-star residual and reliability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from apstream.arrays.reliability import VERSION, Evidence, misfit, near_bright_star, reliability
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.exposures import CalExp, CharacterizedExposure
from apstream.tasks.stamps import cut_points

__all__ = ["fill_bright_stars", "fill_reliability"]

_REACH = 4.0  # of the wings of the brightest stars, in units of the configured radius


def fill_bright_stars(
    rows: Records,
    science: CalExp | CharacterizedExposure,
    *,
    fwhm: float,
    half: int,
    radius_fwhm: float,
    fraction: float,
) -> None:
    """Set isBrightStarResidual: near a star of the science image, and faint beside it.

    The wings of a star reach farther the brighter it is: `radius_fwhm` for a star of S/N 100, twice that
    for 10,000. A source of at least a third of `fraction` on the very centre of the star that looks like a
    point is taken for a variable star and not flagged. A saturated star, whose flux is unknown, counts as
    brighter than any source.
    """
    stars = science.stars[np.isfinite(science.stars["flux"])]
    places = np.stack([rows["y"], rows["x"]], axis=1).astype(float)
    stars = _near(stars, places, _REACH * radius_fwhm * fwhm)
    if len(stars) == 0:
        return
    y, x = stars["y"].astype(float), stars["x"].astype(float)
    fits = cut_points(science.image, science.psf, y, x, side=2 * half + 1).fluxes(y, x, half=half)
    snr = np.where(stars["saturated"], 1e6, np.nan_to_num(fits["flux"] / fits["flux_err"]))
    flux = np.where(stars["saturated"], np.inf, np.nan_to_num(fits["flux"]))
    reach = np.clip(np.log10(np.maximum(snr, 1)) / 2, 0.5, _REACH) * radius_fwhm * fwhm
    spots = np.stack([y, x], axis=1)
    size = np.abs(np.nan_to_num(rows["psfFlux"])).astype(float)
    wings = near_bright_star(places, spots, radius=reach, least_flux=size / fraction, star_flux=flux)
    core = near_bright_star(
        places, spots, radius=np.full(len(spots), 0.6), least_flux=np.zeros(len(size)), star_flux=flux
    )
    much = ~near_bright_star(places, spots, radius=reach, least_flux=3 * size / fraction, star_flux=flux)
    variable = core & much & ~_misfitting(rows) & ~rows["isDipole"]
    rows["isBrightStarResidual"] = wings & ~variable


def _near(stars: Records, places: F64, radius: float) -> Records:
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
        bad_pixels=_any(
            rows, "nodataCenter", "crCenter", "saturatedCenter", "saturated_templateCenter", "bad"
        ),
        doubtful_pixels=rows["pixelFlags"],
        no_centroid=rows["centroid_flag"] & ~trail & ~rows["isDipole"],
        below_sky=rows["scienceFlux"] < -3 * rows["scienceFluxErr"],
    )


def _any(rows: Records, *names: str) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.reduce([rows[f"pixelFlags_{name}"] for name in names]))
