"""Fit of a spatially varying matching kernel to stamps around stars (Alard & Lupton 1998, Alard 2000).

The model of a stamp is sum over k of a_k(y, x) (basis_k * moving) + b(y, x), with a_k and b polynomials over
the image. Within one stamp the polynomials are constant, so each stamp needs one small normal matrix,
made once; every global solution, with any selection, weight or degree, only adds these up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.kernel import Factors, KernelBasis
from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.star_stamps import Stamps
from apstream.arrays.types import F32, F64, BoolArray, FloatArray

__all__ = ["KernelFit", "Normals", "basis_images", "fit_kernel", "product_images", "stamp_normals"]

_CHUNK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Normals:
    """Normal equations of every stamp, unweighted; the last unknown is the local background.

    Sums over the good pixels: matrix (n, m + 1, m + 1), vector (n, m + 1), square (n,), and pixels (n,), the
    number. noise (2, n) as in `Stamps`; light (n,) is the sum of the squared target flux; squared holds
    the products of the basis functions, so that c squared c is what a kernel does to the noise.
    """

    matrix: F64
    vector: F64
    square: F64
    pixels: F64
    noise: F64
    light: F64
    squared: F64

    def variance(self, local: F64) -> F64:
        """Return the mean pixel variance of each difference, given the coefficients at the stamps."""
        kernel = local[:, :-1]
        squares = np.einsum("ni,ij,nj->n", kernel, self.squared, kernel, optimize=True)
        return np.asarray(self.noise[0] + self.noise[1] * squares)


@dataclass(frozen=True, slots=True, eq=False)
class KernelFit:
    """A fitted kernel: coefficients (n_basis, n_spatial), background (n_background,), and how it fits.

    For every stamp: chi2 is the reduced chi-square without model error, excess the squared residual beyond
    the noise over the squared flux, amplitude the flux of its star over the model's (with its error), and
    used whether it is in the last fit.
    """

    coefficients: F64
    background: F64
    degree: int
    chi2: F64
    excess: F64
    amplitude: F64
    amplitude_error: F64
    used: BoolArray

    def residual_ratio(self) -> float:
        """Return the root-mean-square residual beyond the noise over the flux, of the brighter half."""
        precise = self.amplitude_error <= np.median(self.amplitude_error)
        return float(np.sqrt(max(np.median(self.excess[precise]), 0.0)))


def stamp_normals(stamps: Stamps, basis: KernelBasis, noise: FloatArray | None = None) -> Normals:
    """Convolve every stamp with every basis function and form its normal equations.

    `noise` is the autocorrelation of the moving image's noise, per unit of its variance; None means white.
    """
    parts = [_chunk_normals(stamps, basis, slice(i, i + _CHUNK)) for i in range(0, len(stamps), _CHUNK)]
    matrix, vector, square, pixels = (np.concatenate(column) for column in zip(*parts, strict=True))
    light = np.einsum("nij,nij->n", np.where(stamps.good, stamps.target, 0), stamps.target, dtype=float)
    return Normals(matrix, vector, square, pixels, stamps.noise, light, basis.products(noise))


def _chunk_normals(stamps: Stamps, basis: KernelBasis, part: slice) -> tuple[F64, F64, F64, F64]:
    from scipy import linalg

    side, factors = stamps.target.shape[1], basis.factors
    if factors is None:
        models, mix = basis_images(stamps.moving[part], basis.functions, side), np.eye(len(basis.functions))
    else:
        models, mix = product_images(stamps.moving[part], factors, side), factors.mix
    good = stamps.good[part].reshape(len(models), 1, -1)
    design = np.empty((len(models), models.shape[1] + 1, side * side))
    np.multiply(models.reshape(len(models), -1, side * side), good, out=design[:, :-1])
    design[:, -1:] = good
    data = np.where(good[:, 0], stamps.target[part].reshape(len(models), -1), 0).astype(float)
    total = linalg.block_diag(mix, 1.0)
    matrix = total @ (design @ design.transpose(0, 2, 1)) @ total.T
    vector = (design @ data[:, :, None])[:, :, 0] @ total.T
    return matrix, vector, np.einsum("np,np->n", data, data), good.sum(axis=(1, 2)).astype(float)


def basis_images(moving: F32, basis: FloatArray, side: int) -> F32:
    """Return (n, n_basis, side, side): the central part of every stamp convolved with every function."""
    from scipy import fft as sp_fft

    width = basis.shape[1]
    size = int(sp_fft.next_fast_len(moving.shape[1], real=True))
    spectra = sp_fft.rfft2(np.asarray(basis, np.float32), (size, size))
    product = sp_fft.rfft2(moving, (size, size))[:, None] * spectra
    full = sp_fft.irfft2(product, (size, size), overwrite_x=True)
    return np.asarray(full[:, :, width - 1 : width - 1 + side, width - 1 : width - 1 + side])


def product_images(moving: F32, factors: Factors, side: int) -> F32:
    """Do what `basis_images` does for the unmixed products of one-dimensional functions, by matmul."""
    n, wide = moving.shape[:2]
    lags = np.arange(side)[:, None] + (wide - side) - np.arange(wide)
    inside = (lags >= 0) & (lags < factors.functions.shape[1])
    taps = np.where(inside, factors.functions[:, np.where(inside, lags, 0)], 0).astype(np.float32)
    out = np.empty((n, len(factors.first), side, side), np.float32)
    for start, stop in factors.groups:
        count = stop - start
        group = taps[start:stop].reshape(count * side, wide)
        rows = (group @ moving).reshape(n, count * side, wide)
        both = (rows.reshape(-1, wide) @ group.T).reshape(n, count, side, count, side)
        for k in np.flatnonzero((factors.first >= start) & (factors.first < stop)):
            out[:, k] = both[:, factors.first[k] - start, :, factors.second[k] - start]
    return out


def fit_kernel(
    normals: Normals,
    y: FloatArray,
    x: FloatArray,
    *,
    degree: int | None = None,
    background_degree: int = 0,
    penalty: F64 | None = None,
    vary_sum: bool = False,
) -> KernelFit:
    """Fit the kernel to all stamps, rejecting stamps that do not fit.

    Parameters
    ----------
    normals
        Of the stamps.
    y, x : ndarray, shape (n,)
        Positions of the stamps on [-1, 1], the domain of the polynomials.
    degree
        Spatial degree of the kernel; None chooses 0 to 3 by two-fold cross-validation.
    background_degree
        Spatial degree of the differential background.
    penalty : ndarray, shape (n_basis, n_basis)
        Quadratic penalty on the coefficients (inverse prior variance); None means a weak ridge.
    vary_sum
        Whether the kernel sum varies over the image too.

    Returns
    -------
    KernelFit
    """
    problem = _Problem(normals, y, x, background_degree, penalty, vary_sum)
    weights = _weights(normals)
    used = np.ones(len(y), bool)
    first = 2 if degree is None else degree
    first = min(first, max(_allowed_degrees(len(y))))
    fit = problem.iterate(first, used, weights)
    if degree is None:
        best = _cross_validate(problem, fit.used, weights)
        fit = problem.iterate(best, fit.used, weights)
    return fit


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    normals: Normals
    y: FloatArray
    x: FloatArray
    background_degree: int
    penalty: F64 | None
    vary_sum: bool

    def iterate(self, degree: int, used: BoolArray, weights: F64, rounds: int = 4) -> KernelFit:
        """Solve, reject, and solve again; every stamp may come back."""
        fit = self.judge(degree, self.solve(degree, used, weights), used)
        for _ in range(rounds):
            accepted = _accept(fit)
            if np.array_equal(accepted, used) or accepted.sum() < 3:
                break
            used = accepted
            fit = self.judge(degree, self.solve(degree, used, weights), used)
        return fit

    def solve(self, degree: int, used: BoolArray, weights: F64) -> F64:
        """Return the solution, (n_basis + 1, n_spatial), background in the last row."""
        total = max(degree, self.background_degree)
        terms = poly_terms(self.y[used], self.x[used], total)
        unknown = self.unknowns(degree)
        w = weights[used]
        m = self.normals.matrix.shape[1]
        pairs = (terms[:, None] * terms[None, :] * w).reshape(-1, w.size)
        blocks = pairs @ self.normals.matrix[used].reshape(w.size, -1)
        nt = terms.shape[0]
        system = blocks.reshape(nt, nt, m, m).transpose(2, 0, 3, 1).reshape(m * nt, m * nt)
        right = ((terms * w) @ self.normals.vector[used]).T.reshape(-1)
        system = system + self.regularisation(nt, m)
        solution = np.zeros(m * nt)
        picked = np.flatnonzero(unknown.ravel())
        block = np.ix_(picked, picked)
        noise = self.noise_share(pairs, used)
        solution[picked] = _solve_symmetric(system[block], right[picked], noise[block])
        return solution.reshape(m, nt)

    def noise_share(self, pairs: F64, used: BoolArray) -> F64:
        """Return what the noise of the moving image adds to the normal matrix: a bias towards zero."""
        nt, m = int(np.sqrt(len(pairs))), self.normals.matrix.shape[1]
        squared = np.zeros((m, m))
        squared[:-1, :-1] = self.normals.squared
        weight = pairs @ (self.normals.noise[1] * self.normals.pixels)[used]
        return np.asarray(np.kron(squared, weight.reshape(nt, nt)))

    def unknowns(self, degree: int) -> BoolArray:
        """Return which (function, spatial term) pairs are fitted."""
        m = self.normals.matrix.shape[1]
        unknown = np.zeros((m, n_terms(max(degree, self.background_degree))), bool)
        unknown[:-1, : n_terms(degree)] = True
        unknown[0, (n_terms(degree) if self.vary_sum else 1) :] = False
        unknown[-1, : n_terms(self.background_degree)] = True
        return unknown

    def regularisation(self, nt: int, m: int) -> F64:
        full = np.zeros((m, m))
        if self.penalty is None:
            full[1:-1, 1:-1] = np.eye(m - 2)
        else:
            full[:-1, :-1] = self.penalty
        return np.asarray(np.kron(full, np.eye(nt)))

    def judge(self, degree: int, solution: F64, used: BoolArray) -> KernelFit:
        """Return the fit with the quality of every stamp, used or not."""
        local = self.local(solution)
        variance = self.normals.variance(local)
        square = _residual(self.normals, local)
        expected = variance * np.maximum(self.normals.pixels, 1)
        amplitude, error = _amplitude(self.normals, local, variance)
        return KernelFit(
            coefficients=solution[:-1, : n_terms(degree)],
            background=solution[-1, : n_terms(self.background_degree)],
            degree=degree,
            chi2=square / expected,
            excess=(square - expected) / np.maximum(self.normals.light, 1e-30),
            amplitude=amplitude,
            amplitude_error=error,
            used=used,
        )

    def local(self, solution: F64) -> F64:
        """Return the coefficients at every stamp, (n, m)."""
        degree = int((np.sqrt(8 * solution.shape[1] + 1) - 3) / 2 + 0.5)
        return np.asarray((solution @ poly_terms(self.y, self.x, degree)).T)


def _residual(normals: Normals, local: F64) -> F64:
    """Return the sum of the squared residuals of every stamp."""
    quadratic = np.einsum("ni,nij,nj->n", local, normals.matrix, local, optimize=True)
    return np.asarray(np.maximum(normals.square - 2 * np.einsum("ni,ni->n", local, normals.vector) + quadratic, 0))


def _amplitude(normals: Normals, local: F64, variance: F64) -> tuple[F64, F64]:
    """Return the flux of each star relative to the model's, background fixed, and its error."""
    kernel, background = local[:, :-1], local[:, -1]
    data = normals.vector[:, :-1] - normals.matrix[:, :-1, -1] * background[:, None]
    own = np.einsum("ni,nij,nj->n", kernel, normals.matrix[:, :-1, :-1], kernel, optimize=True)
    own = np.maximum(own, 1e-30)
    return np.einsum("ni,ni->n", kernel, data) / own, np.sqrt(variance / own)


