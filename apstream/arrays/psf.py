"""Work with point-spread functions given as pixels: move them, add them to images, fit them to stars.

A kernel is an odd-sided array whose middle pixel is its centre. It is moved to the subpixel position of a star by
one operator, Lanczos-5 with unit sum, and the PSF model is solved with that same operator, so that model and
use agree. Many stars are handled as one cube of moved kernels, made once and then used as often as needed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.types import F32, F64, FloatArray, Records

__all__ = [
    "PSF_FIT_DTYPE",
    "add_stamps",
    "fit_stamps",
    "kernel_at",
    "lanczos_taps",
    "psf_flux",
    "psf_stamps",
    "shift_kernel",
]

_A = 5  # half-width of the shift operator
_TAPS = 2 * _A + 1

#: What `fit_stamps` returns for each star: flux of the PSF fit and its error, the position correction times the
#: flux, the errors of the same, chi2 and the number of pixels used.
PSF_FIT_DTYPE = np.dtype(
    [("flux", "f8"), ("flux_err", "f8"), ("fdy", "f8"), ("fdx", "f8"), ("fdy_err", "f8"), ("fdx_err", "f8"),
     ("chi2", "f8"), ("n_pixels", "f8")]
)  # fmt: skip


@njit(cache=True, nogil=True)
def lanczos_taps(shift: float) -> F64:
    """Return 11 taps w with f(i - shift) = sum of w[j] f(i + j - 5), |shift| <= 1; they sum to one."""
    taps = np.zeros(_TAPS)
    for j in range(_TAPS):
        u = j - _A + shift
        if abs(u) < 1e-9:
            taps[j] = 1.0
        elif abs(u) < _A:
            taps[j] = _A * np.sin(np.pi * u) * np.sin(np.pi * u / _A) / (np.pi * u) ** 2
    taps /= taps.sum()
    return taps


@njit(cache=True, nogil=True)
def _shift(kernel, dy, dx, out):  # type: ignore[no-untyped-def]
    """Write `kernel` moved by (dy, dx) into `out`, of the same shape."""
    h, w = kernel.shape
    ty, tx = lanczos_taps(dy), lanczos_taps(dx)
    wide = np.zeros(w + 2 * _A)
    middle = np.zeros((h + 2 * _A, w))
    for i in range(h):
        wide[_A : _A + w] = kernel[i]
        for t in range(_TAPS):
            weight = tx[t]
            for j in range(w):
                middle[i + _A, j] += weight * wide[j + t]
    line = np.zeros(w)
    for i in range(h):
        line[:] = 0.0
        for t in range(_TAPS):
            weight = ty[t]
            for j in range(w):
                line[j] += weight * middle[i + t, j]
        for j in range(w):
            out[i, j] = line[j]


def shift_kernel(kernel: FloatArray, dy: float, dx: float) -> F64:
    """Return `kernel` moved by (dy, dx) pixels, each in [-1, 1].

    Parameters
    ----------
    kernel : ndarray, shape (h, w)
        Sampled at FWHM >= 2 pixels; outside it is taken as zero. Finite.

    Returns
    -------
    ndarray, shape (h, w), float64
        A star at pixel (h // 2 + dy, w // 2 + dx) with the PSF `kernel`.
    """
    kernel = np.ascontiguousarray(kernel, np.float64)
    out = np.empty(kernel.shape)
    _shift(kernel, float(dy), float(dx), out)
    return out


@njit(cache=True, nogil=True)
def kernel_at(basis: F64, terms: F64) -> F64:
    """Return sum over k of terms[k] basis[k], scaled to unit sum."""
    n, h, w = basis.shape
    kernel = np.zeros((h, w))
    for k in range(n):
        weight = terms[k]
        for i in range(h):
            for j in range(w):
                kernel[i, j] += weight * basis[k, i, j]
    kernel /= kernel.sum()
    return kernel


@njit(cache=True, nogil=True)
def _stamps(basis, terms, y, x, out):  # type: ignore[no-untyped-def]
    for s in range(len(y)):
        row, col = np.floor(y[s] + 0.5), np.floor(x[s] + 0.5)
        _shift(kernel_at(basis, terms[s]), y[s] - row, x[s] - col, out[s])


def psf_stamps(basis: F64, terms: F64, *, y: F64, x: F64) -> F32:
    """Return the PSF at many stars, each moved to its subpixel position within its central pixel.

    Parameters
    ----------
    basis : ndarray, shape (n_terms, h, w)
        PSF basis, see `model.psf.Psf`.
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at each star.
    y, x : ndarray, shape (n,)
        Positions in array pixels; finite.

    Returns
    -------
    ndarray, shape (n, h, w), float32
    """
    basis = np.ascontiguousarray(basis, np.float64)
    out = np.empty((len(y), *basis.shape[1:]), np.float32)
    _stamps(basis, np.ascontiguousarray(terms, np.float64), np.asarray(y, float), np.asarray(x, float), out)
    return out


@njit(cache=True, nogil=True)
def add_stamps(image: F32, cube: F32, y: F64, x: F64, flux: F64) -> None:
    """Add stars to `image` in place.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Written.
    cube : ndarray, shape (n, h, w), float32
        From `psf_stamps` at the same positions.
    y, x, flux : ndarray, shape (n,)
        Array pixels; a flux that is not finite adds nothing.
    """
    ny, nx = image.shape
    h, w = cube.shape[1], cube.shape[2]
    for s in range(len(y)):
        top, left = int(np.floor(y[s] + 0.5)) - h // 2, int(np.floor(x[s] + 0.5)) - w // 2
        f = np.float32(flux[s])
        if f == 0 or not np.isfinite(f):
            continue
        for i in range(max(0, -top), min(h, ny - top)):
            for j in range(max(0, -left), min(w, nx - left)):
                image[top + i, left + j] += f * cube[s, i, j]


@njit(cache=True, nogil=True)
def _accumulate(image, variance, stamp, place, radius):  # type: ignore[no-untyped-def]
    """Sum products of data and (PSF, -dPSF/dy, -dPSF/dx) over the pixels within `radius` that have variance.

    Returns PP, PD, PP v, and with weights 1/v: PP, Py, Px, yy, yx, xx, PD, yD, xD, DD; count.
    """
    ny, nx = image.shape
    h, w = stamp.shape
    row, col = int(np.floor(place[0] + 0.5)), int(np.floor(place[1] + 0.5))
    s = np.zeros(14)
    reach = int(radius)
    for i in range(max(1, h // 2 - reach), min(h - 1, h // 2 + reach + 1)):
        r = row + i - h // 2
        if r < 0 or r >= ny:
            continue
        for j in range(max(1, w // 2 - reach), min(w - 1, w // 2 + reach + 1)):
            c = col + j - w // 2
            if c < 0 or c >= nx or (i - h // 2) ** 2 + (j - w // 2) ** 2 > radius * radius:
                continue
            v = variance[r, c]
            if not (v > 0 and v < np.inf):
                continue
            d, p, u = image[r, c], stamp[i, j], 1 / v
            gy, gx = (stamp[i - 1, j] - stamp[i + 1, j]) / 2, (stamp[i, j - 1] - stamp[i, j + 1]) / 2
            s[0] += p * p
            s[1] += p * d
            s[2] += p * p * v
            s[3] += u * p * p
            s[4] += u * p * gy
            s[5] += u * p * gx
            s[6] += u * gy * gy
            s[7] += u * gy * gx
            s[8] += u * gx * gx
            s[9] += u * p * d
            s[10] += u * gy * d
            s[11] += u * gx * d
            s[12] += u * d * d
            s[13] += 1
    return s


@njit(cache=True, nogil=True)
def _fit(image, variance, cube, places, radius, out):  # type: ignore[no-untyped-def]
    for n in range(len(cube)):
        s = _accumulate(image, variance, cube[n], places[n], radius)
        if s[13] < 9 or not s[0] > 0:
            continue
        flux = s[1] / s[0]
        out[n, 0], out[n, 1] = flux, np.sqrt(s[2]) / s[0]
        matrix = np.array([[s[3], s[4], s[5]], [s[4], s[6], s[7]], [s[5], s[7], s[8]]])
        for k in range(3):
            matrix[k, k] *= 1 + 1e-9
        solution = np.linalg.solve(matrix, np.array([s[9], s[10], s[11]]))
        out[n, 2], out[n, 3] = solution[1], solution[2]
        out[n, 4], out[n, 5] = 1 / np.sqrt(s[6]), 1 / np.sqrt(s[8])
        out[n, 6] = s[12] - 2 * flux * s[9] + flux * flux * s[3]
        out[n, 7] = s[13]


def fit_stamps(image: F32, variance: F32, cube: F32, *, y: F64, x: F64, radius: float) -> Records:
    """Fit the PSF to an image, or to what is left of it, at many places.

    The flux is fitted without weights, so that the noise of the light does not bias it. The position is fitted with
    the weights of `variance`, which noise does not bias, and reaches the Cramer-Rao bound. Errors come from `variance`.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted; pixels whose variance is not positive and finite are not used.
    cube : ndarray, shape (n, h, w), float32
        From `psf_stamps` at the same positions.
    y, x : ndarray, shape (n,)
        Array pixels.
    radius
        Pixels farther from the star's central pixel are left out.

    Returns
    -------
    ndarray, shape (n,)
        `PSF_FIT_DTYPE`; NaN where fewer than 9 pixels can be used.
    """
    out = np.full((len(y), 8), np.nan)
    places = np.column_stack([np.asarray(y, float), np.asarray(x, float)])
    _fit(image, variance, cube, places, float(radius), out)
    return out.view(PSF_FIT_DTYPE).reshape(len(y))


def psf_flux(
    image: F32, variance: F32, kernel: FloatArray, *, y: float, x: float, radius: float = 100.0
) -> tuple[float, float, float]:
    """Return (flux, error, chi2 per pixel) of one PSF at (y, x), array pixels; NaN where it cannot be fitted."""
    at_y, at_x = np.array([float(y)]), np.array([float(x)])
    cube = psf_stamps(np.asarray(kernel, float)[None], np.ones((1, 1)), y=at_y, x=at_x)
    fit = fit_stamps(image, variance, cube, y=at_y, x=at_x, radius=radius)[0]
    return float(fit["flux"]), float(fit["flux_err"]), float(fit["chi2"] / fit["n_pixels"])
