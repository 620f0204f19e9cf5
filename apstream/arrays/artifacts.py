"""What is in some images of a stack and not in the others.

After the idea of comparing each epoch with a static sky of matched PSF (AlSayyad 2016, the LSST pipelines'
CompareWarp); the numbers of epochs are those, the rest is decided pixel by pixel from a bounded
neighbourhood, so that a large image may be searched in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.coadd import masked_median
from apstream.arrays.compiled import njit
from apstream.arrays.excess import classify, count_flagged, grow, magnitude, thinned, variance_of_model
from apstream.arrays.halved import halved
from apstream.arrays.neighbours import largest_near, true_near
from apstream.arrays.types import F32, F64, BoolArray, FloatArray, IntArray

__all__ = [
    "ExcessLimits",
    "SeparableKernel",
    "convolve_plain",
    "find_excess",
    "max_epochs",
    "saturated_in_most",
    "separable",
    "smoothed",
]


@dataclass(frozen=True, slots=True, eq=False)
class SeparableKernel:
    """A kernel as a sum of products of a column and a row.

    Parameters
    ----------
    columns, rows : ndarray, shape (rank, 2 half + 1), float32
    """

    columns: F32
    rows: F32

    @property
    def half(self) -> int:
        """Half the side."""
        return int(self.rows.shape[1]) // 2

    @property
    def kernel(self) -> F64:
        """The kernel itself."""
        return np.asarray(np.einsum("ri,rj->ij", self.columns.astype(float), self.rows.astype(float)))

    @property
    def noise(self) -> float:
        """Sum of squares: what it makes of the variance of white noise."""
        return float(np.square(self.kernel).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcessLimits:
    """When a smoothed pixel of one image is in excess of the others.

    Parameters
    ----------
    nsigma, fraction, reach
        It is if it differs from the median by more than `nsigma` standard errors plus `fraction` of the
        brightest median value within `reach` pixels.
    counted_nsigma
        Epochs that differ by more than this count as showing it too.
    low_nsigma, grow
        Pixels of the same sign above the lower limit within `grow` pixels go with it,
    rim
        and all within `rim` pixels.
    step
        1, or 2: the search is done at half the resolution (`arrays.halved`); enough once smoothed to four pixels.
    slope, offset, offset_slope
        It is an artifact in at most min(slope n, offset + offset_slope n) of n epochs, rounded down.
    """

    nsigma: float = 5.0
    fraction: float = 0.05
    reach: int = 4
    step: int = 1
    counted_nsigma: float = 2.5
    low_nsigma: float = 1.5
    grow: int = 6
    rim: int = 2
    slope: float = 0.4
    offset: float = 2.0
    offset_slope: float = 0.03

    @property
    def margin(self) -> int:
        """Pixels around a region that its result depends on, beside the kernels."""
        return max(self.reach, 1) + self.grow + self.rim + 3 * self.step


def separable(kernel: FloatArray, *, tolerance: float = 1e-3, rank: int = 5) -> SeparableKernel:
    """Return the best sum of products for a kernel, off by no more than `tolerance` of its peak if `rank` allows."""
    u, s, v = np.linalg.svd(np.asarray(kernel, float))
    keep = int(np.clip(np.count_nonzero(s > tolerance * s[0]), 1, rank))
    columns, rows = (u[:, :keep] * s[:keep]).T, v[:keep]
    total = np.einsum("ri,rj->", columns, rows)
    return SeparableKernel((columns * (np.sum(kernel) / total)).astype(np.float32), rows.astype(np.float32))


def smoothed(image: F32, kernel: SeparableKernel) -> F32:
    """Convolve a finite image; beyond its border it is mirrored. `convolve_plain` says the same slowly."""
    padded = np.pad(image, kernel.half, mode="symmetric")
    out = np.empty(image.shape, np.float32)
    columns, rows = (np.ascontiguousarray(part[:, ::-1]) for part in (kernel.columns, kernel.rows))
    _smooth(padded, columns, rows, out)
    return out


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _smooth(padded: F32, columns: F32, rows: F32, out: F32) -> None:
    ny, nx = out.shape
    line = np.empty(padded.shape[1], np.float32)
    for i in range(ny):
        target = out[i]
        target[:] = np.float32(0)
        for rank in range(columns.shape[0]):
            column, row = columns[rank], rows[rank]
            line[:] = np.float32(0)
            for k in range(0, column.size - 3, 4):
                four = (padded[i + k], padded[i + k + 1], padded[i + k + 2], padded[i + k + 3])
                _add_four(line, four, column[k : k + 4])
            for k in range(column.size // 4 * 4, column.size):
                _add_one(line, padded[i + k], column[k])
            for k in range(0, row.size - 3, 4):
                four = (line[k : k + nx], line[k + 1 : k + 1 + nx], line[k + 2 : k + 2 + nx], line[k + 3 : k + 3 + nx])
                _add_four(target, four, row[k : k + 4])
            for k in range(row.size // 4 * 4, row.size):
                _add_one(target, line[k : k + nx], row[k])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _add_four(target: F32, lines: tuple[F32, F32, F32, F32], weights: F32) -> None:
    a, b, c, d = lines
    u, v, w, x = weights[0], weights[1], weights[2], weights[3]
    for j in range(target.size):
        target[j] += u * a[j] + v * b[j] + w * c[j] + x * d[j]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _add_one(target: F32, line: F32, weight: np.float32) -> None:
    for j in range(target.size):
        target[j] += weight * line[j]


def convolve_plain(image: F32, kernel: FloatArray) -> F64:
    """Do what `smoothed` does with scipy."""
    from scipy.ndimage import convolve

    return np.asarray(convolve(image.astype(float), np.asarray(kernel, float), mode="reflect"))


def max_epochs(n: NDArray[np.integer], limits: ExcessLimits) -> NDArray[np.int16]:
    """Return in how many of `n` epochs an artifact may be; none of fewer than three, else one at least."""
    number = np.asarray(n, float)
    allowed = np.minimum(limits.slope * number, limits.offset + limits.offset_slope * number)
    return np.where(number < 3, 0, np.maximum(np.floor(allowed), 1)).astype(np.int16)


def saturated_in_most(masks: Sequence[IntArray], good: BoolArray, bit: int) -> BoolArray | None:
    """Tell, shape (ny, nx), where more images are saturated than can be used; None if that is nowhere.

    What saturates in a few images only, like the trail of a satellite, is not among it.

    Parameters
    ----------
    masks : n ndarrays, shape (ny, nx)
    good : ndarray, shape (n, ny, nx)
        Which of their pixels count; none that is saturated.
    bit
        That of saturated pixels.
    """
    count = np.zeros(good.shape[1:], np.int16)
    for mask, own in zip(masks, good, strict=True):
        count_flagged(np.ascontiguousarray(mask), own, np.int32(bit), count)
    places = np.nonzero(count)
    out = np.zeros(count.shape, bool)
    out[places] = count[places] > good[:, places[0], places[1]].sum(axis=0)
    return out if out.any() else None


def find_excess(
    images: Sequence[F32],
    variances: Sequence[F32],
    good: BoolArray,
    matching: tuple[list[SeparableKernel], F64],
    limits: ExcessLimits,
    median: F32,
    saturated: BoolArray | None = None,
) -> BoolArray:
    """Tell which good pixels are in excess of the static sky in a few epochs only.

    Parameters
    ----------
    images, variances : n ndarrays, shape (ny, nx)
        Background-subtracted values on one flux scale, and their variance.
    good : ndarray, shape (n, ny, nx)
        Which of them count.
    matching
        The kernels that give the images, at the resolution of the search, one PSF wide enough to find what is as wide
        as a star; and what becomes of the variance by them, shape (n,).
    median : ndarray, shape (ny, nx)
        That of `masked_median` over the images.
    saturated : ndarray, shape (ny, nx), bool
        From `saturated_in_most`. Within the kernels' reach nothing is found: the light that would have to be matched
        is not known, and each exposure lacks another part of it.

    Returns
    -------
    ndarray, shape (n, ny, nx), bool
        Pixels within `limits.margin` and the kernels of the border would need neighbours that are not there.
    """
    step, (kernels, noise) = limits.step, matching
    matched = _matched(images, good, median, kernels, step)
    there, near = np.ascontiguousarray(good[:, ::step, ::step]), -(-limits.reach // step)
    model = masked_median(matched, there)
    bright = largest_near(magnitude(model), near)
    number = there.sum(axis=0, dtype=np.int16)
    spread = _smoothed_variance(variances, there, noise, near, step)
    half = max((kernel.half for kernel in kernels), default=0)
    _raise_border(spread, half + step - 1)
    of_model = variance_of_model(spread, number)
    if saturated is not None:
        number[true_near(saturated[::step, ::step], half)] = 0
    states = np.empty(matched.shape, np.uint8)
    thresholds = np.array([limits.nsigma, limits.counted_nsigma, limits.low_nsigma, limits.fraction], np.float32)
    for k, state in enumerate(states):
        classify((matched[k], model), (spread[k], of_model), (there[k], number, bright), thresholds, state)
    allowed, out = max_epochs(np.arange(len(states) + 1), limits), np.zeros(good.shape, bool)
    reach = (-(-limits.grow // step), -(-limits.rim // step))
    for k in range(len(states)):
        grow(states, k, (number, allowed), reach, (step, good[k], out[k]))
    return out


def _smoothed_variance(variances: Sequence[F32], there: BoolArray, noise: F64, near: int, step: int) -> F32:
    # a star's own noise is spread as far as its light: the largest variance around is taken
    out = np.empty(there.shape, np.float32)
    for k, plane in enumerate(variances):
        np.multiply(largest_near(thinned(plane, there[k], step), near), np.float32(noise[k]), out=out[k])
    return out


def _raise_border(spread: F32, width: int) -> None:
    # beyond the border the image is mirrored: its noise counts twice
    for axis in (1, 2):
        for end in (slice(None, width), slice(-width or None, None)):
            spread[(slice(None), end) if axis == 1 else (slice(None), slice(None), end)] *= 2 if width else 1


def _matched(images: Sequence[F32], good: BoolArray, median: F32, kernels: list[SeparableKernel], step: int) -> F32:
    # what is masked is filled with what the others show there, so that it cannot leak
    out = np.empty((len(images), *(-(-side // step) for side in median.shape)), np.float32)
    other = np.nan_to_num(median)
    for k, (image, kernel) in enumerate(zip(images, kernels, strict=True)):
        filled = halved(image, good[k], other) if step == 2 else np.where(good[k], image, other)
        out[k] = smoothed(filled, kernel)
    return out
