"""Kernels that turn one known point-spread function into another."""

from __future__ import annotations

import numpy as np

from apstream.arrays.psf_warp import warp_kernel
from apstream.arrays.spline import interpolated
from apstream.arrays.types import F64

__all__ = ["broadened", "half_maximum_width", "matching_kernel", "round_profile"]

_ANGLES = 24
#: Points per pixel at which a spline is looked at, with straight lines between them.
_STEPS = 64
#: Error of a Gaussian's sigma, pixels.
_SIGMA_ERROR = 1e-4


def round_profile(kernel: F64, scale: float, half: int) -> F64:
    """Return a kernel averaged over all angles, on pixels `scale` times as large; it sums to one.

    Parameters
    ----------
    kernel : ndarray, shape (h, w), odd sides
    half
        Half the side of the result, (2 half + 1) squared.
    """
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    turns = [scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    mean = np.mean([warp_kernel(kernel, turn, half) for turn in turns], axis=0)
    return np.asarray(mean / mean.sum())


def half_maximum_width(kernel: F64) -> float:
    """Return the FWHM in pixels of a round kernel, on the cubic spline through its middle row."""
    middle, row = kernel.shape[1] // 2, kernel[kernel.shape[0] // 2]
    below = np.flatnonzero(row[middle:] < row[middle] / 2)
    if not below.size:
        return float(2 * (len(row) - middle))
    radius = below[0] - 1 + np.arange(_STEPS + 1) / _STEPS
    profile = interpolated(row, (middle + radius)[None]) / row[middle]
    last = int(np.argmax(np.append(profile[1:-1] < 0.5, True)))
    share = (profile[last] - 0.5) / (profile[last] - profile[last + 1])
    return 2 * float(radius[last] + share / _STEPS)


def broadened(kernel: F64, fwhm: float) -> F64:
    """Return a round kernel convolved with the Gaussian that makes it `fwhm` pixels wide; it sums to one.

    A kernel that is as wide already is returned as it is. The sides must hold the result.
    """
    if half_maximum_width(kernel) >= fwhm:
        return np.asarray(kernel / kernel.sum())
    low, high = 0.0, fwhm / 2
    while high - low > _SIGMA_ERROR:
        sigma = (low + high) / 2
        low, high = (sigma, high) if half_maximum_width(_blurred(kernel, sigma)) < fwhm else (low, sigma)
    return _blurred(kernel, (low + high) / 2)


def _blurred(kernel: F64, sigma: float) -> F64:
    size = tuple(2 * side for side in kernel.shape)
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    gauss = np.exp(-2 * np.pi**2 * sigma**2 * (fy**2 + fx**2))
    out = np.fft.irfft2(np.fft.rfft2(kernel, size) * gauss, size)[: kernel.shape[0], : kernel.shape[1]]
    return np.asarray(out / out.sum())


def matching_kernel(source: F64, target: F64, half: int, *, floor: float = 1e-5) -> F64:
    """Return the kernel K with source * K = target in the regularised least-squares sense.

    Parameters
    ----------
    source, target : ndarray, odd sides
        Centred on their middle pixels, summing to one.
    half
        Half the side of K; the two outer pixels are tapered.
    floor
        Spatial frequencies whose power in `source` is below this are not amplified.

    Returns
    -------
    ndarray, shape (2 half + 1, 2 half + 1)
        Sums to one.
    """
    n = -(-(max(*source.shape, *target.shape) + 2 * half) // 16) * 16  # a length that is fast to transform
    p, t = (_spectrum(kernel, n) for kernel in (source, target))
    full = np.fft.irfft2(np.conj(p) * t / (np.abs(p) ** 2 + floor), (n, n))
    kernel = np.roll(full, (half, half), axis=(0, 1))[: 2 * half + 1, : 2 * half + 1]
    edge = np.clip((half + 1 - np.abs(np.arange(-half, half + 1))) / 3, 0, 1)
    kernel = kernel * edge[:, None] * edge[None, :]
    return np.asarray(kernel / kernel.sum())


def _spectrum(kernel: F64, n: int) -> F64:
    padded = np.zeros((n, n))
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.asarray(np.fft.rfft2(np.roll(padded, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), axis=(0, 1))))
