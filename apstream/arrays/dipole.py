"""Dipoles: a positive and a negative point source side by side, fitted together.

Close lobes are degenerate: only flux times separation is seen on the difference image. The fluxes seen on
the science image and on the template, which the lobes are made of, break the degeneracy as a prior
(the joint fit of DMTN-007, at the cost of two numbers instead of two more images).
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.photometry import render_psf
from apstream.arrays.types import F32, F64, BoolArray, Records

__all__ = ["DIPOLE_DTYPE", "dipole_share", "fit_dipoles"]

#: Result of a dipole fit; positions are offsets from the middle pixel, fluxes of both lobes positive.
DIPOLE_DTYPE = np.dtype(
    [
        ("pos_y", "f8"),
        ("pos_x", "f8"),
        ("neg_y", "f8"),
        ("neg_x", "f8"),
        ("pos_flux", "f8"),
        ("neg_flux", "f8"),
        ("mean_err", "f8"),  # of (pos_flux + neg_flux) / 2
        ("diff_err", "f8"),  # of pos_flux - neg_flux
        ("center_y_err", "f8"),  # of the middle between the lobes
        ("center_x_err", "f8"),
        ("chi2", "f8"),
        ("chi2_null", "f8"),  # without any source
        ("n_data", "i4"),
        ("converged", "?"),
    ]
)

_ITERATIONS, _TOLERANCE = 30, 1e-3


def fit_dipoles(
    data: F32,
    variance: F32,
    good: BoolArray,
    psfs: F64,
    *,
    lobes: F64,
    prior: F64,
    half: int,
) -> Records:
    """Fit two point sources of opposite sign to each stamp (Levenberg-Marquardt).

    Parameters
    ----------
    data, variance : ndarray, shape (n, side, side)
        Stamps; sides odd.
    good : ndarray, shape (n, side, side), bool
        Pixels to use.
    psfs : ndarray, shape (n, h, w)
        Spline coefficients of the PSFs.
    lobes : ndarray, shape (n, 4)
        First guess of y, x of the positive and y, x of the negative lobe, offsets from the middle pixels;
        both the same where only one lobe was seen.
    prior : ndarray, shape (n, 4)
        Flux and its error expected of the positive lobe (from the science image) and of the negative lobe
        (from the template); errors that are not finite mean no prior.
    half
        Pixels up to this far from the middle (in y and in x) take part.

    Returns
    -------
    ndarray of DIPOLE_DTYPE
        `converged` is False where no acceptable fit was found.
    """
    results = np.zeros(len(data), DIPOLE_DTYPE)
    _fit_dipoles(data, variance, good, psfs, (lobes, prior), half, results)
    return results


@njit(cache=True, nogil=True)
def _fit_dipoles(data, variance, good, psfs, guess, half, results):  # type: ignore[no-untyped-def]
    side = 2 * half + 1
    one, two = np.empty((3, side, side)), np.empty((3, side, side))
    corner = data.shape[1] // 2 - half
    part = slice(corner, corner + side)
    for n in range(len(data)):
        pixels, used = data[n, part, part], good[n, part, part]
        spread = variance[n, part, part]
        level = _mean_variance(spread, used)
        prior = guess[1][n]
        params = _start(pixels, used, psfs[n], guess[0][n], prior, one)
        params, normal, fine = _minimize(pixels, used, psfs[n], params, prior, level, (one, two))
        _report(pixels, spread, used, params, normal, (one, two), results[n])
        results[n].converged = fine and max(np.abs(params[:4]).max() - half, 0.0) == 0.0


@njit(cache=True, nogil=True)
def _mean_variance(spread, used):  # type: ignore[no-untyped-def]
    total, count = 0.0, 0
    for i in range(spread.shape[0]):
        for j in range(spread.shape[1]):
            if used[i, j]:
                total += spread[i, j]
                count += 1
    return total / count if count > 0 else 1.0


@njit(cache=True, nogil=True)
def _start(pixels, used, psf, lobes, prior, model):  # type: ignore[no-untyped-def]
    """First guess (y+, x+, y-, x-, f+, f-): PSF and its slopes at the middle between the lobes."""
    y, x = (lobes[0] + lobes[2]) / 2, (lobes[1] + lobes[3]) / 2
    gap = np.hypot(lobes[0] - lobes[2], lobes[1] - lobes[3])
    render_psf(psf, y, x, model, True)
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    for i in range(pixels.shape[0]):
        for j in range(pixels.shape[1]):
            if used[i, j]:
                for a in range(3):
                    vector[a] += model[a, i, j] * pixels[i, j]
                    for b in range(3):
                        matrix[a, b] += model[a, i, j] * model[b, i, j]
    for a in range(3):
        matrix[a, a] = matrix[a, a] * (1 + 1e-9) + 1e-30
    net, along_y, along_x = np.linalg.solve(matrix, vector)
    flux = 0.0
    if np.isfinite(prior[1]) and np.isfinite(prior[3]):
        flux = max((prior[0] + prior[2]) / 2, 0.0)
    moment = np.hypot(along_y, along_x)
    longest = max(gap, 2.0)
    # The separation that the expected flux asks for, but never more than what the lobes show.
    length = moment / flux if flux * longest > moment else longest
    flux = max(flux, moment / length if length > 0 else 0.0, abs(net))
    length = max(length, 1e-3)
    uy, ux = (along_y / moment, along_x / moment) if moment > 0 else (1.0, 0.0)
    params = np.empty(6)
    params[0], params[1] = y + uy * length / 2, x + ux * length / 2
    params[2], params[3] = y - uy * length / 2, x - ux * length / 2
    params[4], params[5] = max(flux + net / 2, 0.0), max(flux - net / 2, 0.0)
    return params


@njit(cache=True, nogil=True)
def _normal(pixels, used, psf, params, prior, level, models):  # type: ignore[no-untyped-def]
    """Return cost, normal matrix and gradient of the weighted residuals and the priors."""
    one, two = models
    render_psf(psf, params[0], params[1], one, True)
    render_psf(psf, params[2], params[3], two, True)
    matrix, vector, row = np.zeros((6, 6)), np.zeros(6), np.empty(6)
    cost = 0.0
    for i in range(pixels.shape[0]):
        for j in range(pixels.shape[1]):
            if not used[i, j]:
                continue
            off = pixels[i, j] - params[4] * one[0, i, j] + params[5] * two[0, i, j]
            row[0], row[1] = params[4] * one[1, i, j], params[4] * one[2, i, j]
            row[2], row[3] = -params[5] * two[1, i, j], -params[5] * two[2, i, j]
            row[4], row[5] = one[0, i, j], -two[0, i, j]
            cost += off * off
            for a in range(6):
                vector[a] += row[a] * off
                for b in range(a + 1):
                    matrix[a, b] += row[a] * row[b]
    cost /= level
    vector /= level
    for a in range(6):
        for b in range(a + 1):
            matrix[a, b] /= level
            matrix[b, a] = matrix[a, b]
    for k in range(2):
        flux, error = prior[2 * k], prior[2 * k + 1]
        if np.isfinite(error) and error > 0:
            off = (flux - params[4 + k]) / error
            cost += off * off
            vector[4 + k] += off / error
            matrix[4 + k, 4 + k] += 1 / error**2
    return cost, matrix, vector


@njit(cache=True, nogil=True)
def _minimize(pixels, used, psf, params, prior, level, models):  # type: ignore[no-untyped-def]
    cost, matrix, vector = _normal(pixels, used, psf, params, prior, level, models)
    damping, fine = 1e-2, False
    for _ in range(_ITERATIONS):
        damped = matrix.copy()
        for a in range(6):
            damped[a, a] = matrix[a, a] * (1 + damping) + 1e-30
        step = np.linalg.solve(damped, vector)
        trial = params + step
        trial[4], trial[5] = max(trial[4], 0.0), max(trial[5], 0.0)
        if not np.abs(trial[:4]).max() < pixels.shape[0]:
            damping *= 10
            if damping > 1e8:
                break
            continue
        new_cost, new_matrix, new_vector = _normal(pixels, used, psf, trial, prior, level, models)
        if new_cost <= cost:
            fine = cost - new_cost < _TOLERANCE
            params, cost, matrix, vector = trial, new_cost, new_matrix, new_vector
            damping = max(damping / 10, 1e-9)
            if fine:
                break
        else:
            damping *= 10
            if damping > 1e8:
                fine = True
                break
    # Without a last drop in cost the models hold the trial, not the best: draw them again.
    render_psf(psf, params[0], params[1], models[0], False)
    render_psf(psf, params[2], params[3], models[1], False)
    return params, matrix, fine


@njit(cache=True, nogil=True)
def _report(pixels, spread, used, params, normal, models, result):  # type: ignore[no-untyped-def]
    one, two = models
    for i in range(pixels.shape[0]):
        for j in range(pixels.shape[1]):
            if used[i, j]:
                off = pixels[i, j] - params[4] * one[0, i, j] + params[5] * two[0, i, j]
                result.chi2 += off * off / spread[i, j]
                result.chi2_null += pixels[i, j] ** 2 / spread[i, j]
                result.n_data += 1
    result.pos_y, result.pos_x, result.neg_y, result.neg_x = params[0], params[1], params[2], params[3]
    result.pos_flux, result.neg_flux = params[4], params[5]
    for a in range(6):
        normal[a, a] = normal[a, a] * (1 + 1e-9) + 1e-30
    covariance = np.linalg.inv(normal)
    both = covariance[4, 4] + covariance[5, 5]
    result.mean_err = np.sqrt(max(both + 2 * covariance[4, 5], 0.0)) / 2
    result.diff_err = np.sqrt(max(both - 2 * covariance[4, 5], 0.0))
    result.center_y_err = np.sqrt(max(covariance[0, 0] + covariance[2, 2] + 2 * covariance[0, 2], 0.0)) / 2
    result.center_x_err = np.sqrt(max(covariance[1, 1] + covariance[3, 3] + 2 * covariance[1, 3], 0.0)) / 2


def dipole_share(dipoles: Records, single_chi2: F64) -> F64:
    """Return how much of what a dipole explains a single point source explains too, 0 to 1.

    The share is (chi2_null - chi2_single) / (chi2_null - chi2_dipole). For two lobes that do not overlap
    and hold the parts r and 1 - r of the flux it is r^2 / (r^2 + (1 - r)^2), which makes it a measure of
    the lobes' flux ratio that still means something when they overlap.
    """
    explained = np.maximum(dipoles["chi2_null"] - dipoles["chi2"], 1e-12)
    return np.asarray(np.clip((dipoles["chi2_null"] - single_chi2) / explained, 0, 1), float)
