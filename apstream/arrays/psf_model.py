"""Solve for a PSF that is a pixel basis varying over the field as a polynomial.

The model is used forward: every star's data are compared with the PSF at its place, moved to its subpixel
position by `psf.shift_kernel`. What is left over is moved back and corrects the basis by weighted, regularised least
squares, pixel by pixel. At convergence the residuals of the stars vanish in the mean, so that the smoothing of the
shift operator does not enter the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from apstream.arrays.moments import adaptive_moments
from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.psf import kernel_at, psf_fit, render_psf, shift_kernel
from apstream.arrays.stars import degree_for
from apstream.arrays.stats import mad_sigma
from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = ["PsfSolution", "fit_psf", "moffat_kernel"]

_BETA = 3.5  # wings of the first guess


@dataclass(frozen=True, slots=True, eq=False)
class PsfSolution:
    """A PSF basis (n_terms, h, w) and what it says of the stars it was solved from."""

    basis: F64
    used: BoolArray  # (n,) survived rejection
    flux: F64  # (n,)
    y: F64  # (n,) refined
    x: F64
    chi2: F64  # (n,) per pixel, in the core


@dataclass(slots=True)
class _Scene:
    """The stars of a fit and all sources that touch them; the first `n` are the PSF stars."""

    image: F32
    variance: F32
    n: int
    y: F64
    x: F64
    ty: F64
    tx: F64
    flux: F64


def moffat_kernel(fwhm: float, half: int, beta: float = _BETA) -> F64:
    """Return a round Moffat kernel of unit sum, integrated over pixels by 5 x 5 subsamples."""
    fine = (np.arange(5 * (2 * half + 1)) - 5 * half - 2) / 5
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    values = (1 + (fine[:, None] ** 2 + fine[None, :] ** 2) / alpha2) ** -beta
    side = 2 * half + 1
    kernel = values.reshape(side, 5, side, 5).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())


def fit_psf(
    image: F32,
    variance: F32,
    *,
    stars: tuple[F64, F64, F64],
    others: tuple[F64, F64, F64],
    fwhm: float,
    half: int,
    degree: int = 2,
    iterations: int = 4,
) -> PsfSolution:
    """Solve for the PSF.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted; variance not positive or NaN where a pixel must not be used.
    stars
        y, x, flux of the PSF stars, array pixels.
    others
        y, x, flux of all other sources; those near a star are fitted and subtracted along.
    fwhm
        First guess, pixels.
    half
        The basis has side 2 half + 1.
    degree
        Highest polynomial degree; fewer stars than four a term lower it.
    iterations
        Corrections of the basis.

    Returns
    -------
    PsfSolution
        The polynomial's domain is the whole array, as `Box.normalize` has it.
    """
    scene = _scene(image, variance, stars, others, reach=2.0 * half)
    used = np.ones(scene.n, bool)
    basis = moffat_kernel(fwhm, half)[None]
    chi2 = np.ones(scene.n)
    for step in range(iterations):
        last = step == iterations - 1
        now = degree_for(int(used.sum()), degree if step else 0)
        basis = _extend(basis, now)
        residual = _settle(scene, basis, fwhm, first=step == 0)
        stamps, usable = _stamps(residual, scene, half)
        chi2 = _core_chi2(stamps, usable, scene, basis, 1.5 * fwhm)
        if step:
            used = _survivors(chi2, used)
        basis = _correct(basis, scene, stamps, usable, used)
        basis = _center(basis, scene, fwhm) if not last else basis
    n = scene.n
    return PsfSolution(basis, used, scene.flux[:n], scene.y[:n], scene.x[:n], chi2)


def _scene(
    image: F32, variance: F32, stars: tuple[F64, F64, F64], others: tuple[F64, F64, F64], *, reach: float
) -> _Scene:
    near = np.zeros(0, int)
    if len(others[0]) and len(stars[0]):
        tree = cKDTree(np.column_stack(others[:2]))
        lists = tree.query_ball_point(np.column_stack(stars[:2]), reach)
        near = np.unique(np.concatenate([np.asarray(item, int) for item in lists]))
    y, x, flux = (
        np.concatenate([np.asarray(s, float), np.asarray(o, float)[near]])
        for s, o in zip(stars, others, strict=True)
    )
    ny, nx = image.shape
    ty, tx = (y - (ny - 1) / 2) / max(ny / 2, 1), (x - (nx - 1) / 2) / max(nx / 2, 1)
    return _Scene(image, variance, len(stars[0]), y, x, ty, tx, np.nan_to_num(flux))


def _extend(basis: F64, degree: int) -> F64:
    """Return `basis` with as many terms as `degree` has; new ones are zero."""
    out = np.zeros((n_terms(degree), *basis.shape[1:]))
    count = min(len(out), len(basis))
    out[:count] = basis[:count]
    return out


def _terms(scene: _Scene, basis: F64) -> F64:
    degree = {1: 0, 3: 1, 6: 2, 10: 3, 15: 4}[len(basis)]
    return np.ascontiguousarray(poly_terms(scene.ty, scene.tx, degree).T)


def _settle(scene: _Scene, basis: F64, fwhm: float, *, first: bool) -> F32:
    """Refine fluxes and positions with all sources subtracted in turn; return the residual image."""
    terms = _terms(scene, basis)
    radius = max(1.2 * fwhm, 2.5)
    for _ in range(3 if first else 2):
        residual = scene.image.copy()
        render_psf(residual, basis, terms, scene.y, scene.x, -scene.flux)
        fit = psf_fit(residual, scene.variance, basis, terms, y=scene.y, x=scene.x, radius=radius)
        change = np.nan_to_num(fit["flux"])
        # Neighbours share light: take part of the correction, and never let a flux turn negative.
        scene.flux = np.maximum(scene.flux + 0.8 * change, 0.0)
    residual = scene.image.copy()
    render_psf(residual, basis, terms, scene.y, scene.x, -scene.flux)
    _refine_positions(residual, scene, basis, terms, radius)
    residual = scene.image.copy()
    render_psf(residual, basis, terms, scene.y, scene.x, -scene.flux)
    return residual


def _refine_positions(residual: F32, scene: _Scene, basis: F64, terms: F64, radius: float) -> None:
    """Fit position corrections of the PSF stars, each with its own light put back."""
    n = scene.n
    half = basis.shape[1] // 2
    for s in range(n):
        r, c = int(np.floor(scene.y[s] + 0.5)), int(np.floor(scene.x[s] + 0.5))
        r0, c0 = max(0, r - half), max(0, c - half)
        part = np.ascontiguousarray(residual[r0 : r + half + 1, c0 : c + half + 1])
        noise = np.ascontiguousarray(scene.variance[r0 : r + half + 1, c0 : c + half + 1])
        y, x = scene.y[s : s + 1] - r0, scene.x[s : s + 1] - c0
        render_psf(part, basis, terms[s : s + 1], y, x, scene.flux[s : s + 1])
        fit = psf_fit(part, noise, basis, terms[s : s + 1], y=y, x=x, radius=radius, steps=3)[0]
        if np.isfinite(fit["flux"]) and fit["flux"] > 0:
            scene.y[s], scene.x[s], scene.flux[s] = fit["y"] + r0, fit["x"] + c0, fit["flux"]


def _stamps(residual: F32, scene: _Scene, half: int) -> tuple[F64, BoolArray]:
    """Cut residual stamps of the PSF stars, less their outer median; second, which pixels may be used."""
    side, n = 2 * half + 1, scene.n
    stamps, usable = np.zeros((n, side, side)), np.zeros((n, side, side), bool)
    ny, nx = residual.shape
    offsets = np.arange(-half, half + 1)
    ring = np.hypot(offsets[:, None], offsets[None, :]) > 0.85 * half
    for s in range(n):
        rows = int(np.floor(scene.y[s] + 0.5)) + offsets
        cols = int(np.floor(scene.x[s] + 0.5)) + offsets
        inside = np.ix_((rows >= 0) & (rows < ny), (cols >= 0) & (cols < nx))
        take = np.ix_(rows[(rows >= 0) & (rows < ny)], cols[(cols >= 0) & (cols < nx)])
        stamps[s][inside] = residual[take]
        usable[s][inside] = scene.variance[take] > 0
        outer = stamps[s][ring & usable[s]]
        if outer.size > 10:
            stamps[s] -= np.median(outer)
        stamps[s][~usable[s]] = 0
    return stamps, usable


def _noise_model(scene: _Scene, models: F64, usable: BoolArray) -> F64:
    """Return a smooth variance for each star's pixels: its sky, plus the share of its light, plus model error."""
    out = np.empty_like(models)
    half = models.shape[1] // 2
    for s in range(scene.n):
        r, c = int(np.floor(scene.y[s] + 0.5)), int(np.floor(scene.x[s] + 0.5))
        part = scene.variance[max(0, r - half) : r + half + 1, max(0, c - half) : c + half + 1]
        good = part[part > 0]
        sky = float(np.percentile(good, 30)) if good.size else 1.0
        core = scene.variance[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2]
        peak = scene.flux[s] * models[s, half - 1 : half + 2, half - 1 : half + 2].mean()
        core = core[core > 0]
        share = max(float(core.mean()) - sky, 0.0) / peak if core.size and peak > 0 else 0.0
        light = np.maximum(scene.flux[s] * models[s], 0)
        out[s] = sky + share * light + (0.01 * light) ** 2 + 1e-12 * sky
    return out


