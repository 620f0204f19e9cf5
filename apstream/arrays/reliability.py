"""A transparent reliability score for detections on difference images, and what bright stars leave behind.

The score is a logistic sum of a few penalties, each of which can be read off a column of the source. It
ranks; it is not a calibrated probability, and nothing is ever deleted because of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.spatial import cKDTree

from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["VERSION", "Evidence", "misfit", "near_bright_star", "reliability"]

#: Name of this score in the column reliabilityVersion.
VERSION = "rule-1"

#: Weight of each piece of evidence; the score of a source without any is 1 / (1 + exp(-_BASE)).
_BASE = 0.5
_WEIGHTS = {
    "strength": 2.5,
    "misfit": -6.0,
    "wrong_shape": -1.5,
    "dipole": -3.0,
    "bright_star": -2.5,
    "bad_pixels": -2.5,
    "doubtful_pixels": -0.8,
    "no_centroid": -1.5,
    "below_sky": -2.0,
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """What speaks for and against n detections; arrays of shape (n,).

    Parameters
    ----------
    strength
        log10(S/N / 5), cut to [0, 1].
    misfit
        Part of the signal's power that the best model (point source or trail) leaves over, 0 to 1.
    wrong_shape
        abs(ln(area / area of the PSF)) beyond its noise, cut to [0, 2]; 0 for trails.
    dipole, bright_star, bad_pixels, doubtful_pixels, no_centroid, below_sky
        Flags: better a dipole; in the wings of a bright star; no data, cosmic ray, saturated or bad under
        the centre; any other mask bit in the footprint; centroid not fitted; science flux below zero by more
        than 3 sigma.
    """

    strength: FloatArray
    misfit: FloatArray
    wrong_shape: FloatArray
    dipole: BoolArray
    bright_star: BoolArray
    bad_pixels: BoolArray
    doubtful_pixels: BoolArray
    no_centroid: BoolArray
    below_sky: BoolArray


def reliability(evidence: Evidence) -> F64:
    """Return the score of each detection, 0 to 1; evidence that is not finite counts as none."""
    total = np.full(len(evidence.strength), _BASE)
    for item in fields(evidence):
        value = np.nan_to_num(
            np.asarray(getattr(evidence, item.name), float), nan=0.0, posinf=1.0, neginf=0.0
        )
        total += _WEIGHTS[item.name] * value
    return np.asarray(1 / (1 + np.exp(-total)))


def misfit(chi2: FloatArray, n_data: FloatArray, snr: FloatArray) -> F64:
    """Return the part of the signal's power that a fit leaves over, beyond its 2-sigma noise, 0 to 1.

    The excess of chi2 over its expectation is divided by S/N squared, which is what the source itself adds
    to chi2: so a PSF that is wrong by one per cent gives the same small value at every brightness.
    """
    n_data = np.maximum(np.asarray(n_data, float), 1)
    excess = np.asarray(chi2, float) - n_data - 2 * np.sqrt(2 * n_data)
    return np.asarray(np.clip(excess / np.maximum(np.asarray(snr, float) ** 2, 1e-9), 0, 1))


def near_bright_star(
    sources: F64, stars: F64, *, radius: FloatArray, least_flux: FloatArray, star_flux: FloatArray
) -> BoolArray:
    """Tell which sources lie in the wings of a star much brighter than they are.

    Parameters
    ----------
    sources : ndarray, shape (n, 2)
        Positions (y, x).
    stars : ndarray, shape (m, 2)
        Positions (y, x) of stars.
    radius : ndarray, shape (m,)
        Reach of each star's wings in pixels.
    least_flux : ndarray, shape (n,)
        A star counts for a source only if it is brighter than this.
    star_flux : ndarray, shape (m,)
        Fluxes of the stars, in the unit of `least_flux`.
    """
    near = np.zeros(len(sources), bool)
    if len(stars) == 0 or len(sources) == 0:
        return near
    pairs = cKDTree(sources).query_ball_point(stars, radius)
    for star, members in enumerate(pairs):
        for source in members:
            near[source] |= star_flux[star] > least_flux[source]
    return near
