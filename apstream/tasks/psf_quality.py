"""Judge a PSF by stars that did not shape it."""

from __future__ import annotations

import numpy as np

from apstream.arrays.psf import psf_stamps
from apstream.arrays.psf_quality import shape_residuals
from apstream.arrays.sources import LocalPsf, Photometry
from apstream.arrays.stats import clip_mask, mad_sigma
from apstream.arrays.types import F32, BoolArray, FloatArray

__all__ = ["judge_psf"]

_LEAST_SNR = 30.0
_OWN_SCATTER = 0.005  # of a star's shape beside its noise: bright ones do not decide alone


def judge_psf(residual: F32, fits: Photometry, psf: LocalPsf, judges: BoolArray) -> dict[str, float]:
    """Return the residuals of size and ellipticity at the stars of `judges`, star less model.

    Parameters
    ----------
    residual, fits
        From `psf_photometry`.
    judges : ndarray, shape (n,), bool
        Stars left out of the fit, unspoiled.

    Returns
    -------
    dict
        Medians weighted by the stars' noise (`psf_size_residual` relative, `psf_e1_residual`, `psf_e2_residual`) and
        their errors (`psf_size_residual_error`, `psf_e_residual_error` of one component), medians of absolute values
        (`psf_size_scatter`, `psf_e_scatter`), and the number of stars; NaN without any.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.flatnonzero(judges & (fits.flux / fits.flux_err > _LEAST_SNR))
    y, x = fits.y[index], fits.x[index]
    cube = psf_stamps(psf.basis, psf.terms[index], y=y, x=x)
    found = shape_residuals(residual, cube, y=y, x=x, flux=fits.flux[index])
    good = clip_mask(np.where(np.isfinite(found).all(axis=1), found[:, 0], np.nan), n_sigma=5, floor=0.01)
    size, e1, e2 = found[good].T if good.any() else np.full((3, 1), np.nan)
    snr = (fits.flux / fits.flux_err)[index][good] if good.any() else np.ones(1)
    weight = 1 / (1 / snr**2 + _OWN_SCATTER**2)
    return {
        "psf_size_residual": _median(size, weight),
        "psf_e1_residual": _median(e1, weight),
        "psf_e2_residual": _median(e2, weight),
        "psf_size_residual_error": _error(size, weight),
        "psf_e_residual_error": float(np.hypot(_error(e1, weight), _error(e2, weight)) / np.sqrt(2)),
        "psf_size_scatter": float(np.median(np.abs(size))),
        "psf_e_scatter": float(np.median(np.abs(np.concatenate([e1, e2])))),
        "n_reserved": float(np.count_nonzero(good)),
    }


def _median(values: FloatArray, weight: FloatArray) -> float:
    return float(np.quantile(values, 0.5, weights=weight, method="inverted_cdf"))


def _error(values: FloatArray, weight: FloatArray) -> float:
    """Return the standard error of the weighted median of normal deviates, from their own scatter."""
    root = np.sqrt(weight)
    return float(1.2533 * mad_sigma((values - _median(values, weight)) * root) / np.sqrt(np.sum(weight)))