def _weights(normals: Normals, *, model_error: float = 0.003, core: float = 40.0) -> F64:
    """Return 1 / variance of each stamp: noise, plus a model error, so that no bright star rules the fit."""
    return np.asarray(1 / (normals.noise.sum(axis=0) + model_error**2 * normals.light / core))


def _accept(fit: KernelFit, *, clip: float = 4.0) -> BoolArray:
    """Return the stamps whose chi-square and star flux agree with the others'."""
    quality = np.log(np.maximum(fit.chi2, 1e-6))
    centre = np.median(quality[fit.used])
    keep = quality < centre + clip * max(_spread(quality[fit.used]), 0.1)
    pull = (fit.amplitude - np.median(fit.amplitude[fit.used])) / np.hypot(fit.amplitude_error, 3e-3)
    return np.asarray(keep & (np.abs(pull) < clip * max(_spread(pull[fit.used]), 1.0)))


def _spread(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _allowed_degrees(stamps: int) -> list[int]:
    """Return the spatial degrees that this number of stamps can bear."""
    return [degree for degree, least in enumerate((0, 20, 60, 150)) if stamps >= least] or [0]


def _cross_validate(problem: _Problem, used: BoolArray, weights: F64) -> int:
    """Return the lowest spatial degree that none higher surpasses by a significant margin.

    Every stamp is predicted from the other half of the stamps; losses are compared stamp by stamp.
    """
    order = np.flatnonzero(used)
    folds = [np.isin(np.arange(len(used)), order[i::2]) for i in (0, 1)]
    best, least = 0, np.zeros(0)
    for degree in _allowed_degrees(len(order)):
        loss = np.zeros(len(used))
        for train, test in (folds, folds[::-1]):
            local = problem.local(problem.solve(degree, train, weights))
            loss[test] = (_residual(problem.normals, local) * weights)[test]
        loss = loss[order]
        if not len(least) or _is_less(loss, least):
            best, least = degree, loss
    return best


def _is_less(loss: F64, least: F64) -> bool:
    """Tell whether the mean difference, 5 % of outliers clipped, is negative by two standard errors."""
    low, high = np.percentile(loss - least, [2.5, 97.5])
    change = np.clip(loss - least, low, high)
    return bool(change.mean() < -2 * change.std() / np.sqrt(len(change)))


def _solve_symmetric(matrix: F64, right: F64, noise: F64, *, rounds: int = 5) -> F64:
    """Solve (matrix - noise) x = right by a few steps from matrix x = right.

    The steps undo the bias that noise in the design causes where the data speak, and stay stable where
    they do not.
    The system is scaled to a unit diagonal.
    """
    from scipy import linalg

    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * scale[:, None] * scale[None, :]
    scaled[np.diag_indices_from(scaled)] += 1e-11
    share, right = noise * scale[:, None] * scale[None, :], right * scale
    try:
        factor = linalg.cho_factor(scaled)
    except linalg.LinAlgError:
        return np.asarray(linalg.lstsq(scaled, right, cond=1e-10)[0] * scale)
    solution = linalg.cho_solve(factor, right)
    share /= max(1.0, _largest_ratio(factor, share, solution))
    for _ in range(rounds):
        solution = linalg.cho_solve(factor, right + share @ solution)
    return np.asarray(solution * scale)


def _largest_ratio(factor: tuple[F64, bool], share: F64, start: F64, *, rounds: int = 6) -> float:
    """Return the largest eigenvalue of share x = ratio matrix x, by power iteration.

    Above one, the noise would be more than all there is: its variance was overestimated, as it is in modes
    that resampling has smoothed.
    """
    from scipy import linalg

    ratio, x = 0.0, start
    for _ in range(rounds):
        y = share @ x
        size = float(np.linalg.norm(x))
        if size == 0 or not y.any():
            return ratio
        x = linalg.cho_solve(factor, y)
        ratio = float(np.linalg.norm(x)) / size
    return ratio
