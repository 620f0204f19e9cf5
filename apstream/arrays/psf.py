"""Work with point-spread functions given as pixels: shift them and fit them to stars.

A kernel is an odd-sided array whose middle pixel is its centre. It is moved to the subpixel position of a star by
one shift operator, Lanczos-5 with unit sum, and the PSF model is solved with that same operator, so that
model and use agree.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from apstream.arrays.types import F32, F64, FloatArray

__all__ = ["PSF_FIT_DTYPE", "kernel_at", "lanczos_taps", "psf_fit", "psf_flux", "render_psf", "shift_kernel"]

_A = 5  # half-width of the shift operator
_TAPS = 2 * _A + 1

#: What `psf_fit` returns for each star.
PSF_FIT_DTYPE = np.dtype(
    [
        ("y", "f8"),
        ("x", "f8"),
        ("y_err", "f8"),
        ("x_err", "f8"),
        ("flux", "f8"),
        ("flux_err", "f8"),
        ("background", "f8"),
        ("chi2", "f8"),
        ("n_pixels", "i8"),
    ]
)


@njit(cache=True, nogil=True)
def lanczos_taps(shift: float) -> F64:
    """Return the 11 taps w with f(i - shift) = sum over j of w[j] f(i + j - 5), |shift| <= 1; they sum to one."""
    taps = np.empty(_TAPS)
    total = 0.0
    for j in range(_TAPS):
        u = j - _A + shift
        if abs(u) < 1e-9:
            taps[j] = 1.0
        elif abs(u) >= _A:
            taps[j] = 0.0
        else:
            taps[j] = _A * np.sin(np.pi * u) * np.sin(np.pi * u / _A) / (np.pi * u) ** 2
        total += taps[j]
    return taps / total


@njit(cache=True, nogil=True)
def _shift(kernel, dy, dx, my, mx):  # type: ignore[no-untyped-def]
    """Return the middle (2 my + 1, 2 mx + 1) pixels of `kernel` moved by (dy, dx)."""
    h, w = kernel.shape
    top, left = h // 2 - my, w // 2 - mx
    ty, tx = lanczos_taps(dy), lanczos_taps(dx)
    middle = np.zeros((h, 2 * mx + 1))
    for i in range(max(0, top - _A), min(h, h - top + _A)):
        for j in range(2 * mx + 1):
            total = 0.0
            for t in range(max(0, _A - j - left), min(_TAPS, w + _A - j - left)):
                total += tx[t] * kernel[i, left + j + t - _A]
            middle[i, j] = total
    out = np.zeros((2 * my + 1, 2 * mx + 1))
    for i in range(2 * my + 1):
        for t in range(max(0, _A - i - top), min(_TAPS, h + _A - i - top)):
            weight = ty[t]
            for j in range(2 * mx + 1):
                out[i, j] += weight * middle[top + i + t - _A, j]
    return out


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
    kernel = np.asarray(kernel, np.float64)
    moved: F64 = _shift(kernel, float(dy), float(dx), kernel.shape[0] // 2, kernel.shape[1] // 2)
    return moved


@njit(cache=True, nogil=True)
def kernel_at(basis: F64, terms: F64) -> F64:
    """Return sum over k of terms[k] basis[k] scaled to unit sum."""
    n, h, w = basis.shape
    kernel = np.zeros((h, w))
    for k in range(n):
        for i in range(h):
            for j in range(w):
                kernel[i, j] += terms[k] * basis[k, i, j]
    return kernel / kernel.sum()


@njit(cache=True, nogil=True)
def _gather(image, weight, top, left, data, use):  # type: ignore[no-untyped-def]
    """Copy the stamp whose corner is (top, left); `use` is False off the image and where weight is zero."""
    h, w = data.shape
    for i in range(h):
        for j in range(w):
            r, c = top + i, left + j
            inside = 0 <= r < image.shape[0] and 0 <= c < image.shape[1]
            use[i, j] = inside and weight[r, c] > 0
            data[i, j] = image[r, c] if use[i, j] else 0.0


@njit(cache=True, nogil=True)
def _normal(data, use, models, radius):  # type: ignore[no-untyped-def]
    """Return the normal matrix and vector of `data` on `models`, and the number of pixels used."""
    m = models.shape[0]
    h, w = data.shape
    matrix, vector, count = np.zeros((m, m)), np.zeros(m), 0
    for i in range(h):
        for j in range(w):
            if not use[i, j] or (i - h // 2) ** 2 + (j - w // 2) ** 2 > radius * radius:
                continue
            count += 1
            for a in range(m):
                vector[a] += models[a, i, j] * data[i, j]
                for b in range(a + 1):
                    matrix[a, b] += models[a, i, j] * models[b, i, j]
    for a in range(m):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return matrix, vector, count


@njit(cache=True, nogil=True)
def _gradient(kernel, models):  # type: ignore[no-untyped-def]
    """Fill models[1], models[2] with minus the derivatives of `kernel` along y and x."""
    h, w = kernel.shape
    for i in range(h):
        for j in range(w):
            up = kernel[i + 1, j] if i + 1 < h else 0.0
            down = kernel[i - 1, j] if i > 0 else 0.0
            right = kernel[i, j + 1] if j + 1 < w else 0.0
            left = kernel[i, j - 1] if j > 0 else 0.0
            models[1, i, j] = (down - up) / 2
            models[2, i, j] = (left - right) / 2


@njit(cache=True, nogil=True)
def _fit_one(image, variance, base, y, x, radius, steps, out):  # type: ignore[no-untyped-def]
    """Fit one star; write y, x, y_err, x_err, flux, flux_err, background, chi2, n into `out`."""
    my, mx = min(base.shape[0] // 2, int(radius) + 1), min(base.shape[1] // 2, int(radius) + 1)
    h, w = 2 * my + 1, 2 * mx + 1
    data, use = np.empty((h, w)), np.empty((h, w), np.bool_)
    models = np.ones((4, h, w))
    y0, x0 = y, x
    for step in range(steps + 1):
        row, col = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        _gather(image, variance, row - h // 2, col - w // 2, data, use)
        kernel = _shift(base, y - row, x - col, my, mx)
        models[0] = kernel
        _gradient(kernel, models)
        matrix, vector, count = _normal(data, use, models, radius)
        if count < 9 or matrix[0, 0] <= 0:
            return
        if step == steps:
            break
        solution = np.linalg.solve(matrix + np.eye(4) * 1e-12, vector)
        if not solution[0] > 0:
            break
        y += max(-0.5, min(0.5, solution[1] / solution[0]))
        x += max(-0.5, min(0.5, solution[2] / solution[0]))
        if not (abs(y - y0) < 1.5 and abs(x - x0) < 1.5):
            y, x = y0, x0
    _finish(data, use, variance, models, matrix, vector, row - h // 2, col - w // 2, radius, out)
    out[0], out[1], out[8] = y, x, count


@njit(cache=True, nogil=True)
def _finish(data, use, variance, models, matrix, vector, top, left, radius, out):  # type: ignore[no-untyped-def]
    """Flux by the unweighted linear fit, with errors from the variance; position errors, chi2."""
    h, w = data.shape
    flux = vector[0] / matrix[0, 0]
    noise, noise_y, noise_x, chi2 = 0.0, 0.0, 0.0, 0.0
    for i in range(h):
        for j in range(w):
            if not use[i, j] or (i - h // 2) ** 2 + (j - w // 2) ** 2 > radius * radius:
                continue
            v = variance[top + i, left + j]
            noise += models[0, i, j] ** 2 * v
            noise_y += models[1, i, j] ** 2 * v
            noise_x += models[2, i, j] ** 2 * v
            chi2 += (data[i, j] - flux * models[0, i, j]) ** 2 / v
    scale = abs(flux) if flux != 0 else 1.0
    out[2] = np.sqrt(noise_y) / matrix[1, 1] / scale
    out[3] = np.sqrt(noise_x) / matrix[2, 2] / scale
    out[4] = flux
    out[5] = np.sqrt(noise) / matrix[0, 0]
    out[6] = 0.0
    out[7] = chi2


@njit(cache=True, nogil=True)
def _fit_all(image, variance, basis, terms, y, x, radius, steps, out):  # type: ignore[no-untyped-def]
    for s in range(len(y)):
        _fit_one(image, variance, kernel_at(basis, terms[s]), y[s], x[s], radius, steps, out[s])


def psf_fit(
    image: F32, variance: F32, basis: F64, terms: F64, *, y: F64, x: F64, radius: float, steps: int = 0
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Fit PSF fluxes, and positions when `steps` > 0, at many places.

    The flux is the unweighted least-squares fit of the PSF (no bias from source noise in the weights); its
    error comes from `variance`.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted; pixels with variance that is not positive (or NaN) are not used.
    basis : ndarray, shape (n_terms, h, w)
        PSF basis, see `model.psf.Psf`.
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at each star.
    y, x : ndarray, shape (n,)
        Positions in array pixels.
    radius
        Pixels farther from the star's central pixel are left out.
    steps
        Gauss-Newton steps for the position.

    Returns
    -------
    ndarray, shape (n,)
        `PSF_FIT_DTYPE`; NaN flux where fewer than 9 pixels can be used.
    """
    out = np.full((len(y), 9), np.nan)
    out[:, 0], out[:, 1], out[:, 8] = y, x, 0
    basis = np.ascontiguousarray(basis, np.float64)
    _fit_all(image, variance, basis, np.ascontiguousarray(terms, np.float64), np.asarray(y, float),
             np.asarray(x, float), float(radius), int(steps), out)  # fmt: skip
    result = np.empty(len(y), PSF_FIT_DTYPE)
    for column, name in enumerate(PSF_FIT_DTYPE.names or ()):
        result[name] = out[:, column]
    return result


