"""Judge a PSF by stars that did not shape it."""

from __future__ import annotations

import numpy as np

from apstream.arrays.psf import psf_stamps
from apstream.arrays.psf_quality import shape_residuals
from apstream.arrays.sources import LocalPsf, Photometry
from apstream.arrays.stats import clip_mask
from apstream.arrays.types import F32, BoolArray

__all__ = ["judge_psf"]

_LEAST_SNR = 30.0


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
        Medians (`psf_size_residual` relative, `psf_e1_residual`, `psf_e2_residual`), medians of absolute values
        (`psf_size_scatter`, `psf_e_scatter`), and the number of stars; NaN without any.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.flatnonzero(judges & (fits.flux / fits.flux_err > _LEAST_SNR))
    y, x = fits.y[index], fits.x[index]
    cube = psf_stamps(psf.basis, psf.terms[index], y=y, x=x)
    found = shape_residuals(residual, cube, y=y, x=x, flux=fits.flux[index])
    good = clip_mask(np.where(np.isfinite(found).all(axis=1), found[:, 0], np.nan), n_sigma=5, floor=0.01)
    size, e1, e2 = found[good].T if good.any() else np.full((3, 1), np.nan)
    return {
        "psf_size_residual": float(np.median(size)),
        "psf_e1_residual": float(np.median(e1)),
        "psf_e2_residual": float(np.median(e2)),
        "psf_size_scatter": float(np.median(np.abs(size))),
        "psf_e_scatter": float(np.median(np.abs(np.concatenate([e1, e2])))),
        "n_reserved": float(np.count_nonzero(good)),
    }
