"""Kernel bases for PSF matching: Gaussians times polynomials, or delta functions.

Every basis conserves the kernel sum (Alard 2000): the first function sums to one, all others to zero, so
that the photometric ratio is the coefficient of the first function alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apstream.arrays.types import F64, FloatArray

__all__ = ["collapse", "delta_basis", "effective_half", "gaussian_basis", "matching_sigmas", "roughness"]

_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def matching_sigmas(
    fwhm_target: float, fwhm_convolved: float, *, smallest: float = 0.7, ratio: float = 2.0
) -> tuple[float, float, float]:
    """Choose the widths of three Gaussians (pixels) from the two PSF widths (FWHM, pixels).

    A geometric series around sqrt(target^2 - convolved^2), the width of the kernel between two Gaussians,
    starting at half of it but not below `smallest` (Israel et al. 2007).
    """
    sigma = np.sqrt(max(fwhm_target**2 - fwhm_convolved**2, 0.0)) / _FWHM
    first = float(max(0.5 * sigma, smallest))
    return first, first * ratio, first * ratio**2


def gaussian_basis(sigmas: Sequence[float], degrees: Sequence[int], half: int) -> F64:
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
    ndarray, shape (n_basis, 2 half + 1, 2 half + 1), float64
        The first sums to one, the others to zero.
    """
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    window = _taper(np.hypot(y, x), half)
    functions = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        gauss = np.exp(-0.5 * (y**2 + x**2) / sigma**2) * window
        for total in range(degree + 1):
            for j in range(total + 1):
                functions.append(gauss * (x / sigma) ** (total - j) * (y / sigma) ** j)
    return _conserve_sum(np.array(functions))


def _taper(radius: F64, half: int) -> F64:
    """One inside, falling to zero over the last pixels, so that no kernel ends in a step."""
    edge = np.clip((half + 0.5 - radius) / max(0.2 * half, 1.0), 0, 1)
    return np.asarray(np.sin(0.5 * np.pi * edge) ** 2)


def _conserve_sum(functions: F64) -> F64:
    """Scale the first function to sum one and take its multiples from the others until they sum to zero."""
    basis = functions / np.abs(functions).sum(axis=(1, 2), keepdims=True)
    basis[0] /= basis[0].sum()
    basis[1:] -= basis[1:].sum(axis=(1, 2), keepdims=True) * basis[0]
    return np.asarray(basis)


def delta_basis(half: int) -> F64:
    """Make one function per pixel of the kernel (Bramich 2008), kernel sum conserving."""
    side = 2 * half + 1
    basis = np.eye(side * side).reshape(-1, side, side)
    centre = basis[side * side // 2].copy()
    others = np.delete(basis, side * side // 2, axis=0) - centre
    return np.concatenate([centre[None], others])


def roughness(basis: FloatArray) -> F64:
    """Return the penalty matrix of the summed squared Laplacian (Becker et al. 2012), (n_basis, n_basis)."""
    wide = np.pad(basis, ((0, 0), (1, 1), (1, 1)))
    padded = np.pad(wide, ((0, 0), (1, 1), (1, 1)))
    laplacian = (
        padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 4 * wide
    )
    flat = laplacian.reshape(basis.shape[0], -1)
    return np.asarray(flat @ flat.T)


def collapse(basis: FloatArray, coefficients: FloatArray) -> F64:
    """Return the kernel as polynomial terms (n_spatial, h, w) from (n_basis, n_spatial) coefficients."""
    return np.asarray(np.tensordot(coefficients.T, basis, axes=(1, 0)))


def effective_half(kernel: FloatArray, *, fraction: float = 0.99) -> int:
    """Return the half-size of the centred square that holds `fraction` of the absolute weight."""
    half = kernel.shape[0] // 2
    weight = np.abs(kernel)
    reach = 0
    while reach < half:
        inner = slice(half - reach, half + reach + 1)
        if weight[inner, inner].sum() >= fraction * weight.sum():
            break
        reach += 1
    return reach