def psf_flux(image: F32, variance: F32, kernel: FloatArray, y: float, x: float) -> tuple[float, float, float]:
    """Return (flux, error, chi2 per pixel) of one PSF fitted at (y, x), array pixels; NaN where it cannot be."""
    fit = psf_fit(image, variance, np.asarray(kernel, float)[None], np.ones((1, 1)),
                  y=np.array([y]), x=np.array([x]), radius=float(max(kernel.shape)))[0]  # fmt: skip
    return float(fit["flux"]), float(fit["flux_err"]), float(fit["chi2"] / max(fit["n_pixels"], 1))


@njit(cache=True, nogil=True)
def render_psf(image: F32, basis: F64, terms: F64, y: F64, x: F64, flux: F64) -> None:
    """Add stars of `flux` at array positions (y, x) to `image` in place; `terms` has shape (n, n_terms)."""
    ny, nx = image.shape
    h, w = basis.shape[1], basis.shape[2]
    for s in range(len(y)):
        row, col = int(np.floor(y[s] + 0.5)), int(np.floor(x[s] + 0.5))
        kernel = _shift(kernel_at(basis, terms[s]), y[s] - row, x[s] - col, h // 2, w // 2)
        top, left = row - h // 2, col - w // 2
        for i in range(max(0, -top), min(h, ny - top)):
            for j in range(max(0, -left), min(w, nx - left)):
                image[top + i, left + j] += np.float32(flux[s] * kernel[i, j])
