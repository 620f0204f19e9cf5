"""Work with point-spread functions given as pixels: move them, add them to images, fit them to stars.

A kernel is an odd-sided array whose middle pixel is its centre. It is moved to the subpixel position of a star by
one operator, Lanczos-5 with unit sum, and the PSF model is solved with that same operator, so that model and
use agree. Many stars are handled as one cube of moved kernels, made once and then used as often as needed.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, FloatArray, IntArray, Records

__all__ = [
    "PSF_FIT_DTYPE",
    "add_stamps",
    "fit_stamps",
    "kernel_at",
    "lanczos_taps",
    "move_stars",
    "psf_flux",
    "psf_stamps",
    "shift_kernel",
]

_A = 5  # half-width of the shift operator
_TAPS = 2 * _A + 1
_COSINES, _SINES = np.cos(np.pi * np.arange(-_A, _A + 1) / _A), np.sin(np.pi * np.arange(-_A, _A + 1) / _A)

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
    # all sines of a tap's place are those of the shift turned by a whole number of steps
    wave, slow, turned = np.sin(np.pi * shift), np.sin(np.pi * shift / _A), np.cos(np.pi * shift / _A)
    for j in range(_TAPS):
        u = j - _A + shift
        if abs(u) < 1e-9:
            taps[j] = 1.0
        elif abs(u) < _A:
            sine = slow * _COSINES[j] + turned * _SINES[j]
            taps[j] = _A * (wave if (j - _A) % 2 == 0 else -wave) * sine / (np.pi * u) ** 2
            if abs(taps[j]) < 1e-12:  # at a whole pixel; products with it would be too small for float32
                taps[j] = 0.0
    taps /= taps.sum()
    return taps


@njit(cache=True, nogil=True)
def _shift(kernel, dy, dx, room, out):  # type: ignore[no-untyped-def]
    """Write `kernel` moved by (dy, dx) into `out`.

    `room`, from `_room`, is of the kernel's type: zeros about the kernel, zeros above and below the kernel moved in x,
    and the result. It is worked on as lines, without slices, which vectorises: thousands of kernels are moved for
    every image.
    """
    h, w = kernel.shape
    side = w + 2 * _A
    wide, middle, moved = room[0], room[1], room[2]
    for i in range(h):
        first = i * side + _A
        for j in range(w):
            wide[first + j] = kernel[i, j]
    count = h * side - 2 * _A
    _filter(wide, 1, lanczos_taps(dx), count, middle[_A * side :])
    _filter(middle, side, lanczos_taps(dy), count, moved)
    for i in range(h):
        first = i * side
        for j in range(w):
            out[i, j] = moved[first + j]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _filter(line, step, weights, count, out):  # type: ignore[no-untyped-def]
    """Write the sums over t of weights[t] line[i + t step] to out[i], i < count; elements behind are not changed."""
    t = weights.astype(line.dtype)
    t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10]
    s = np.uint64(step)  # indices without a sign need no test for being negative
    s2, s3, s4 = s + s, s + s + s, s + s + s + s
    for k in range(count):
        i = np.uint64(k)
        j, m = i + s4, i + s4 + s4
        total = (t0 * line[i] + t1 * line[i + s]) + (t2 * line[i + s2] + t3 * line[i + s3])
        total += (t4 * line[j] + t5 * line[j + s]) + (t6 * line[j + s2] + t7 * line[j + s3])
        out[i] = total + (t8 * line[m] + t9 * line[m + s]) + t10 * line[m + s2]


@njit(cache=True, nogil=True)
def _room(h, w, like):  # type: ignore[no-untyped-def]
    """Return the room that `_shift` needs for kernels of (h, w)."""
    return np.zeros((3, (h + 2 * _A) * (w + 2 * _A)), like.dtype)


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
    _shift(kernel, float(dy), float(dx), _room(*kernel.shape, kernel), out)
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
def _stamps(psf, terms, y, x, out):  # type: ignore[no-untyped-def]
    h, w = out.shape[1:]
    kernel = np.empty((h, w), np.float32)
    room = _room(h, w, kernel)
    flat = kernel.reshape(h * w)
    for s in range(len(y)):
        _stamp(psf, terms[s], (y[s], x[s]), (kernel, flat, room), out[s])


@njit(cache=True, nogil=True)
def _stamp(psf, terms, place, rooms, out):  # type: ignore[no-untyped-def]
    basis, sums = psf
    kernel, flat, room = rooms
    total = np.dot(terms, sums)
    flat[:] = 0
    for k in range(0, len(basis), 3):  # three terms at a time
        last = len(basis) - 1
        p, q, u = basis[k], basis[min(k + 1, last)], basis[min(k + 2, last)]
        a = np.float32(terms[k] / total)
        b = np.float32(terms[k + 1] / total) if k + 1 <= last else np.float32(0)
        c = np.float32(terms[k + 2] / total) if k + 2 <= last else np.float32(0)
        for i in range(len(flat)):
            flat[i] += a * p[i] + b * q[i] + c * u[i]
    row, col = np.floor(place[0] + 0.5), np.floor(place[1] + 0.5)
    _shift(kernel, place[0] - row, place[1] - col, room, out)


def psf_stamps(basis: F64, terms: F64, *, y: F64, x: F64, out: F32 | None = None) -> F32:
    """Return the PSF at many stars, each moved to its subpixel position within its central pixel.

    Parameters
    ----------
    basis : ndarray, shape (n_terms, h, w)
        PSF basis, see `model.psf.Psf`.
    terms : ndarray, shape (n, n_terms)
        Polynomial terms at each star.
    y, x : ndarray, shape (n,)
        Positions in array pixels; finite.
    out : ndarray, shape (n, h, w), float32
        Written and returned; None: new.

    Returns
    -------
    ndarray, shape (n, h, w), float32
    """
    out = np.empty((len(y), *basis.shape[1:]), np.float32) if out is None else out
    _stamps(_planes(basis), np.ascontiguousarray(terms, np.float64), np.asarray(y, float), np.asarray(x, float), out)
    return out


def _planes(basis: F64) -> tuple[F32, F64]:
    """Return the planes of a basis as lines, and their sums."""
    planes = np.array(basis, np.float32).reshape(len(basis), -1)
    planes[np.abs(planes) < 1e-12 * np.abs(planes).max()] = 0  # numbers too small for float32 are slow
    return planes, np.sum(basis, axis=(1, 2), dtype=float)


def move_stars(
    image: F32, cube: F32, basis: F64, terms: F64, rows: IntArray, old: tuple[F64, F64, F64], new: tuple[F64, F64, F64]
) -> None:
    """Take stars from where they were believed to where they are, in an image from which they are subtracted.

    Same as `add_stamps` with the old stamps, `psf_stamps`, and `add_stamps` of the negative.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Less all stars; written.
    cube : ndarray, shape (n, h, w), float32
        Their stamps; those of `rows` are written anew.
    basis, terms
        As in `psf_stamps`, terms of `rows` alone.
    rows : ndarray of int, shape (m,)
        The stars that move.
    old, new
        y, x and flux of `rows`; a flux that is not finite counts as none.
    """
    planes, sums = _planes(basis)
    places = np.ascontiguousarray(np.nan_to_num(np.column_stack([*old, *new])), np.float64)
    _move(image, cube, (planes, sums), np.ascontiguousarray(terms, np.float64), rows, places)


@njit(cache=True, nogil=True)
def _move(image, cube, psf, terms, rows, places):  # type: ignore[no-untyped-def]
    kernel = np.empty(cube.shape[1:], np.float32)
    rooms = kernel, kernel.reshape(kernel.size), _room(*cube.shape[1:], kernel)
    for k in range(len(rows)):
        stamp, now = cube[rows[k]], (places[k, 3], places[k, 4])
        _add_stamp(image, stamp, (places[k, 0], places[k, 1]), places[k, 2])
        _stamp(psf, terms[k], now, rooms, stamp)
        _add_stamp(image, stamp, now, -places[k, 5])


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
    for s in range(len(y)):
        _add_stamp(image, cube[s], (y[s], x[s]), flux[s])


@njit(cache=True, nogil=True)
def _add_stamp(image, stamp, place, flux):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    h, w = stamp.shape
    top, left = int(np.floor(place[0] + 0.5)) - h // 2, int(np.floor(place[1] + 0.5)) - w // 2
    f = np.float32(flux)
    first, last = max(0, -left), min(w, nx - left)
    if f == 0 or not np.isfinite(f) or first >= last:
        return
    for i in range(max(0, -top), min(h, ny - top)):
        line, light = image[top + i, left + first : left + last], stamp[i, first:last]
        for j in range(len(line)):
            line[j] += f * light[j]


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
