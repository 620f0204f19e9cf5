"""Point-source and aperture photometry on stamps, many sources at once.

The PSF is known as pixels; between them it is a quintic B-spline (Unser 1999), whose derivatives are exact.
Fits weigh pixels equally, so a wrong PSF gives the same relative flux error at every brightness; errors
come from the variance plane through the same weights (A^-1 B A^-1).

Stamps are (n, side, side) with the source near the middle pixel; positions are offsets (y, x) from it.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, Records

__all__ = [
    "POINT_DTYPE",
    "aperture_fluxes",
    "fit_points",
    "point_fluxes",
    "render_psf",
    "spline_psfs",
    "without_gain",
]

#: Result of a point-source fit; y, x are offsets from the middle pixel of the stamp.
POINT_DTYPE = np.dtype(
    [
        ("y", "f8"),
        ("x", "f8"),
        ("y_err", "f8"),
        ("x_err", "f8"),
        ("yx_cov", "f8"),
        ("flux", "f8"),
        ("flux_err", "f8"),
        ("chi2", "f8"),
        ("log_like", "f8"),
        ("n_data", "i4"),
        ("coverage", "f8"),  # part of the PSF's power on good pixels
        ("converged", "?"),
    ]
)

_PAD, _ORDER = 3, 5
_ITERATIONS, _TOLERANCE, _STEP = 25, 1e-4, 0.7


def spline_psfs(basis: F64, ty: FloatArray, tx: FloatArray) -> F64:
    """Evaluate a varying PSF at many positions as B-spline coefficients.

    Parameters
    ----------
    basis : ndarray, shape (n_terms, h, w)
        Pixel basis of the PSF.
    ty, tx : ndarray, shape (n,)
        Positions normalised to [-1, 1].

    Returns
    -------
    ndarray, shape (n, h + 6, w + 6)
        Coefficients summing to one, for `render_psf` and the fits.
    """
    from scipy.ndimage import spline_filter

    padded = np.pad(basis, ((0, 0), (_PAD, _PAD), (_PAD, _PAD)))
    coefficients = np.stack([spline_filter(plane, _ORDER, mode="mirror") for plane in padded])
    terms = poly_terms(np.asarray(ty, float), np.asarray(tx, float), degree_of(basis.shape[0]))
    psfs = np.tensordot(terms.T, coefficients, axes=(1, 0))
    return np.ascontiguousarray(psfs / psfs.sum(axis=(1, 2), keepdims=True))


@njit(cache=True, nogil=True)
def _taps(t, weight, slope):  # type: ignore[no-untyped-def]
    """Quintic B-spline weights and slopes of the taps -2..3 around a point at fraction t."""
    for k in range(6):
        u = abs(t - (k - 2))
        sign = 1.0 if t > (k - 2) else -1.0
        if u < 1:
            weight[k] = 11 / 20 - u**2 / 2 + u**4 / 4 - u**5 / 12
            slope[k] = sign * (-u + u**3 - 5 * u**4 / 12)
        elif u < 2:
            weight[k] = 17 / 40 + 5 * u / 8 - 7 * u**2 / 4 + 5 * u**3 / 4 - 3 * u**4 / 8 + u**5 / 24
            slope[k] = sign * (5 / 8 - 7 * u / 2 + 15 * u**2 / 4 - 3 * u**3 / 2 + 5 * u**4 / 24)
        elif u < 3:
            weight[k] = (3 - u) ** 5 / 120
            slope[k] = -sign * (3 - u) ** 4 / 24
        else:
            weight[k] = 0
            slope[k] = 0


@njit(cache=True, nogil=True)
def render_psf(psf, dy, dx, out, with_slopes):  # type: ignore[no-untyped-def]
    """Draw a PSF centred at offset (dy, dx) from the middle of `out`.

    Parameters
    ----------
    psf : ndarray, shape (h, w)
        Spline coefficients.
    out : ndarray, shape (3, side, side)
        Filled with the PSF and, if `with_slopes`, its derivatives by dy and dx.
    """
    h, w = psf.shape
    side = out.shape[1]
    wy, sy, wx, sx = np.empty(6), np.empty(6), np.empty(6), np.empty(6)
    py, px = h // 2 - side // 2 - dy, w // 2 - side // 2 - dx
    base_y, base_x = int(np.floor(py)), int(np.floor(px))
    _taps(py - base_y, wy, sy)
    _taps(px - base_x, wx, sx)
    line, steep = np.empty(w), np.empty(w)
    for i in range(side):
        line[:] = 0
        steep[:] = 0
        for k in range(6):
            row = base_y + i + k - 2
            if 0 <= row < h:
                for j in range(w):
                    line[j] += wy[k] * psf[row, j]
                    steep[j] += sy[k] * psf[row, j]
        for j in range(side):
            value, along_y, along_x = 0.0, 0.0, 0.0
            for k in range(6):
                column = base_x + j + k - 2
                if 0 <= column < w:
                    value += wx[k] * line[column]
                    along_y += wx[k] * steep[column]
                    along_x += sx[k] * line[column]
            out[0, i, j] = value
            if with_slopes:
                out[1, i, j] = -along_y
                out[2, i, j] = -along_x


def fit_points(data: F32, variance: F32, good: BoolArray, psfs: F64, *, half: int, max_shift: float) -> Records:
    """Fit position and flux of one point source per stamp (Gauss-Newton).

    Parameters
    ----------
    data, variance : ndarray, shape (n, side, side)
        Stamps, the detection peak on the middle pixel; sides odd.
    good : ndarray, shape (n, side, side), bool
        Pixels to use.
    psfs : ndarray, shape (n, h, w)
        Spline coefficients of the PSF of each source.
    half
        Pixels up to this far from the middle (in y and in x) take part.
    max_shift
        A fit that leaves the peak by more pixels than this has failed.

    Returns
    -------
    ndarray of POINT_DTYPE, shape (n,)
        Where the fit failed, `converged` is False and the source is measured on the middle pixel.
    """
    results = np.zeros(len(data), POINT_DTYPE)
    _fit_points(data, variance, good, psfs, half, max_shift, results)
    return results


def without_gain(flux: F64, flux_err: F64) -> F64:
    """Take off a flux what the search for its position has added.

    The position of the largest flux fits noise as well, one half of its variance per coordinate, so that a
    fitted flux is too large by flux_err**2 / flux (Portillo, Speagle & Finkbeiner 2020, AJ 159, 165).

    Parameters
    ----------
    flux, flux_err : ndarray, shape (n,)
        Fitted together with a position, of either sign.

    Returns
    -------
    ndarray, shape (n,)
        The flux f whose expected fit is the one given, f + flux_err**2 / f; never less than half of it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        part = 1 - 4 * (flux_err / flux) ** 2
    return np.asarray(flux * (1 + np.sqrt(np.clip(np.nan_to_num(part), 0, None))) / 2)


