"""Columns of the dipole and trail models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.adaptive import principal_axes
from apstream.arrays.dipole import dipole_share, fit_dipoles
from apstream.arrays.trail import fit_trails, footprint_axes
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.exposures import sky_positions
from apstream.tasks.cutouts import local_cd
from apstream.tasks.detect import Detections
from apstream.tasks.stamps import PointStamps, cut_points

__all__ = ["DipoleRules", "DirectFluxes", "fill_dipoles", "fill_trails"]

_PRIOR_FRACTION = 0.2
_FITTED_TRAIL = 2
_LARGEST_TRAIL_STAMP = 301


@dataclass(frozen=True, slots=True, kw_only=True)
class DipoleRules:
    """When two lobes make a dipole; see `MeasureConfig`."""

    min_snr: float
    max_flux_ratio: float
    max_separation: float  # pixels


#: Given absolute y, x: flux and error on the science image, flux and error on the template.
DirectFluxes = Callable[[F64, F64], tuple[F64, F64, F64, F64]]


def fill_dipoles(
    rows: Records,
    stamps: PointStamps,
    detections: Detections,
    rules: DipoleRules,
    direct: DirectFluxes,
    *,
    half: int,
) -> tuple[NDArray[np.intp], F64]:
    """Fit dipoles where both signs were detected or a point source fits badly.

    Parameters
    ----------
    direct
        Gives the direct fluxes between the lobes, which the lobes are expected to have.

    Returns
    -------
    index : ndarray, shape (k,)
        Rows that are dipoles.
    centers : ndarray, shape (k, 4)
        y, x (absolute) of the middle between their lobes and its errors.
    """
    prints = detections.footprints
    two_signed = (prints["pos_snr"] > 0) & (prints["neg_snr"] < 0)
    misfit = rows["psfChi2"] > rows["psfNdata"] + 5 * np.sqrt(2.0 * rows["psfNdata"])
    tried = np.flatnonzero((rows["snr"] >= rules.min_snr) & (two_signed | misfit) & ~rows["psfFlux_flag"])
    if len(tried) == 0:
        return tried, np.zeros((0, 4))
    lobes = _lobes(prints[tried])
    middle_y = (lobes[:, 0] + lobes[:, 2]) / 2 + stamps.y[tried]
    middle_x = (lobes[:, 1] + lobes[:, 3]) / 2 + stamps.x[tried]
    fits = fit_dipoles(
        stamps.data[tried], stamps.variance[tried], stamps.good[tried], stamps.psfs[tried],
        lobes=lobes, prior=_prior(direct(middle_y, middle_x)), half=half,
    )  # fmt: skip
    rows["dipoleFitAttempted"][tried] = True
    is_dipole = _judge(fits, rows["psfChi2"][tried].astype(float), rules)
    _write_dipoles(rows, tried, fits, detections, (stamps.y[tried], stamps.x[tried]))
    rows["isDipole"][tried] = is_dipole
    chosen = fits[is_dipole]
    middle = [
        (chosen["pos_y"] + chosen["neg_y"]) / 2 + stamps.y[tried[is_dipole]],
        (chosen["pos_x"] + chosen["neg_x"]) / 2 + stamps.x[tried[is_dipole]],
    ]
    return tried[is_dipole], np.stack([*middle, chosen["center_y_err"], chosen["center_x_err"]], axis=1)


def _lobes(prints: Records) -> F64:
    guess = np.zeros((len(prints), 4))
    for k, name in enumerate(("pos", "neg")):
        seen = prints[f"{name}_snr"] != 0
        guess[:, 2 * k] = np.where(seen, prints[f"{name}_y"] - prints["y"], 0)
        guess[:, 2 * k + 1] = np.where(seen, prints[f"{name}_x"] - prints["x"], 0)
    return guess


def _prior(fluxes: tuple[F64, F64, F64, F64]) -> F64:
    prior = np.empty((len(fluxes[0]), 4))
    for k, (flux, error) in enumerate((fluxes[:2], fluxes[2:])):
        known = np.isfinite(flux) & (flux > 0)
        prior[:, 2 * k] = np.where(known, flux, 0)
        prior[:, 2 * k + 1] = np.where(known, np.hypot(error, _PRIOR_FRACTION * flux), np.inf)
    return prior


def _judge(fits: Records, single_chi2: F64, rules: DipoleRules) -> BoolArray:
    explained = fits["chi2_null"] - fits["chi2"]
    ratio = rules.max_flux_ratio
    most = ratio**2 / (ratio**2 + (1 - ratio) ** 2)
    separation = np.hypot(fits["pos_y"] - fits["neg_y"], fits["pos_x"] - fits["neg_x"])
    return np.asarray(
        fits["converged"]
        & (explained >= rules.min_snr**2)
        & (explained >= 0.5 * (fits["chi2_null"] - fits["n_data"]))
        & (dipole_share(fits, single_chi2) <= most)
        & (separation <= rules.max_separation)
    )


def _write_dipoles(
    rows: Records,
    index: NDArray[np.intp],
    fits: Records,
    detections: Detections,
    middle: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    good = fits["converged"]
    index, fits = index[good], fits[good]
    rows["dipoleMeanFlux"][index] = (fits["pos_flux"] + fits["neg_flux"]) / 2
    rows["dipoleMeanFluxErr"][index] = fits["mean_err"]
    rows["dipoleFluxDiff"][index] = fits["pos_flux"] - fits["neg_flux"]
    rows["dipoleFluxDiffErr"][index] = fits["diff_err"]
    rows["dipoleChi2"][index], rows["dipoleNdata"][index] = fits["chi2"], fits["n_data"]
    y, x = middle[0][good].astype(float), middle[1][good].astype(float)
    cd = local_cd(detections.difference.wcs, y, x) * 3600
    dy, dx = fits["pos_y"] - fits["neg_y"], fits["pos_x"] - fits["neg_x"]
    rows["dipoleLength"][index], rows["dipoleAngle"][index] = _on_sky(cd, dy, dx)


def _on_sky(cd: F64, dy: F64, dx: F64) -> tuple[F64, F64]:
    """Return length (unit of cd times pixel) and bearing (degrees, north through east) of pixel vectors."""
    east = cd[:, 0, 0] * dx + cd[:, 0, 1] * dy
    north = cd[:, 1, 0] * dx + cd[:, 1, 1] * dy
    return np.hypot(east, north), np.rad2deg(np.arctan2(east, north)) % 360


def fill_trails(rows: Records, detections: Detections, *, fwhm: float, min_snr: float, max_trails: int) -> None:
    """Fit trails to elongated detections that nothing else explains, the brightest first."""
    prints, difference = detections.footprints, detections.difference
    axes = footprint_axes(difference.image.image, detections.labels, prints)
    major, minor, angle = principal_axes(axes[:, 2], axes[:, 3], axes[:, 4])
    sigma = fwhm / 2.3548
    misfit = rows["psfChi2"] > rows["psfNdata"] + 4 * np.sqrt(2.0 * rows["psfNdata"])
    long = (major > 1.6 * minor) & (major - minor > 0.8 * sigma**2)
    other = rows["isDipole"] | rows["isBrightStarResidual"] | rows["pixelFlags_saturated"]
    other |= rows["pixelFlags_saturated_template"]
    tried = np.flatnonzero(long & misfit & ~other & (rows["snr"] >= min_snr))[:max_trails]
    if len(tried) == 0:
        return
    length = np.sqrt(12 * np.maximum(major[tried] - minor[tried], sigma**2 / 4))
    y, x = axes[tried, 0] + difference.box.y0, axes[tried, 1] + difference.box.x0
    reach = np.ceil(length / 2 + 2.5 * fwhm).astype(np.int64)
    side = min(2 * int(reach.max()) + 1, _LARGEST_TRAIL_STAMP)
    stamps = cut_points(
        difference.image,
        difference.psf,
        y,
        x,
        side=side,
        labels=detections.labels,
        own=prints["label"][tried],
    )
    start = np.stack([y - stamps.y, x - stamps.x, length * np.sin(angle[tried]), length * np.cos(angle[tried])], axis=1)
    fits = fit_trails(
        stamps.data, stamps.variance, stamps.good, stamps.psfs,
        start=start, sigma=np.full(len(tried), sigma), reach=reach,
    )  # fmt: skip
    _write_trails(rows, tried, fits, stamps, detections)


def _write_trails(
    rows: Records, index: NDArray[np.intp], fits: Records, stamps: PointStamps, detections: Detections
) -> None:
    difference = detections.difference
    rows["trailNdata"][index] = fits["n_data"]
    good = fits["converged"] & (fits["length"] > 4 * fits["length_err"])
    rows["trail_flag"][index] = ~good
    y, x = np.asarray(fits["y"] + stamps.y, float), np.asarray(fits["x"] + stamps.x, float)
    dy, dx = np.sin(fits["angle"]) * fits["length"], np.cos(fits["angle"]) * fits["length"]
    ends = [difference.box.grow(-2).contains(y + s * dy / 2, x + s * dx / 2) for s in (-1, 1)]
    rows["trail_flag_edge"][index] = ~(ends[0] & ends[1])
    index, fits, y, x, dy, dx = index[good], fits[good], y[good], x[good], dy[good], dx[good]
    rows["trailFlux"][index], rows["trailFluxErr"][index] = fits["flux"], fits["flux_err"]
    rows["trailChi2"][index], rows["trailAlgorithm"][index] = fits["chi2"], _FITTED_TRAIL
    cd = local_cd(difference.wcs, y, x)
    length, bearing = _on_sky(cd * 3600, dy, dx)
    rows["trailLength"][index], rows["trailAngle"][index] = length, bearing % 180
    rows["trailLengthErr"][index] = fits["length_err"] * length / np.maximum(fits["length"], 1e-9)
    rows["trailAngleErr"][index] = np.rad2deg(fits["angle_err"])
    rows["trailRa"][index], rows["trailDec"][index] = sky_positions(difference.wcs, y, x)
    rows["trailRaErr"][index] = np.hypot(cd[:, 0, 0] * fits["x_err"], cd[:, 0, 1] * fits["y_err"])
    rows["trailDecErr"][index] = np.hypot(cd[:, 1, 0] * fits["x_err"], cd[:, 1, 1] * fits["y_err"])
