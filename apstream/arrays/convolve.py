"""Convolution with a kernel that varies over the image, by overlapping tiled FFTs.

A varying kernel is everywhere the same array: ``terms[t]`` of shape (n_terms, h, w), so that
K(y, x) = sum over t of T_t(y, x) terms[t], T the polynomial terms of `apstream.arrays.polynomial` on
[-1, 1] over the image. Within one tile the polynomial is replaced by its least-squares approximation of
the lowest degree that stays within a tolerance, so neighbouring tiles agree at their common border.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.polynomial import degree_of, poly_terms
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray

__all__ = [
    "blur_variance",
    "convolve_stack",
    "convolve_varying",
    "convolve_varying_direct",
    "convolve_varying_variance",
    "dilate_bits",
    "fill_masked",
    "footprint",
    "frame_coordinates",
    "kernel_at",
    "polynomial_image",
    "squared_sum",
    "sum_image",
]

_TILE = 256


def frame_coordinates(
    y: FloatArray | IntArray | float, x: FloatArray | IntArray | float, shape: tuple[int, int]
) -> tuple[F64, F64]:
    """Map pixel positions of an array of `shape` to [-1, 1], the domain of the kernel polynomials."""
    ny, nx = shape
    return (
        (np.asarray(y, float) - (ny - 1) / 2) / max(ny / 2, 1),
        (np.asarray(x, float) - (nx - 1) / 2) / max(nx / 2, 1),
    )


def kernel_at(terms: FloatArray, y: FloatArray, x: FloatArray, shape: tuple[int, int]) -> F64:
    """Evaluate a varying kernel at positions: shape (n, h, w)."""
    t = poly_terms(*frame_coordinates(y, x, shape), degree_of(terms.shape[0]))
    return np.asarray(np.tensordot(t.T, terms, axes=(1, 0)))


def polynomial_image(coefficients: FloatArray, shape: tuple[int, int]) -> F32:
    """Evaluate a 2-D polynomial, terms as in `poly_terms`, on every pixel of an image of `shape`."""
    degree = degree_of(len(coefficients))
    table = np.zeros((degree + 1, degree + 1))
    pairs = [(j, total - j) for total in range(degree + 1) for j in range(total + 1)]
    for (j, i), value in zip(pairs, coefficients, strict=True):
        table[j, i] = value
    y, x = frame_coordinates(np.arange(shape[0]), np.arange(shape[1]), shape)
    rows = np.vander(y, degree + 1, increasing=True) @ table
    columns = np.vander(x, degree + 1, increasing=True).T
    return np.asarray(rows.astype(np.float32) @ columns.astype(np.float32))


def convolve_varying(image: F32, terms: FloatArray, *, tolerance: float = 3e-4) -> F32:
    """Convolve an image with a spatially varying kernel; zeros are assumed outside.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Finite everywhere (see `fill_masked`).
    terms : ndarray, shape (n_terms, h, w)
        Polynomial terms of the kernel; h and w odd. One term is a constant kernel.
    tolerance
        Largest relative error of the kernel (sum of absolute values) made by the approximation in a tile.

    Returns
    -------
    ndarray, shape (ny, nx), float32
        out[p] = sum over u of K(p; u) image[p - u], K taken at the output pixel p.

    Notes
    -----
    `convolve_varying_direct` is the plain equivalent.
    """
    steps, size = _tile_layout(image.shape, terms.shape)
    local, degree = _local_weights(image.shape, terms, steps, tolerance)
    spectra = _spectra(terms, size)
    shapes = _local_shapes(steps, degree)
    top, left = terms.shape[1] // 2, terms.shape[2] // 2
    out = np.empty(image.shape, np.float32)
    tile = np.empty(size, np.float32)
    for row, column in np.ndindex(local.shape[:2]):
        y0, x0 = row * steps[0], column * steps[1]
        _copy_window(image, tile, y0 - top, x0 - left)
        parts = _convolve_tile(tile, spectra, local[row, column])
        target = out[y0 : y0 + steps[0], x0 : x0 + steps[1]]
        height, width = target.shape
        parts = parts[:, top : top + height, left : left + width]
        target[...] = parts[0]
        for part, shape in zip(parts[1:], shapes[1:], strict=True):
            part *= shape[:height, :width]
            target += part
    return out


def _fft() -> Any:
    """Return scipy's transforms, which take long to import."""
    from scipy import fft

    return fft


