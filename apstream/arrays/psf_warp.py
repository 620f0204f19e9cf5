"""Point-spread functions seen on another pixel grid."""

from __future__ import annotations

import numpy as np

from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.spline import interpolated
from apstream.arrays.types import F64, FloatArray
from apstream.arrays.warp import PixelMap

__all__ = ["fit_kernel_field", "local_matrix", "warp_kernel"]


def local_matrix(pixel_map: PixelMap, y: float, x: float, step: float = 8.0) -> F64:
    """Return d(source)/d(target) of a pixel map at a position, shape (2, 2), (y, x) order."""
    ys = np.array([y + step, y - step, y, y])
    xs = np.array([x, x, x + step, x - step])
    sy, sx = pixel_map(ys, xs)
    return np.array([[sy[0] - sy[1], sy[2] - sy[3]], [sx[0] - sx[1], sx[2] - sx[3]]]) / (2 * step)


def warp_kernel(kernel: F64, matrix: F64, half: int) -> F64:
    """Return a centred kernel on a grid of which one pixel is `matrix` source pixels.

    Parameters
    ----------
    kernel : ndarray, shape (h, w), odd sides
        Centred on its middle pixel.
    matrix : ndarray, shape (2, 2)
        d(source)/d(target), (y, x) order.
    half
        Half the side of the result, (2 half + 1) squared.

    Returns
    -------
    ndarray
        Cubic-spline interpolated, summing to one.
    """
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    source = np.tensordot(matrix, np.stack([y, x]).astype(float), axes=(1, 0))
    center = (np.array(kernel.shape) - 1) / 2
    out = interpolated(kernel, source + center[:, None, None])
    return np.asarray(out / out.sum())


def fit_kernel_field(kernels: F64, y: FloatArray, x: FloatArray, degree: int) -> F64:
    """Fit every pixel of the kernels with a polynomial in normalised positions; lowers the degree if it must.

    Returns
    -------
    ndarray, shape (n_terms, h, w)
        Basis in the order of `poly_terms`; the constant term sums to one.
    """
    while degree > 0 and len(kernels) < n_terms(degree):
        degree -= 1
    terms = poly_terms(y, x, degree)
    flat = kernels.reshape(len(kernels), -1)
    solution, *_ = np.linalg.lstsq(terms.T, flat, rcond=None)
    return np.asarray(solution.reshape(-1, *kernels.shape[1:]))
