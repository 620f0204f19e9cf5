"""Kernel bases for PSF matching: Gaussians times polynomials, or delta functions.

Every basis conserves the kernel sum (Alard 2000): the first function sums to one, all others to zero, so
that the photometric ratio is the coefficient of the first function alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apstream.arrays.types import F64, FloatArray, IntArray

__all__ = [
    "Factors",
    "KernelBasis",
    "collapse",
    "delta_basis",
    "gaussian_basis",
    "matching_sigmas",
    "roughness",
]

_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One-dimensional functions whose products make a basis: basis = mix @ products.

    functions (n_functions, width); first and second (n_basis,) the functions in y and x of each product;
    groups are the runs of functions among which products are formed; mix (n_basis, n_basis).
    """

    functions: F64
    first: IntArray
    second: IntArray
    groups: tuple[tuple[int, int], ...]
    mix: F64


@dataclass(frozen=True, slots=True, eq=False)
class KernelBasis:
    """Basis functions of a kernel, (n_basis, h, w); `factors` where they are separable, for speed."""

    functions: F64
    factors: Factors | None = None

    @property
    def half(self) -> int:
        """Half-size of the kernels."""
        return int(self.functions.shape[1]) // 2

    def products(self, noise: FloatArray | None = None) -> F64:
        """Return the products of the functions, (n_basis, n_basis), through an autocorrelation of the noise.

        With coefficients c on both sides this is the variance after convolution of noise of unit variance.
        """
        from scipy import ndimage

        flat = self.functions.reshape(len(self.functions), -1)
        if noise is None:
            return np.asarray(flat @ flat.T)
        seen = np.stack([ndimage.correlate(f, noise, mode="constant") for f in self.functions])
        return np.asarray(flat @ seen.reshape(flat.shape).T)


def matching_sigmas(fwhm_target: float, fwhm_convolved: float, *, count: int = 4) -> tuple[float, ...]:
    """Choose the widths of the Gaussians (pixels) from the two PSF widths (FWHM, pixels).

    A geometric series around sqrt(target^2 - convolved^2), the width of the kernel between two Gaussians,
    from
    half of it (but narrow enough for the core of the PSF) to twice it (but wide enough for the wings).
    """
    sigma = np.sqrt(max(fwhm_target**2 - fwhm_convolved**2, 0.0)) / _FWHM
    first = max(float(np.clip(0.5 * sigma, 0.12 * fwhm_target, 0.3 * fwhm_target)), 0.4)
    last = max(fwhm_target, 2 * sigma, 2 * first)
    return tuple(float(v) for v in np.geomspace(first, last, count))


def gaussian_basis(sigmas: Sequence[float], degrees: Sequence[int], half: int) -> KernelBasis:
    """Make Gaussians times polynomials (Alard & Lupton 1998), kernel sum conserving.

    Parameters
    ----------
    sigmas
        Widths of the Gaussians, pixels.
    degrees
        Highest total degree of the polynomial that multiplies each Gaussian.
    half
        Half-size of the kernels; they have 2 half + 1 pixels on a side.

    Returns
    -------
    KernelBasis
        The first function sums to one, the others to zero.
    """
    u = np.arange(-half, half + 1).astype(float)
    window = np.sin(0.5 * np.pi * np.clip((half + 0.5 - np.abs(u)) / max(0.2 * half, 1.0), 0, 1)) ** 2
    rows: list[F64] = []
    groups, pairs = [], []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        start = len(rows)
        gauss = np.exp(-0.5 * u**2 / sigma**2) * window
        rows += [gauss * (u / sigma) ** power for power in range(degree + 1)]
        pairs += [(start + j, start + t - j) for t in range(degree + 1) for j in range(t + 1)]
        groups.append((start, len(rows)))
    functions, (first, second) = np.array(rows), np.array(pairs).T
    products = functions[first][:, :, None] * functions[second][:, None, :]
    mix = _conserving_mix(products)
    basis = np.tensordot(mix, products, axes=(1, 0))
    return KernelBasis(basis, Factors(functions, first, second, tuple(groups), mix))


def _conserving_mix(products: F64) -> F64:
    """Return the matrix that scales the first function to sum one and makes the others sum to zero."""
    scale = 1 / np.abs(products).sum(axis=(1, 2))
    scale[0] = 1 / products[0].sum()
    mix = np.diag(scale)
    mix[1:, 0] = -products.sum(axis=(1, 2))[1:] * scale[1:] * scale[0]
    return mix


def delta_basis(half: int) -> KernelBasis:
    """Make one function per pixel of the kernel (Bramich 2008), kernel sum conserving."""
    side = 2 * half + 1
    basis = np.eye(side * side).reshape(-1, side, side)
    centre = basis[side * side // 2].copy()
    others = np.delete(basis, side * side // 2, axis=0) - centre
    return KernelBasis(np.concatenate([centre[None], others]))


def roughness(basis: FloatArray) -> F64:
    """Return the penalty matrix of the summed squared Laplacian (Becker et al. 2012), (n_basis, n_basis)."""
    wide = np.pad(basis, ((0, 0), (1, 1), (1, 1)))
    padded = np.pad(wide, ((0, 0), (1, 1), (1, 1)))
    laplacian = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 4 * wide
    flat = laplacian.reshape(basis.shape[0], -1)
    return np.asarray(flat @ flat.T)


def collapse(basis: FloatArray, coefficients: FloatArray) -> F64:
    """Return the kernel as polynomial terms (n_spatial, h, w) from (n_basis, n_spatial) coefficients."""
    return np.asarray(np.tensordot(coefficients.T, basis, axes=(1, 0)))
