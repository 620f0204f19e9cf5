"""A transparent reliability score for detections on difference images, and what bright stars leave behind.

The score is a logistic sum of a few penalties, each of which can be read off a column of the source. It
ranks; it is not a calibrated probability, and nothing is ever deleted because of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

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
        value = np.nan_to_num(np.asarray(getattr(evidence, item.name), float), nan=0.0, posinf=1.0, neginf=0.0)
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
    sources: F64, flux: FloatArray, stars: F64, star_flux: FloatArray, *, core: float, reach: FloatArray
) -> F64:
    """Return how bright the stars around each source are, compared with it.

    The value is the largest of star flux / source flux over the stars within `reach`, divided by the square
    of the distance in units of `core` where that is more than one: residuals fade outwards as the wings do.

    Parameters
    ----------
    sources : ndarray, shape (n, 2)
        Positions (y, x).
    flux : ndarray, shape (n,)
        Absolute fluxes of the sources.
    stars : ndarray, shape (m, 2)
        Positions (y, x) of stars.
    star_flux : ndarray, shape (m,)
        Fluxes of the stars.
    core
        Radius of the inner part, pixels.
    reach : ndarray, shape (m,)
        Radius of the wings of each star, pixels.

    Returns
    -------
    ndarray, shape (n,)
        Zero where no star is near.
    """
    from scipy.spatial import cKDTree

    contrast = np.zeros(len(sources))
    if len(stars) == 0 or len(sources) == 0:
        return contrast
    pairs = cKDTree(sources).query_ball_point(stars, reach)
    for star, members in enumerate(pairs):
        for source in members:
            distance = np.hypot(*(sources[source] - stars[star])) / core
            ratio = star_flux[star] / max(flux[source], 1e-30) / max(distance, 1.0) ** 2
            contrast[source] = max(contrast[source], ratio)
    return contrast