def point_fluxes(
    data: F32, variance: F32, good: BoolArray, psfs: F64, *, y: FloatArray, x: FloatArray, half: int
) -> Records:
    """Fit the flux of a point source at a given position of each stamp.

    Parameters are those of `fit_points`; `y` and `x` are offsets from the middle pixels.
    """
    results = np.zeros(len(data), POINT_DTYPE)
    results["y"], results["x"], results["converged"] = y, x, True
    for name in ("y_err", "x_err", "yx_cov"):
        results[name] = np.nan
    _point_fluxes(data, variance, good, psfs, half, results)
    return results


@njit(cache=True, nogil=True)
def _point_fluxes(data, variance, good, psfs, half, results):  # type: ignore[no-untyped-def]
    model = np.empty((3, 2 * half + 1, 2 * half + 1))
    for n in range(len(data)):
        render_psf(psfs[n], results[n].y, results[n].x, model, False)
        _linear_flux(data[n], variance[n], good[n], model, results[n])


@njit(cache=True, nogil=True)
def _fit_points(data, variance, good, psfs, half, max_shift, results):  # type: ignore[no-untyped-def]
    model = np.empty((3, 2 * half + 1, 2 * half + 1))
    for n in range(len(data)):
        result = results[n]
        y, x, converged = 0.0, 0.0, False
        for _ in range(_ITERATIONS):
            render_psf(psfs[n], y, x, model, True)
            dy, dx, fine = _step(data[n], good[n], model)
            if not fine:
                break
            y, x = y + dy, x + dx
            if y * y + x * x > max_shift * max_shift:
                break
            if abs(dy) < _TOLERANCE and abs(dx) < _TOLERANCE:
                converged = True
                break
        result.y, result.x = (y, x) if converged else (0.0, 0.0)
        result.converged = converged
        render_psf(psfs[n], result.y, result.x, model, True)
        _linear_flux(data[n], variance[n], good[n], model, result)
        _position_errors(variance[n], good[n], model, result)


@njit(cache=True, nogil=True)
def _step(data, good, model):  # type: ignore[no-untyped-def]
    """One Gauss-Newton step of (y, x) with the flux eliminated."""
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    side = model.shape[1]
    corner = data.shape[0] // 2 - side // 2
    for i in range(side):
        for j in range(side):
            if good[corner + i, corner + j]:
                value = data[corner + i, corner + j]
                for a in range(3):
                    vector[a] += model[a, i, j] * value
                    for b in range(a, 3):
                        matrix[a, b] += model[a, i, j] * model[b, i, j]
    for a in range(3):
        for b in range(a):
            matrix[a, b] = matrix[b, a]
    if not matrix[0, 0] > 0:
        return 0.0, 0.0, False
    flux = vector[0] / matrix[0, 0]
    yy = matrix[1, 1] - matrix[0, 1] ** 2 / matrix[0, 0]
    xx = matrix[2, 2] - matrix[0, 2] ** 2 / matrix[0, 0]
    yx = matrix[1, 2] - matrix[0, 1] * matrix[0, 2] / matrix[0, 0]
    ry = vector[1] - flux * matrix[0, 1]
    rx = vector[2] - flux * matrix[0, 2]
    det = (yy * xx - yx * yx) * flux
    if det == 0 or not np.isfinite(det):
        return 0.0, 0.0, False
    dy, dx = (xx * ry - yx * rx) / det, (yy * rx - yx * ry) / det
    length = np.sqrt(dy * dy + dx * dx)
    scale = min(1.0, _STEP / length) if length > 0 else 1.0
    return dy * scale, dx * scale, True