def _models(scene: _Scene, basis: F64) -> F64:
    terms = _terms(scene, basis)[: scene.n]
    return np.array([kernel_at(basis, t) for t in terms]).reshape(scene.n, *basis.shape[1:])


def _core_chi2(stamps: F64, usable: BoolArray, scene: _Scene, basis: F64, radius: float) -> F64:
    half = stamps.shape[1] // 2
    offsets = np.arange(-half, half + 1)
    core = (np.hypot(offsets[:, None], offsets[None, :]) <= radius) & usable
    noise = _noise_model(scene, _models(scene, basis), usable)
    return np.asarray((stamps**2 / noise * core).sum(axis=(1, 2)) / np.maximum(core.sum(axis=(1, 2)), 1))


def _survivors(chi2: F64, used: BoolArray) -> BoolArray:
    """Drop stars that fit much worse than the rest, at most a quarter of those left."""
    logs = np.log(np.maximum(chi2, 1e-3))
    middle = np.median(logs[used])
    limit = middle + max(4 * mad_sigma(logs[used]), 0.7)
    new = used & (logs < max(limit, np.quantile(logs[used], 0.75)))
    return new if new.sum() >= 3 else used


def _correct(basis: F64, scene: _Scene, stamps: F64, usable: BoolArray, used: BoolArray) -> F64:
    """Return the basis that fits model + moved-back residuals, normalised to unit sum everywhere."""
    index: IntArray = np.flatnonzero(used & (scene.flux[: scene.n] > 0))
    if index.size == 0:
        return basis
    models = _models(scene, basis)
    noise = _noise_model(scene, models, usable)
    flux = scene.flux[index, None, None]
    target = np.empty((index.size, *basis.shape[1:]))
    weight = np.empty_like(target)
    for k, s in enumerate(index):
        dy, dx = scene.y[s] - np.floor(scene.y[s] + 0.5), scene.x[s] - np.floor(scene.x[s] + 0.5)
        target[k] = models[s] + shift_kernel(stamps[s], -dy, -dx) / scene.flux[s]
        weight[k] = usable[s]
    weight *= flux**2 / noise[index]
    return _normalise(_solve(target, weight, _terms(scene, basis)[index], basis))


