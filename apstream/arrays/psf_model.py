"""Solve for a PSF that is a pixel basis varying over the field as a polynomial.

The model is used forward: every star's data are compared with the PSF at its place, moved to its subpixel
position by `psf.shift_kernel`. What is left over is moved back and corrects the basis by weighted, regularised
least squares, pixel by pixel. At convergence the residuals of the stars vanish in the mean, so that the
smoothing of the shift operator does not enter the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.moments import FWHM_PER_SIGMA, adaptive_moments
from apstream.arrays.polynomial import degree_of, n_terms, poly_terms
from apstream.arrays.psf import add_stamps, fit_stamps, psf_stamps, shift_kernel
from apstream.arrays.psf_pca import vary_along_components
from apstream.arrays.psf_solve import normalise, rings, round_profile, solve
from apstream.arrays.sources import Shapes
from apstream.arrays.stars import degree_for
from apstream.arrays.stats import mad_sigma
from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = ["PsfForm", "PsfSolution", "fit_psf", "moffat_kernel"]

_BETA = 3.5  # wings of the first guess
_OUTLIER_SIGMA = 4.0
_VARIATION = (0.5, 0.5, 0.1)  # of the light: what a star may differ by from the model so far, by step
_SAMPLED = 2.0  # narrower stars, FWHM in pixels, differ by where in their pixel they lie, and none of them is strange
_SKIRT = 0.4  # of the fits' radius: how far from pixels that differ others are not trusted
_SLACK = (np.inf, 3.0, 0.7)  # in log chi2 above the median, before a star is left out, by step
_MODEL_ERROR, _MISFIT = 0.01, 0.03  # of the light: of the weights, and what a star may differ by
_STARS_PER_TERM = 2  # a PSF that does not vary errs by more than few stars' noise; the prior damps that
_FEWEST = 10  # stars of which a median tells anything


@dataclass(frozen=True, slots=True, eq=False)
class PsfSolution:
    """A PSF basis (n_terms, h, w) and what it says of the stars it was solved from."""

    basis: F64
    used: BoolArray  # (n,) survived rejection
    flux: F64  # (n,)
    y: F64  # (n,) refined
    x: F64
    chi2: F64  # (n,) per pixel, in the core


@dataclass(slots=True, eq=False)
class _Scene:
    """The stars of a fit and all sources that touch them; the first `n` are the PSF stars."""

    residual: F32  # the image less all sources as they are modelled now
    variance: F32
    n: int
    y: F64
    x: F64
    flux: F64
    cube: F32  # moved kernels, one per source
    noise: F64  # (n, 2) sky variance of the PSF stars, variance per unit of their light
    radius: float  # of the fits

    def terms(self, basis: F64) -> F64:
        """Return the polynomial terms at the sources, as many as `basis` has."""
        ny, nx = self.residual.shape
        ty, tx = (self.y - (ny - 1) / 2) / max(ny / 2, 1), (self.x - (nx - 1) / 2) / max(nx / 2, 1)
        return np.ascontiguousarray(poly_terms(ty, tx, degree_of(len(basis))).T)

    def add(self, flux: F64) -> None:
        """Add light to the residual."""
        add_stamps(self.residual, self.cube, self.y, self.x, flux)

    def model(self, basis: F64) -> None:
        """Make the cube of kernels from `basis`; the residual must hold no modelled light."""
        self.cube = psf_stamps(basis, self.terms(basis), y=self.y, x=self.x)


def moffat_kernel(fwhm: float, half: int, beta: float = _BETA) -> F64:
    """Return a round Moffat kernel of unit sum, integrated over pixels by 5 x 5 subsamples."""
    fine = (np.arange(5 * (2 * half + 1)) - 5 * half - 2) / 5
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    values = (1 + (fine[:, None] ** 2 + fine[None, :] ** 2) / alpha2) ** -beta
    side = 2 * half + 1
    kernel = values.reshape(side, 5, side, 5).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())


@dataclass(frozen=True, slots=True)
class PsfForm:
    """The form of a PSF model.

    Parameters
    ----------
    half
        The basis has side 2 half + 1.
    degree
        Highest polynomial degree; fewer stars than three a term lower it.
    iterations
        Corrections of the basis.
    deblend
        Whether the neighbours of the PSF stars are fitted and subtracted along.
    components
        Principal components whose coefficients vary over the field; 0 lets every pixel vary by itself.
    """

    half: int
    degree: int = 2
    iterations: int = 4
    deblend: bool = True
    components: int = 0


def fit_psf(image: F32, variance: F32, shapes: Shapes, chosen: BoolArray, form: PsfForm) -> PsfSolution:
    """Solve for the PSF.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted; variance not positive or NaN where a pixel must not be used.
    shapes
        All sources.
    chosen : ndarray, shape (n,), bool
        The PSF stars.

    Returns
    -------
    PsfSolution
        Arrays have one element per PSF star; the polynomial's domain is the whole array, as `Box.normalize` has it.
    """
    fwhm = float(np.median(shapes.sigma[chosen])) * FWHM_PER_SIGMA
    half = form.half
    basis = moffat_kernel(fwhm, half)[None]
    reach = 2.0 * half if form.deblend else 0.0
    scene = _scene(image, variance, shapes, chosen, radius=max(1.2 * fwhm, 2.5), reach=reach)
    scene.noise = _star_noise(scene, basis)
    used, chi2 = np.ones(scene.n, bool), np.ones(scene.n)
    for step in range(form.iterations):
        basis = _extend(basis, degree_for(int(used.sum()), form.degree if step else 0, per_term=_STARS_PER_TERM))
        _settle(scene, basis, rounds=3 if step == 0 else 1)
        stamps, usable = _stamps(scene, half)
        models = _models(scene, basis)
        noise = _noise_model(scene, models, _MODEL_ERROR)
        chi2 = _core_chi2(stamps, usable, _noise_model(scene, models, _MISFIT), 1.5 * fwhm)
        used = _survivors(chi2, slack=_SLACK[min(step, 2)])
        scene.add(scene.flux)
        variation = _VARIATION[min(step, 2) if fwhm > _SAMPLED else 0]
        basis = _correct(basis, scene, (stamps, usable, models, noise), used, form.components if step else 0, variation)
        basis = _center(basis, scene, fwhm)
    n = scene.n
    return PsfSolution(basis, used, scene.flux[:n], scene.y[:n], scene.x[:n], chi2)


def _scene(image: F32, variance: F32, shapes: Shapes, chosen: BoolArray, *, radius: float, reach: float) -> _Scene:
    """Gather the PSF stars and the sources within `reach` of them."""
    from scipy.spatial import cKDTree

    index = np.flatnonzero(chosen)
    others = np.flatnonzero(~chosen)
    if others.size:
        tree = cKDTree(np.column_stack([shapes.y[index], shapes.x[index]]))
        distance, _ = tree.query(np.column_stack([shapes.y[others], shapes.x[others]]), distance_upper_bound=reach)
        others = others[np.isfinite(distance)]
    every = np.concatenate([index, others])
    return _Scene(
        residual=image.copy(),
        variance=variance,
        n=len(index),
        y=shapes.y[every].copy(),
        x=shapes.x[every].copy(),
        flux=np.maximum(shapes.light()[every], 0.0),
        cube=np.zeros((0, 1, 1), np.float32),
        noise=np.zeros((0, 2)),
        radius=radius,
    )


def _extend(basis: F64, degree: int) -> F64:
    """Return `basis` with as many terms as `degree` has; new ones are zero."""
    out = np.zeros((n_terms(degree), *basis.shape[1:]))
    count = min(len(out), len(basis))
    out[:count] = basis[:count]
    return out


def _settle(scene: _Scene, basis: F64, *, rounds: int) -> None:
    """Subtract all sources with `basis`; refine fluxes, and the places of the PSF stars, on what is left."""
    scene.model(basis)
    scene.add(-scene.flux)
    for _ in range(rounds):
        fit = fit_stamps(scene.residual, scene.variance, scene.cube, y=scene.y, x=scene.x, radius=scene.radius)
        # Neighbours share light: take part of the correction, and never let a flux turn negative.
        change = np.maximum(0.8 * np.nan_to_num(fit["flux"]), -scene.flux)
        scene.add(-change)
        scene.flux = scene.flux + change
    _refine_places(scene, basis)


def _refine_places(scene: _Scene, basis: F64) -> None:
    """Take one Gauss-Newton step of the PSF stars' positions on the residual, and subtract them anew."""
    n = scene.n
    fit = fit_stamps(scene.residual, scene.variance, scene.cube[:n], y=scene.y[:n], x=scene.x[:n], radius=scene.radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        dy, dx = (
            np.clip(np.nan_to_num(fit[c] / scene.flux[:n], posinf=0, neginf=0), -0.3, 0.3) for c in ("fdy", "fdx")
        )
    y, x, flux = scene.y[:n], scene.x[:n], scene.flux[:n]
    add_stamps(scene.residual, scene.cube[:n], y, x, flux)
    y += dy
    x += dx
    scene.cube[:n] = psf_stamps(basis, scene.terms(basis)[:n], y=y, x=x)
    add_stamps(scene.residual, scene.cube[:n], y, x, -flux)


def _cut(image: F32, y: F64, x: F64, half: int) -> F64:
    """Return stamps (n, side, side) of `image`; NaN off the image."""
    ny, nx = image.shape
    offsets = np.arange(-half, half + 1)
    rows = np.floor(y + 0.5).astype(int)[:, None, None] + offsets[:, None]
    cols = np.floor(x + 0.5).astype(int)[:, None, None] + offsets[None, :]
    inside = (rows >= 0) & (rows < ny) & (cols >= 0) & (cols < nx)
    return np.where(inside, image[np.clip(rows, 0, ny - 1), np.clip(cols, 0, nx - 1)], np.nan).astype(np.float64)


def _stamps(scene: _Scene, half: int) -> tuple[F64, BoolArray]:
    """Cut residual stamps of the PSF stars, less their outer median; second, which pixels may be used."""
    n = scene.n
    stamps = _cut(scene.residual, scene.y[:n], scene.x[:n], half)
    usable = np.isfinite(stamps) & (_cut(scene.variance, scene.y[:n], scene.x[:n], half) > 0)
    ring = rings(half) > 0.85 * half
    outer = np.where(usable & ring, stamps, np.nan)[:, ring]
    enough = np.isfinite(outer).sum(axis=1) > 10
    level = np.zeros(n)
    level[enough] = np.nanmedian(outer[enough], axis=1)
    return np.where(usable, stamps - level[:, None, None], 0.0), usable


def _star_noise(scene: _Scene, basis: F64) -> F64:
    """Return for each PSF star the variance of its sky, and the variance that comes with a unit of its light."""
    n, half = scene.n, basis.shape[1] // 2
    variance = _cut(scene.variance, scene.y[:n], scene.x[:n], half)
    variance[~(variance > 0)] = np.nan
    lost = ~np.isfinite(variance).any(axis=(1, 2))
    variance[lost] = 1.0
    sky = np.nanpercentile(variance.reshape(n, -1), 30, axis=1)
    core = np.where(rings(half) < 1.5, variance, np.nan)
    core[~np.isfinite(core).any(axis=(1, 2)), half, half] = 0.0
    top = np.nanmean(core.reshape(n, -1), axis=1)
    peak = scene.flux[:n] * basis[0][rings(half) < 1.5].mean()
    share = np.maximum(top - sky, 0) / np.maximum(peak, 1e-30)
    return np.column_stack([sky, np.where(peak > 0, share, 0.0)])


def _noise_model(scene: _Scene, models: F64, model_error: float) -> F64:
    """Return a smooth variance of the stars' pixels: sky, the share of the light, and the model's relative error."""
    light = np.maximum(scene.flux[: scene.n, None, None] * models, 0)
    sky, share = scene.noise[:, 0, None, None], scene.noise[:, 1, None, None]
    return np.asarray(sky + share * light + (model_error * light) ** 2)


def _models(scene: _Scene, basis: F64) -> F64:
    """Return the centred kernels of the PSF stars."""
    return np.asarray(np.einsum("st,tij->sij", scene.terms(basis)[: scene.n], basis))


def _core_chi2(stamps: F64, usable: BoolArray, noise: F64, radius: float) -> F64:
    core = (rings(stamps.shape[1] // 2) <= radius) & usable
    return np.asarray((stamps**2 / noise * core).sum(axis=(1, 2)) / np.maximum(core.sum(axis=(1, 2)), 1))


def _survivors(chi2: F64, *, slack: float) -> BoolArray:
    """Tell which stars do not fit much worse than the rest, three quarters of them at least.

    All are asked again each time: what a constant PSF does not fit may be a good star at the field's edge.
    """
    logs = np.log(np.maximum(chi2, 1e-3))
    limit = np.median(logs) + max(4 * mad_sigma(logs), slack)
    used = np.asarray(logs <= max(limit, np.quantile(logs, 0.75)))
    return used if used.sum() >= 3 else np.ones(len(chi2), bool)


def _correct(
    basis: F64,
    scene: _Scene,
    parts: tuple[F64, BoolArray, F64, F64],
    used: BoolArray,
    components: int,
    variation: float,
) -> F64:
    """Return the basis that fits models + moved-back residuals; `parts`: stamps, usable, models, noise."""
    from scipy.ndimage import maximum_filter

    index: IntArray = np.flatnonzero(used & (scene.flux[: scene.n] > 0))
    if index.size == 0:
        return basis
    stamps, models, noise = (part[index] for part in (parts[0], parts[2], parts[3]))
    usable: BoolArray = parts[1][index]
    flux = scene.flux[index, None, None]
    dy, dx = (v - np.floor(v + 0.5) for v in (scene.y[index], scene.x[index]))
    back = np.array([shift_kernel(stamp, -a, -b) for stamp, a, b in zip(stamps, dy, dx, strict=True)])
    slack = np.sqrt(noise) / flux, variation * maximum_filter(np.abs(models), (1, 3, 3))
    weight = (usable & _agreeing(back / flux, usable, slack, round(_SKIRT * scene.radius))) * flux**2 / noise
    target, terms = models + back / flux, scene.terms(basis)[index]
    profile = round_profile(target, weight)
    if components and len(basis) > 1 and len(index) > 2 * components:
        mean = solve(target, weight, terms[:, :1], profile)[0]
        spread = 0.15 * profile + 1e-7
        return normalise(vary_along_components(mean, target, weight, terms, spread=spread, count=components))
    return normalise(solve(target, weight, terms, profile))


def _agreeing(excess: F64, usable: BoolArray, slack: tuple[F64, F64], skirt: int) -> BoolArray:
    """Tell where the stars' residuals, in units of their flux, are like those of the other stars at that pixel.

    A neighbour that is not modelled (too near, no point source, saturated) would be printed into the PSF: a bright
    star counts for more than many others. Its faint outskirts are left out with it, `skirt` pixels each way. At any
    pixel three quarters of the stars are taken to be alike, however much they differ, and half of them are kept.
    `slack`: standard errors, and what the PSF may still change by.
    """
    from scipy.ndimage import maximum_filter

    if len(excess) < _FEWEST:
        return np.ones(excess.shape, bool)
    middle = np.nanmedian(np.where(usable | ~usable.any(axis=0), excess, np.nan), axis=0)
    offset = np.where(usable, np.abs(excess - middle) / (_OUTLIER_SIGMA * slack[0] + slack[1]), 0.0)
    strange = offset > np.maximum(np.quantile(offset, 0.75, axis=0), 1.0)
    side = 2 * skirt + 1
    kept = usable & (maximum_filter(strange.view(np.uint8), (1, side, side)) == 0)
    return np.asarray(np.where(2 * kept.sum(axis=0) >= usable.sum(axis=0), kept, ~strange))


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
    return normalise(np.array([shift_kernel(part, -dy, -dx) for part in basis]))