@njit(cache=True, nogil=True)
def _linear_flux(data, variance, good, model, result):  # type: ignore[no-untyped-def]
    side = model.shape[1]
    corner = data.shape[0] // 2 - side // 2
    top, power, noise, total, count = 0.0, 0.0, 0.0, 0.0, 0
    for i in range(side):
        for j in range(side):
            p = model[0, i, j]
            total += p * p
            if good[corner + i, corner + j]:
                top += p * data[corner + i, corner + j]
                power += p * p
                noise += p * p * variance[corner + i, corner + j]
                count += 1
    result.n_data = count
    result.coverage = power / total if total > 0 else 0.0
    result.flux = top / power if power > 0 else np.nan
    result.flux_err = np.sqrt(noise) / power if power > 0 else np.nan
    chi2, log_norm = 0.0, 0.0
    for i in range(side):
        for j in range(side):
            if good[corner + i, corner + j]:
                spread = variance[corner + i, corner + j]
                chi2 += (data[corner + i, corner + j] - result.flux * model[0, i, j]) ** 2 / spread
                log_norm += np.log(2 * np.pi * spread)
    result.chi2 = chi2
    result.log_like = -0.5 * (chi2 + log_norm)


@njit(cache=True, nogil=True)
def _position_errors(variance, good, model, result):  # type: ignore[no-untyped-def]
    side = model.shape[1]
    corner = variance.shape[0] // 2 - side // 2
    matrix, spread = np.zeros((3, 3)), np.zeros((3, 3))
    for i in range(side):
        for j in range(side):
            if good[corner + i, corner + j]:
                for a in range(3):
                    for b in range(3):
                        product = model[a, i, j] * model[b, i, j]
                        matrix[a, b] += product
                        spread[a, b] += product * variance[corner + i, corner + j]
    result.y_err = result.x_err = result.yx_cov = np.nan
    if result.flux == 0 or not abs(np.linalg.det(matrix)) > 1e-14 * matrix[0, 0] * matrix[1, 1] * matrix[2, 2]:
        return
    inverse = np.linalg.inv(matrix)
    covariance = inverse @ spread @ inverse / result.flux**2
    result.y_err = np.sqrt(covariance[1, 1])
    result.x_err = np.sqrt(covariance[2, 2])
    result.yx_cov = covariance[1, 2]


def aperture_fluxes(
    data: F32, variance: F32, good: BoolArray, *, y: FloatArray, x: FloatArray, radius: float
) -> tuple[F64, F64, F64]:
    """Sum each stamp in a circle; pixels on the rim count by the part inside (5 x 5 samples).

    Parameters are those of `fit_points`. Pixels that are not good give nothing.

    Returns
    -------
    flux, flux_err, coverage : ndarray, shape (n,)
        Sum, its error, and the part of the circle on good pixels.
    """
    out = np.zeros((3, len(data)))
    _aperture_fluxes(data, variance, good, np.asarray(y, float), np.asarray(x, float), radius, out)
    return out[0], out[1], out[2]


@njit(cache=True, nogil=True)
def _aperture_fluxes(data, variance, good, y, x, radius, out):  # type: ignore[no-untyped-def]
    side = data.shape[1]
    for n in range(len(data)):
        covered, noise = 0.0, 0.0
        for i in range(side):
            for j in range(side):
                part = _inside(i - side // 2 - y[n], j - side // 2 - x[n], radius)
                if part > 0 and good[n, i, j]:
                    out[0, n] += part * data[n, i, j]
                    noise += part * part * variance[n, i, j]
                    covered += part
        out[1, n] = np.sqrt(noise)
        out[2, n] = min(1.0, covered / (np.pi * radius * radius))


@njit(cache=True, nogil=True)
def _inside(dy, dx, radius):  # type: ignore[no-untyped-def]
    distance = np.sqrt(dy * dy + dx * dx)
    if distance < radius - 0.75:
        return 1.0
    if distance > radius + 0.75:
        return 0.0
    count = 0
    for a in range(-2, 3):
        for b in range(-2, 3):
            count += (dy + a / 5) ** 2 + (dx + b / 5) ** 2 < radius * radius
    return count / 25