def _tile_layout(shape: tuple[int, ...], terms: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the output pixels per tile and the transform size, (y, x) each."""
    steps, sizes = [], []
    for n, width in zip(shape, terms[1:], strict=True):
        valid = max(_TILE - width + 1, width)
        steps.append(-(-n // -(-n // valid)))
        wide = steps[-1] + width - 1
        sizes.append(_TILE if 3 * _TILE // 4 < wide <= _TILE else int(_fft().next_fast_len(wide, real=True)))
    return (steps[0], steps[1]), (sizes[0], sizes[1])


def _spectra(terms: FloatArray, size: tuple[int, int]) -> NDArray[np.complex64]:
    padded = np.zeros((terms.shape[0], *size), np.float32)
    padded[:, : terms.shape[1], : terms.shape[2]] = terms
    padded = np.roll(padded, (-(terms.shape[1] // 2), -(terms.shape[2] // 2)), axis=(1, 2))
    return np.asarray(_fft().rfft2(padded))


def _local_weights(
    shape: tuple[int, ...], terms: FloatArray, steps: tuple[int, int], tolerance: float
) -> tuple[F32, int]:
    """Return (rows, columns, local terms, terms) weights of the polynomial in each tile, and its degree."""
    full = degree_of(terms.shape[0])
    frame = (shape[0], shape[1])
    ny, nx = -(-frame[0] // steps[0]), -(-frame[1] // steps[1])
    nodes = np.linspace(-1, 1, 7)
    dy, dx = (v.ravel() for v in np.meshgrid(nodes, nodes, indexing="ij"))
    cy, cx = (np.arange(n) * s + (s - 1) / 2 for n, s in zip((ny, nx), steps, strict=True))
    py = cy[:, None, None] + dy * steps[0] / 2
    px = cx[None, :, None] + dx * steps[1] / 2
    exact = poly_terms(*frame_coordinates(py, px, frame), full)
    size = np.abs(terms).sum(axis=(1, 2))
    for degree in range(full + 1):
        basis = poly_terms(dy, dx, degree)
        weights = np.einsum("lp,trcp->rclt", np.linalg.pinv(basis.T), exact)
        error = np.abs(np.einsum("rclt,lp->trcp", weights, basis) - exact).max(axis=(1, 2, 3)) @ size
        if error <= tolerance * max(size[0], 1e-30):
            break
    return weights.astype(np.float32), degree


def _local_shapes(steps: tuple[int, int], degree: int) -> F32:
    """Return the polynomial terms on the pixels of a tile."""
    y, x = (np.linspace(-1, 1, n + 1)[:-1] + 1 / n for n in steps)
    return poly_terms(y[:, None], x[None, :], degree).astype(np.float32)


def _convolve_tile(tile: F32, spectra: NDArray[np.complex64], weights: F32) -> F32:
    """Convolve one tile with its local kernels, circularly: (local terms, *tile.shape)."""
    flat = spectra.reshape(spectra.shape[0], -1).view(np.float32)
    kernels = (weights @ flat).view(np.complex64).reshape(-1, *spectra.shape[1:])
    kernels *= _fft().rfft2(tile)
    return np.asarray(_fft().irfft2(kernels, s=tile.shape, overwrite_x=True))


def _copy_window(image: F32, window: F32, y0: int, x0: int) -> None:
    """Fill `window` with the part of `image` that starts at (y0, x0), zeros outside."""
    window.fill(0)
    ya, xa = max(y0, 0), max(x0, 0)
    yb, xb = min(y0 + window.shape[0], image.shape[0]), min(x0 + window.shape[1], image.shape[1])
    if yb > ya and xb > xa:
        window[ya - y0 : yb - y0, xa - x0 : xb - x0] = image[ya:yb, xa:xb]


def convolve_varying_direct(image: FloatArray, terms: FloatArray) -> F64:
    """Do what `convolve_varying` does, term by term over the whole image: exact and slow."""
    from scipy.signal import fftconvolve  # a second to import, and for comparisons only

    ny, nx = image.shape
    y, x = frame_coordinates(np.arange(ny)[:, None], np.arange(nx)[None, :], (ny, nx))
    shapes = poly_terms(y, x, degree_of(terms.shape[0]))
    parts = [s * fftconvolve(image.astype(float), k, mode="same") for s, k in zip(shapes, terms, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def convolve_varying_variance(variance: F32, terms: FloatArray) -> F32:
    """Convolve a variance plane with the square of a varying kernel.

    Exact where the variance is flat; at stars smooth to 2 pixels (see `blur_variance`).
    """
    return blur_variance(variance, terms) * squared_sum(terms, (variance.shape[0], variance.shape[1]))


def blur_variance(variance: F32, terms: FloatArray) -> F32:
    """Smooth a variance plane with the squared central kernel, scaled to sum one, at half resolution."""
    centre = np.square(np.asarray(terms[0], float))
    typical = np.float32(np.median(variance[::8, ::8]))
    small = _bin2(variance) - typical  # zero is what the convolution finds outside
    smooth = convolve_varying(small, _bin_kernel(centre / centre.sum())[None])
    return _unbin2(smooth + typical, (variance.shape[0], variance.shape[1]))


def sum_image(terms: FloatArray, shape: tuple[int, int]) -> F32:
    """Return the map of the kernel sum over an image of `shape`, or (1, 1) where the sum does not vary."""
    sums = np.asarray(terms).sum(axis=(1, 2))
    if np.abs(sums[1:]).sum() < 1e-6 * abs(sums[0]):
        return np.full((1, 1), sums[0], np.float32)
    return polynomial_image(sums, shape)


def squared_sum(terms: FloatArray, shape: tuple[int, int]) -> F32:
    """Return the map of sum(K^2) over an image of `shape`."""
    y = np.linspace(0, shape[0] - 1, 17)
    x = np.linspace(0, shape[1] - 1, 17)
    gy, gx = (v.ravel() for v in np.meshgrid(y, x, indexing="ij"))
    coarse = (np.square(kernel_at(terms, gy, gx, shape))).sum(axis=(1, 2)).reshape(17, 17)
    return _resize(coarse.astype(np.float32), shape)


def _resize(coarse: F32, shape: tuple[int, int]) -> F32:
    """Interpolate linearly between nodes that span the image from edge to edge."""
    nodes = coarse.shape[0]
    wy, wx = (_hat_weights(nodes, n) for n in shape)
    return np.asarray(wy @ coarse @ wx.T, np.float32)


def _hat_weights(nodes: int, n: int) -> F32:
    position = np.linspace(0, nodes - 1, n)
    return np.asarray(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(nodes))), np.float32)


def _bin2(image: F32) -> F32:
    even = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2)), mode="edge")
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4, np.float32)


def _bin_kernel(kernel: F64) -> F64:
    """Bin a centred kernel to pixels twice as large, centred again."""
    from scipy.ndimage import convolve  # which takes long to import

    h, w = (s // 2 for s in kernel.shape)
    fine = np.pad(kernel, ((h % 2, h % 2), (w % 2, w % 2)))
    spread = convolve(np.pad(fine, 2), np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]) * 4)
    binned = spread[::2, ::2]
    return np.asarray(binned / binned.sum())


def _unbin2(small: F32, shape: tuple[int, int]) -> F32:
    out = np.empty(shape, np.float32)
    for j, i in np.ndindex(2, 2):
        part = out[j::2, i::2]
        part[...] = small[: part.shape[0], : part.shape[1]]
    return out


def convolve_stack(stack: FloatArray, kernels: FloatArray) -> F64:
    """Convolve each (h, w) of `stack` with its own kernel, full size: (n, h + kh - 1, w + kw - 1)."""
    shape = tuple(a + b - 1 for a, b in zip(stack.shape[1:], kernels.shape[1:], strict=True))
    size = tuple(int(_fft().next_fast_len(n, real=True)) for n in shape)
    product = _fft().rfft2(stack, size) * _fft().rfft2(kernels, size)
    return np.asarray(_fft().irfft2(product, size)[:, : shape[0], : shape[1]])


def fill_masked(image: F32, bad: BoolArray, *, radius: int = 4, default: float = 0.0) -> F32:
    """Return a copy in which bad and non-finite pixels hold the mean of the good pixels around.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
    bad : ndarray, shape (ny, nx), bool
        True means bad.
    radius
        The window grows from 1 to this half-width until it holds a good pixel; else `default` is written.

    Returns
    -------
    ndarray, shape (ny, nx), float32
        Finite everywhere.
    """
    out = np.array(image, np.float32)
    holes = bad | ~np.isfinite(image)
    y, x = np.nonzero(holes)
    _fill(image, out, holes, y, x, radius, np.float32(default))
    return out


@njit(cache=True, nogil=True)
def _fill(image: F32, out: F32, bad: BoolArray, ys: IntArray, xs: IntArray, radius: int, default: np.float32) -> None:
    ny, nx = image.shape
    lost = False  # nothing good near the pixel to the left: then only a new column may hold any
    for i in range(ys.size):
        if lost and ys[i] == ys[i - 1] and xs[i] == xs[i - 1] + 1:
            lost = not _any_good(bad, ys[i], xs[i] + radius, radius)
            if lost:
                out[ys[i], xs[i]] = default
                continue
        value, lost = default, True
        for r in range(1, radius + 1):
            total, count = 0.0, 0
            for y in range(max(ys[i] - r, 0), min(ys[i] + r + 1, ny)):
                for x in range(max(xs[i] - r, 0), min(xs[i] + r + 1, nx)):
                    if not bad[y, x]:
                        total += image[y, x]
                        count += 1
            if count > 0:
                value, lost = np.float32(total / count), False
                break
        out[ys[i], xs[i]] = value


@njit(cache=True, nogil=True)
def _any_good(bad: BoolArray, y: int, x: int, reach: int) -> bool:
    ny, nx = bad.shape
    found = False
    if x < nx:
        for i in range(max(y - reach, 0), min(y + reach + 1, ny)):
            found |= not bad[i, x]
    return found


def footprint(kernel: FloatArray, *, fraction: float = 0.01) -> BoolArray:
    """Return where a kernel exceeds `fraction` of its largest absolute weight, in a tight odd box."""
    heavy = np.abs(kernel) > fraction * np.abs(kernel).max()
    centre = np.array(kernel.shape) // 2
    reach = np.abs(np.argwhere(heavy) - centre).max(axis=0)
    rows, columns = (slice(c - r, c + r + 1) for c, r in zip(centre, reach, strict=True))
    return np.asarray(heavy[rows, columns])


def dilate_bits(mask: IntArray, bits: int, shape: BoolArray) -> IntArray:
    """Return a copy of `mask` in which each of `bits` is spread over the footprint `shape` (odd sides)."""
    out = np.array(mask, np.int32)
    y, x = np.nonzero((mask & bits) != 0)
    offsets = np.argwhere(shape) - np.array(shape.shape) // 2
    _spread(mask, out, np.int32(bits), y, x, offsets)
    return out


@njit(cache=True, nogil=True)
def _spread(mask: IntArray, out: IntArray, bits: np.int32, ys: IntArray, xs: IntArray, offsets: IntArray) -> None:
    ny, nx = mask.shape
    for i in range(ys.size):
        value = mask[ys[i], xs[i]] & bits
        for k in range(offsets.shape[0]):
            y, x = ys[i] + offsets[k, 0], xs[i] + offsets[k, 1]
            if 0 <= y < ny and 0 <= x < nx:
                out[y, x] |= value
