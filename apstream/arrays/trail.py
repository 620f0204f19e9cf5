"""Trails: point sources that moved during the exposure (the model of Veres et al. 2012).

Shape is fitted with a Gaussian PSF smeared along a line, which has a closed form; flux and chi2 then come
from the true PSF drawn along that line.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.photometry import render_psf
from apstream.arrays.types import F32, F64, BoolArray, Records

__all__ = ["TRAIL_DTYPE", "fit_trails", "footprint_axes"]

#: Result of a trail fit; y, x are offsets of the middle of the trail from the middle pixel, in pixels.
TRAIL_DTYPE = np.dtype(
    [
        ("y", "f8"),
        ("x", "f8"),
        ("y_err", "f8"),
        ("x_err", "f8"),
        ("length", "f8"),
        ("length_err", "f8"),
        ("angle", "f8"),  # radians from +x towards +y
        ("angle_err", "f8"),
        ("flux", "f8"),
        ("flux_err", "f8"),
        ("chi2", "f8"),
        ("n_data", "i4"),
        ("converged", "?"),
    ]
)

_ITERATIONS, _TOLERANCE, _DELTA = 25, 1e-3, 0.02


def footprint_axes(data: F32, labels: NDArray[np.int32], footprints: Records) -> F64:
    """Return moments of the pixels of footprints (rows of FOOTPRINT_DTYPE), weighted by brightness.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        Difference image.
    labels : ndarray, shape (ny, nx)
        Footprint labels.

    Returns
    -------
    ndarray, shape (n, 5)
        y, x (array indices), variances iyy, ixx, iyx in pixel^2; pixels on the other side of zero than the
        stronger peak do not count.
    """
    out = np.full((len(footprints), 5), np.nan)
    _footprint_axes(data, labels, footprints, out)
    return out


@njit(cache=True, nogil=True)
def _footprint_axes(data, labels, footprints, out):  # type: ignore[no-untyped-def]
    for n in range(len(footprints)):
        f = footprints[n]
        sign = 1.0 if f.snr > 0 else -1.0
        sums = np.zeros(6)
        for y in range(f.y0, f.y1):
            for x in range(f.x0, f.x1):
                value = sign * data[y, x]
                if labels[y, x] == f.label and value > 0:
                    dy, dx = float(y - f.y), float(x - f.x)
                    sums += value * np.array([1.0, dy, dx, dy * dy, dx * dx, dy * dx])
        if sums[0] > 0:
            sums[1:] /= sums[0]
            out[n, 0], out[n, 1] = f.y + sums[1], f.x + sums[2]
            out[n, 2] = sums[3] - sums[1] ** 2
            out[n, 3] = sums[4] - sums[2] ** 2
            out[n, 4] = sums[5] - sums[1] * sums[2]


def fit_trails(
    data: F32, variance: F32, good: BoolArray, psfs: F64, *, start: F64, sigma: F64, reach: NDArray[np.int64]
) -> Records:
    """Fit a trailed point source to each stamp (Levenberg-Marquardt).

    Parameters
    ----------
    data, variance : ndarray, shape (n, side, side)
        Stamps; sides odd.
    good : ndarray, shape (n, side, side), bool
        Pixels to use.
    psfs : ndarray, shape (n, h, w)
        Spline coefficients of the PSFs.
    start : ndarray, shape (n, 4)
        First guess: middle y, x (offsets from the middle pixels) and the extent of the trail in y and x.
    sigma : ndarray, shape (n,)
        Width of the Gaussian that stands for the PSF, pixels.
    reach : ndarray, shape (n,)
        Pixels up to this far from the middle (in y and in x) take part.

    Returns
    -------
    ndarray of TRAIL_DTYPE
    """
    results = np.zeros(len(data), TRAIL_DTYPE)
    _fit_trails(data, variance, good, psfs, (start, sigma, reach), results)
    return results


@njit(cache=True, nogil=True)
def _fit_trails(data, variance, good, psfs, guess, results):  # type: ignore[no-untyped-def]
    for n in range(len(data)):
        half = min(guess[2][n], data.shape[1] // 2)
        part = slice(data.shape[1] // 2 - half, data.shape[1] // 2 + half + 1)
        pixels, spread, used = data[n, part, part], variance[n, part, part], good[n, part, part]
        params, normal, fine = _minimize(pixels, spread, used, guess[0][n].copy(), guess[1][n])
        result = results[n]
        _report(params, normal, result)
        model = np.zeros((2 * half + 1, 2 * half + 1))
        _draw(psfs[n], params, model)
        _flux(pixels, spread, used, model, result)
        inside = abs(params[0]) <= half and abs(params[1]) <= half
        result.converged = fine and inside and np.isfinite(result.flux)


@njit(cache=True, nogil=True)
def _smear(shape, params, sigma, out):  # type: ignore[no-untyped-def]
    """Fill `out` with a Gaussian of unit sum smeared along (extent y, extent x)."""
    length = math.sqrt(params[2] ** 2 + params[3] ** 2) + 1e-6
    uy, ux = params[2] / length, params[3] / length
    norm = 1 / (math.sqrt(2 * math.pi) * sigma * 2 * length)
    root = math.sqrt(2.0) * sigma
    for i in range(shape[0]):
        for j in range(shape[1]):
            dy, dx = i - shape[0] // 2 - params[0], j - shape[1] // 2 - params[1]
            along, across = dy * uy + dx * ux, dx * uy - dy * ux
            if abs(across) > 6 * sigma:
                out[i, j] = 0.0
                continue
            ends = math.erf((along + length / 2) / root) - math.erf((along - length / 2) / root)
            out[i, j] = norm * math.exp(-0.5 * (across / sigma) ** 2) * ends


@njit(cache=True, nogil=True)
def _cost(pixels, spread, used, model):  # type: ignore[no-untyped-def]
    """Return the best flux of a model and its chi2."""
    top, power, square = 0.0, 0.0, 0.0
    for i in range(model.shape[0]):
        for j in range(model.shape[1]):
            if used[i, j]:
                weight = 1 / spread[i, j]
                top += weight * model[i, j] * pixels[i, j]
                power += weight * model[i, j] ** 2
                square += weight * pixels[i, j] ** 2
    if not power > 0:
        return 0.0, np.inf
    return top / power, square - top * top / power


@njit(cache=True, nogil=True)
def _normal(pixels, spread, used, params, sigma):  # type: ignore[no-untyped-def]
    """Return normal matrix and gradient for (y, x, extent y, extent x, flux)."""
    shape = pixels.shape
    models = np.empty((5, shape[0], shape[1]))
    _smear(shape, params, sigma, models[4])
    flux, _ = _cost(pixels, spread, used, models[4])
    for a in range(4):
        moved = params.copy()
        moved[a] += _DELTA
        _smear(shape, moved, sigma, models[a])
        models[a] = (models[a] - models[4]) * (flux / _DELTA)
    matrix, vector = np.zeros((5, 5)), np.zeros(5)
    for i in range(shape[0]):
        for j in range(shape[1]):
            if used[i, j]:
                off = (pixels[i, j] - flux * models[4, i, j]) / spread[i, j]
                for a in range(5):
                    vector[a] += models[a, i, j] * off
                    for b in range(5):
                        matrix[a, b] += models[a, i, j] * models[b, i, j] / spread[i, j]
    return matrix, vector


@njit(cache=True, nogil=True)
def _minimize(pixels, spread, used, params, sigma):  # type: ignore[no-untyped-def]
    model = np.empty(pixels.shape)
    _smear(pixels.shape, params, sigma, model)
    cost = _cost(pixels, spread, used, model)[1]
    damping, fine = 1e-2, False
    matrix, vector = _normal(pixels, spread, used, params, sigma)
    for _ in range(_ITERATIONS):
        damped = matrix.copy()
        for a in range(5):
            damped[a, a] = matrix[a, a] * (1 + damping) + 1e-30
        trial = params + np.linalg.solve(damped, vector)[:4]
        if np.abs(trial).max() < 2 * pixels.shape[0]:
            _smear(pixels.shape, trial, sigma, model)
            new_cost = _cost(pixels, spread, used, model)[1]
        else:
            new_cost = np.inf
        if new_cost <= cost:
            fine = cost - new_cost < _TOLERANCE * max(1.0, 1e-3 * cost)
            params, cost = trial, new_cost
            damping = max(damping / 10, 1e-9)
            matrix, vector = _normal(pixels, spread, used, params, sigma)
            if fine:
                break
        else:
            damping *= 10
            if damping > 1e8:
                fine = np.isfinite(cost)
                break
    return params, matrix, fine


@njit(cache=True, nogil=True)
def _report(params, normal, result):  # type: ignore[no-untyped-def]
    result.y, result.x = params[0], params[1]
    length = math.sqrt(params[2] ** 2 + params[3] ** 2)
    result.length, result.angle = length, math.atan2(params[2], params[3])
    for a in range(5):
        normal[a, a] = normal[a, a] * (1 + 1e-9) + 1e-30
    covariance = np.linalg.inv(normal)
    result.y_err, result.x_err = math.sqrt(abs(covariance[0, 0])), math.sqrt(abs(covariance[1, 1]))
    uy, ux = (params[2] / length, params[3] / length) if length > 0 else (0.0, 1.0)
    yy, xx, yx = covariance[2, 2], covariance[3, 3], covariance[2, 3]
    result.length_err = math.sqrt(abs(uy * uy * yy + ux * ux * xx + 2 * uy * ux * yx))
    across = math.sqrt(abs(ux * ux * yy + uy * uy * xx - 2 * uy * ux * yx))
    result.angle_err = across / length if length > 0 else np.nan


@njit(cache=True, nogil=True)
def _draw(psf, params, out):  # type: ignore[no-untyped-def]
    """Add up PSFs every half pixel along the trail, with unit sum."""
    steps = max(1, math.ceil(2 * math.sqrt(params[2] ** 2 + params[3] ** 2)))
    side = psf.shape[0] - 6
    stamp = np.empty((3, side, side))
    middle = out.shape[0] // 2
    for k in range(steps):
        t = (k + 0.5) / steps - 0.5
        y, x = params[0] + t * params[2], params[1] + t * params[3]
        cy, cx = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        render_psf(psf, y - cy, x - cx, stamp, False)
        for i in range(side):
            for j in range(side):
                v, u = middle + cy + i - side // 2, middle + cx + j - side // 2
                if 0 <= v < out.shape[0] and 0 <= u < out.shape[1]:
                    out[v, u] += stamp[0, i, j] / steps


@njit(cache=True, nogil=True)
def _flux(pixels, spread, used, model, result):  # type: ignore[no-untyped-def]
    top, power, noise, count = 0.0, 0.0, 0.0, 0
    for i in range(model.shape[0]):
        for j in range(model.shape[1]):
            if used[i, j]:
                top += model[i, j] * pixels[i, j]
                power += model[i, j] ** 2
                noise += model[i, j] ** 2 * spread[i, j]
                count += 1
    result.flux = top / power if power > 0 else np.nan
    result.flux_err = math.sqrt(noise) / power if power > 0 else np.nan
    result.n_data = count
    for i in range(model.shape[0]):
        for j in range(model.shape[1]):
            if used[i, j]:
                result.chi2 += (pixels[i, j] - result.flux * model[i, j]) ** 2 / spread[i, j]
