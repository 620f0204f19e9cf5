"""The noise of a difference image, measured in it: residual background, variance scale, matching error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.convolve import frame_coordinates
from apstream.arrays.polynomial import n_terms, poly_terms
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray
from apstream.arrays.whiten import grid_positions, local_medians

__all__ = [
    "NoiseScale",
    "autocorrelation",
    "blank_sky",
    "correlate_same",
    "mismatch_fraction",
    "noise_scale",
    "residual_background",
    "robust_variance",
]


def blank_sky(template: F32, variance: F32, bad: BoolArray, *, block: int = 4) -> BoolArray:
    """Return the good pixels where the template shows no source.

    Means over `block` x `block` pixels are compared with 0.75 sigma of a pixel (both signs: noise is cut
    evenly), and the blocks around a source are left out too.
    """
    from scipy.ndimage import binary_dilation

    means, level = _block_means(template, variance, bad, block)
    sources = binary_dilation(np.abs(means) > 0.75 * np.sqrt(level), np.ones((3, 3), bool))
    large = np.repeat(np.repeat(sources, block, axis=0), block, axis=1)
    return ~(large[: template.shape[0], : template.shape[1]] | bad)


@njit(cache=True, nogil=True)
def _block_means(image: F32, variance: F32, bad: BoolArray, block: int) -> tuple[F32, F32]:
    """Return the means of both arrays over blocks; bad pixels count as zero in the first."""
    ny, nx = image.shape
    by, bx = -(-ny // block), -(-nx // block)
    first, second = np.zeros((by, bx), np.float32), np.zeros((by, bx), np.float32)
    count = np.zeros((by, bx), np.float32)
    for y in range(ny):
        for x in range(nx):
            j, i = y // block, x // block
            count[j, i] += 1
            second[j, i] += variance[y, x]
            if not bad[y, x]:
                first[j, i] += image[y, x]
    first /= count
    second /= count
    return first, second


def residual_background(difference: F32, blank: BoolArray, *, degree: int, cells: int = 16) -> F64:
    """Fit a polynomial through the medians of the blank pixels in cells; zeros where there are none."""
    shape = (difference.shape[0], difference.shape[1])
    cells = int(np.clip(min(shape) // 64, 1, cells))
    values = local_medians(difference, blank, cells)
    while n_terms(degree) > values.size:
        degree -= 1
    if not np.isfinite(values).all():
        return np.zeros(n_terms(degree))
    terms = poly_terms(*frame_coordinates(*grid_positions(shape, cells), shape), degree)
    keep = np.ones(values.size, bool)
    for _ in range(3):
        solution = np.linalg.lstsq(terms[:, keep].T, values[keep], rcond=None)[0]
        residual = values - solution @ terms
        limit = 4 * 1.4826 * np.median(np.abs(residual[keep] - np.median(residual[keep])))
        keep = np.abs(residual) <= max(limit, 1e-30)
        if keep.sum() < 2 * len(terms):
            break
    return np.asarray(solution)


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """Measured over expected variance, of PSF fluxes and of pixels; correlation of neighbouring pixels."""

    flux: float
    pixel: float
    correlation: float


def autocorrelation(
    image: F32, variance: F32, blank: BoolArray, *, reach: int = 3, blocks: int = 6, side: int = 192
) -> F64:
    """Measure the autocorrelation of the noise of blank sky, per unit of the variance plane.

    The centre is one for noise that is as large as the variance says; what resampling took from the centre is
    found around it.

    Returns
    -------
    ndarray, shape (2 reach + 1, 2 reach + 1)
        Symmetric; that of white noise where there are fewer than 10,000 blank pixels.
    """
    total, count = np.zeros((2, 2 * reach + 1, 2 * reach + 1))
    for part in _blocks(image.shape, blocks, side):
        usable = blank[part]
        values = np.where(usable, image[part], 0) / np.sqrt(np.where(usable, variance[part], 1))
        values -= usable * (values.sum(dtype=float) / max(np.count_nonzero(usable), 1))
        total += _lags(np.where(np.abs(values) < 5, values, 0).astype(np.float32), reach)
        count += _lags(usable.astype(np.float32), reach)
    if count[reach, reach] < 1e4:
        return np.asarray(np.outer(*[np.arange(-reach, reach + 1) == 0] * 2), float)
    ratio = total / np.maximum(count, 1)
    ring = np.ones_like(ratio, bool)
    ring[1:-1, 1:-1] = False
    ratio -= np.median(ratio[ring])  # what reaches farther is not noise but sky and faint sources
    return np.asarray((ratio + ratio[::-1, ::-1]) / 2)


def _lags(values: F32, reach: int) -> F64:
    """Return the sums of the products of `values` with itself at all lags up to `reach`."""
    from scipy import fft as sp_fft

    size = [int(sp_fft.next_fast_len(n + 2 * reach, real=True)) for n in values.shape]
    full = sp_fft.irfft2(np.abs(sp_fft.rfft2(values, size)) ** 2, size)
    return np.asarray(np.roll(full, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1], float)


def _blocks(shape: tuple[int, ...], blocks: int, side: int) -> list[tuple[slice, slice]]:
    """Return squares spread evenly over an image."""
    starts = [np.linspace(0, max(n - side, 0), min(blocks, -(-n // side))).astype(int) for n in shape]
    return [np.s_[y : y + side, x : x + side] for y in starts[0] for x in starts[1]]


def noise_scale(
    difference: F32, variance: F32, blank: BoolArray, psf: FloatArray, *, blocks: int = 6, side: int = 192
) -> NoiseScale:
    """Measure the noise in blocks spread over the image.

    Parameters
    ----------
    difference, variance : ndarray, shape (ny, nx)
    blank : ndarray, shape (ny, nx), bool
        Pixels without sources.
    psf : ndarray, shape (h, w)
        PSF of the difference; the widths of its fluxes, not of single pixels, decide the scale.
    blocks, side
        blocks x blocks squares of `side` pixels are looked at.

    Returns
    -------
    NoiseScale
        All NaN where there are fewer than 500 blank pixels.
    """
    samples = [
        _block_samples(difference[part], variance[part], blank[part], psf)
        for part in _blocks(difference.shape, blocks, side)
    ]
    flux, pixel, product = (np.concatenate(column) for column in zip(*samples, strict=True))
    if min(flux.size, pixel.size) < 500:
        return NoiseScale(np.nan, np.nan, np.nan)
    clipped = product[np.abs(product) < 25]
    scale = robust_variance(pixel)
    return NoiseScale(robust_variance(flux), scale, float(np.mean(clipped)) / scale)


def robust_variance(values: FloatArray) -> float:
    """Return the variance of the Gaussian core, from the central 68 %."""
    low, high = np.percentile(values, [15.865, 84.135])
    return float(((high - low) / 2) ** 2)


def _block_samples(difference: F32, variance: F32, blank: BoolArray, psf: FloatArray) -> tuple[FloatArray, ...]:
    """Return signal-to-noise of PSF fluxes, of pixels, and products of neighbours, in blank sky."""
    usable = blank & (variance > 0)
    weight = usable.astype(np.float32)
    numerator = correlate_same(np.where(usable, difference, 0), psf)
    denominator = correlate_same(np.where(usable, variance, 0), np.square(psf))
    share = correlate_same(weight, np.square(psf)) / np.sum(np.square(psf))
    isolated = usable & (share > 0.8)
    pixel = np.where(usable, difference, 0) / np.sqrt(np.where(usable, variance, 1))
    both = usable[:, 1:] & usable[:, :-1]
    products = (pixel[:, 1:] * pixel[:, :-1])[both]
    return numerator[isolated] / np.sqrt(denominator[isolated]), pixel[usable], products


def correlate_same(images: FloatArray, kernel: FloatArray) -> F32:
    """Correlate the last two axes of `images` with a kernel, same size, zeros outside."""
    from scipy import fft as sp_fft

    h, w = (s // 2 for s in kernel.shape)
    ny, nx = images.shape[-2:]
    size = [int(sp_fft.next_fast_len(n + 2 * p, real=True)) for n, p in ((ny, h), (nx, w))]
    spectrum = sp_fft.rfft2(np.asarray(kernel[::-1, ::-1], np.float32), size)
    full = sp_fft.irfft2(sp_fft.rfft2(np.asarray(images, np.float32), size) * spectrum, size)
    return np.asarray(full[..., h : h + ny, w : w + nx], np.float32)


def mismatch_fraction(
    planes: tuple[F32, F32, F32],
    positions: tuple[IntArray, IntArray],
    psf: FloatArray,
    *,
    limit: float,
    sigmas: float = 3.0,
    quantile: float = 0.8,
) -> float:
    """Measure how large the matching error at stars is, as a fraction of the template's flux per pixel.

    At each star the variance (fraction * template)^2 is sought that brings the most significant PSF flux in
    its core down to `sigmas`; the `quantile` over the stars that are bright enough to tell is returned.

    Parameters
    ----------
    planes
        Difference, variance and matched template, shape (ny, nx).
    positions
        Pixels of the stars.
    psf : ndarray, shape (h, w)
        PSF of the difference.
    limit
        Largest fraction returned.
    """
    half, core = psf.shape[0] // 2 + 4, 4
    ny, nx = planes[0].shape
    inside = [(p >= half) & (p < n - half) for p, n in zip(positions, (ny, nx), strict=True)]
    y, x = (p[inside[0] & inside[1]] for p in positions)
    if len(y) == 0:
        return 0.0
    offsets = np.arange(-half, half + 1)
    cut = [p[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets] for p in planes]
    middle = np.s_[:, half - core : half + core + 1, half - core : half + core + 1]
    signal = correlate_same(cut[0], psf)[middle]
    noise = correlate_same(cut[1], np.square(psf))[middle]
    model = np.maximum(correlate_same(np.square(cut[2]), np.square(psf))[middle], 1e-30)
    needed = np.max((np.square(signal) / sigmas**2 - noise) / model, axis=(1, 2))
    telling = np.min(noise / model, axis=(1, 2)) < limit**2
    if telling.sum() < 3:
        return 0.0
    return float(np.clip(np.sqrt(max(np.quantile(needed[telling], quantile), 0.0)), 0.0, limit))
