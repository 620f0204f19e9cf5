"""The ratio of aperture to PSF flux: its value, its error, and whether it changes over the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.stars import degree_for
from apstream.arrays.stats import clip_mask, mad_sigma
from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["ApertureCorrection", "aperture_correction"]

_CHANCE = 1e-3  # of taking noise for a trend
_BRIGHT_SNR = 200.0
_DEGREE = 2  # of the variation over the field, at most
_FIRST_SIGMA = 6.0  # clipped about the median, before the variation is known


@dataclass(frozen=True, slots=True, eq=False)
class ApertureCorrection:
    """Aperture over PSF flux.

    Parameters
    ----------
    value, error
        Median over the stars and its standard error; 1 and NaN without stars.
    trend : ndarray, shape (n_terms,)
        Polynomial over the field of what differs from `value`; a single zero where none is significant.
    """

    value: float
    error: float
    trend: F64

    def trend_rms(self) -> float:
        """Return the standard deviation of the trend over the field."""
        grid = np.linspace(-0.9, 0.9, 10)
        ty, tx = np.meshgrid(grid, grid, indexing="ij")
        degree = next(d for d in range(4) if n_terms(d) == len(self.trend))
        return float(np.std(np.tensordot(self.trend, poly_terms(ty, tx, degree), axes=1)))


def aperture_correction(ratio: FloatArray, snr: FloatArray, ty: F64, tx: F64) -> ApertureCorrection:
    """Return the aperture correction of the brighter stars, clipped about its variation over the field.

    Parameters
    ----------
    ratio, snr : ndarray, shape (n,)
        Aperture over PSF flux, and signal-to-noise ratio; NaN is left out.
    ty, tx : ndarray, shape (n,)
        Positions normalised to [-1, 1].
    """
    good = np.isfinite(ratio) & np.isfinite(snr)
    if not good.any():
        return ApertureCorrection(1.0, float("nan"), np.zeros(1))
    good &= snr >= min(_BRIGHT_SNR, float(np.median(snr[good])))
    good[good] = _agreeing(np.asarray(ratio[good], float), ty[good], tx[good])
    values = ratio[good]
    error = 1.2533 * mad_sigma(values) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    value = float(np.median(values))
    return ApertureCorrection(value, float(error), _trend(np.asarray(values - value, float), ty[good], tx[good]))


def _agreeing(values: F64, ty: F64, tx: F64) -> BoolArray:
    """Clip about a surface over the field, not the median: an aperture rightly holds less of a star that is wider."""
    terms = poly_terms(ty, tx, degree_for(len(values), _DEGREE))
    keep = clip_mask(values, n_sigma=_FIRST_SIGMA, floor=1e-3)
    for _ in range(5):
        fit = np.linalg.lstsq(terms[:, keep].T, values[keep], rcond=None)[0]
        new = clip_mask(values - fit @ terms, floor=1e-3)
        if np.array_equal(new, keep):
            break
        keep = new
    return keep


def _trend(values: F64, ty: F64, tx: F64) -> F64:
    """Return the polynomial of the highest degree, at most 2, that beats a constant by more than chance."""
    from scipy.special import fdtrc  # scipy.stats has the same, and takes half a second to import

    alone = float(np.sum((values - np.mean(values)) ** 2))
    for degree in range(degree_for(len(values), _DEGREE), 0, -1):
        terms = poly_terms(ty, tx, degree)
        fit = np.linalg.lstsq(terms.T, values, rcond=None)[0]
        left = float(np.sum((values - fit @ terms) ** 2))
        more, free = n_terms(degree) - 1, len(values) - n_terms(degree)
        if left > 0 and fdtrc(more, free, (alone - left) / more / (left / free)) < _CHANCE:
            return np.asarray(fit)
    return np.zeros(1)