def _solve(target: F64, weight: F64, terms: F64, basis: F64) -> F64:
    """Solve each pixel's polynomial by ridge regression; the prior shrinks variation where the PSF is faint."""
    shape, count = basis.shape, terms.shape[1]
    w, t = weight.reshape(len(weight), -1), target.reshape(len(target), -1)
    normal = np.einsum("sp,sa,sb->pab", w, terms, terms, optimize=True)
    vector = np.einsum("sp,sp,sa->pa", w, t, terms, optimize=True)
    profile = _round_profile(np.einsum("sp,sp->p", w, t) / np.maximum(w.sum(axis=0), 1e-300), shape[1:])
    spread = np.full((t.shape[1], count), 0.0)
    spread[:, 0] = 0.5 * profile + 1e-7
    spread[:, 1:] = (0.15 * profile + 1e-7)[:, None]
    precision = 1 / spread**2
    normal[:, np.arange(count), np.arange(count)] += precision
    vector[:, 0] += precision[:, 0] * profile
    solution = np.linalg.solve(normal, vector[:, :, None])[:, :, 0]
    return np.ascontiguousarray(solution.T.reshape(shape))


def _round_profile(values: F64, shape: tuple[int, ...]) -> F64:
    """Return the azimuthal mean of `values` at each pixel, not below zero."""
    half = shape[0] // 2
    offsets = np.arange(-half, half + 1)
    ring = np.rint(np.hypot(offsets[:, None], offsets[None, :])).astype(int).ravel()
    mean = np.bincount(ring, values) / np.maximum(np.bincount(ring), 1)
    return np.asarray(np.maximum(mean, 0)[ring])


def _normalise(basis: F64) -> F64:
    """Take the pedestal off, scale term 0 to unit sum and the others to zero sum: every kernel sums to one."""
    basis = basis.copy()
    basis[0] -= _pedestal(basis[0])
    sums = basis.sum(axis=(1, 2))
    out = basis / sums[0]
    for k in range(1, len(basis)):
        out[k] -= sums[k] / sums[0] * out[0]
    return np.ascontiguousarray(out)


def _pedestal(kernel: F64, *, slope: float = 5.0) -> float:
    """Return the constant under a kernel whose wings fall as radius to the power -`slope`.

    A constant in the PSF cannot be told from the stars' local backgrounds; the outer profile decides.
    """
    half = kernel.shape[0] // 2
    offsets = np.arange(-half, half + 1)
    radius = np.hypot(offsets[:, None], offsets[None, :])
    inner = float(np.mean(kernel[np.abs(radius - 0.6 * half) < max(0.08 * half, 0.5)]))
    outer = float(np.mean(kernel[np.abs(radius - 0.95 * half) < max(0.08 * half, 0.5)]))
    fall = (0.95 / 0.6) ** -slope
    return (outer - fall * inner) / (1 - fall)


def _center(basis: F64, scene: _Scene, fwhm: float) -> F64:
    """Move the basis so that the central kernel's adaptive centroid is its middle pixel; the stars follow."""
    kernel = np.asarray(basis[0], np.float32)
    half = kernel.shape[0] // 2
    found = adaptive_moments(kernel, np.zeros(kernel.shape, bool), y=np.array([half]), x=np.array([half]),
                             sigma=fwhm / 2.355)[0]  # fmt: skip
    dy, dx = float(found["y"]) - half, float(found["x"]) - half
    if not (abs(dy) < 1 and abs(dx) < 1):
        return basis
    scene.y[: scene.n] += dy
    scene.x[: scene.n] += dx
    return _normalise(np.array([shift_kernel(part, -dy, -dx) for part in basis]))
