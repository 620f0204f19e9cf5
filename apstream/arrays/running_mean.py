"""A weighted mean of aligned images by running sums: one image at a time, nothing kept of those before.

`add_image` and `finish_mean` are the fast pair; `mean_of_stack` says the same slowly, with all images in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = ["FoundMean", "RunningSums", "SumBits", "add_image", "finish_mean", "mean_of_stack", "used_input"]

_CLIPPED, _REJECTED, _EDGE, _END = 1, 2, 4, 8
#: Inputs that one plane of an input map holds.
_PER_PLANE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SumBits:
    """Mask bits that the sums act on.

    Parameters
    ----------
    no_data, bad
        Pixels that are not there, and those that count only where there is nothing better.
    edge, saturated
        Pixels at a detector's edge, and saturated ones, which are counted.
    """

    no_data: int
    bad: int
    edge: int
    saturated: int


@dataclass(frozen=True, slots=True, eq=False)
class RunningSums:
    """Sums over the images so far.

    Parameters
    ----------
    clean, rest : ndarray, shape (3, ny, nx), float64
        Sums of weight times value, of weight squared times variance, and of weight: over the pixels that
        count, and over the others that are there.
    flags : ndarray, shape (3, ny, nx), int32
        Union of the masks over the same two sets, and what happened to the other pixels.
    number : ndarray, shape (3, ny, nx), int16
        How many pixels count, are there but do not count, and are saturated.
    inputs, others : ndarray, shape (ceil(n / 32), ny, nx), uint32
        Bit k % 32 of plane k // 32: image k counts; image k is there but does not count.
    """

    clean: F64
    rest: F64
    flags: NDArray[np.int32]
    number: NDArray[np.int16]
    inputs: NDArray[np.uint32]
    others: NDArray[np.uint32]

    @classmethod
    def zeros(cls, n: int, shape: tuple[int, int]) -> RunningSums:
        """Return the sums of no image, with room for `n`."""
        sums, planes = (3, *shape), (-(-n // _PER_PLANE), *shape)
        return cls(
            np.zeros(sums),
            np.zeros(sums),
            np.zeros(sums, np.int32),
            np.zeros(sums, np.int16),
            np.zeros(planes, np.uint32),
            np.zeros(planes, np.uint32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FoundMean:
    """The mean with its variance, weight and bookkeeping.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        NaN where there is nothing.
    weight : ndarray, shape (ny, nx), float32
        Sum of the weights of the images used.
    count : ndarray, shape (ny, nx), int16
        How many were used.
    input_map : ndarray, shape (ceil(n / 32), ny, nx), uint32
        Which.
    mask : ndarray, shape (ny, nx), int32
        Union of the masks of the pixels used.
    clipped, rejected, edge, end, saturated : ndarray, shape (ny, nx), bool
        Some image was clipped here, rejected for its mask, at its edge, or ends just before; more than the
        asked fraction is saturated.
    """

    image: F32
    variance: F32
    weight: F32
    count: NDArray[np.int16]
    input_map: NDArray[np.uint32]
    mask: NDArray[np.int32]
    clipped: BoolArray
    rejected: BoolArray
    edge: BoolArray
    end: BoolArray
    saturated: BoolArray


def add_image(
    sums: RunningSums,
    planes: tuple[F32, F32, IntArray],
    weight: float,
    number: int,
    bits: SumBits,
    *,
    clipped: BoolArray | None = None,
    ends: BoolArray | None = None,
) -> None:
    """Add an image to the sums, in place.

    Parameters
    ----------
    planes
        Image, variance and mask, shape (ny, nx).
    weight
        One weight for the whole image: weights that follow the source's own noise change star profiles.
    number
        Its place among the images, from zero.
    clipped
        Pixels to leave out; None leaves out none.
    ends
        Pixels just beyond its end; None if it has no end here.
    """
    nothing = np.zeros((0, 0), np.bool_)
    _add(
        (sums.clean, sums.rest, sums.flags, sums.number),
        (sums.inputs[number // _PER_PLANE], sums.others[number // _PER_PLANE]),
        planes,
        (nothing if clipped is None else clipped, nothing if ends is None else ends),
        float(weight),
        np.uint32(1 << (number % _PER_PLANE)),
        (bits.no_data, bits.bad, bits.edge, bits.saturated),
    )


@njit(cache=True, nogil=True)
def _add(
    sums: tuple[F64, F64, IntArray, IntArray],
    maps: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    planes: tuple[F32, F32, IntArray],
    marks: tuple[BoolArray, BoolArray],
    weight: float,
    own: np.uint32,
    bits: tuple[int, int, int, int],
) -> None:
    clean, rest, flags, number = sums
    image, variance, mask = planes
    clipped, ends = marks
    no_data, bad, edge, saturated = bits
    ny, nx = image.shape
    for i in range(ny):
        if ends.size:
            for j in range(nx):
                if ends[i, j]:
                    flags[2, i, j] |= _END
        if not (clipped.size and clipped[i].any()) and _plain_row(image[i], variance[i], mask[i]):
            _add_row(image[i], variance[i], weight, clean[0, i], clean[1, i], clean[2, i])
            for j in range(nx):
                number[0, i, j] += 1
                maps[0][i, j] |= own
            continue
        for j in range(nx):
            value, noise, flag = float(image[i, j]), float(variance[i, j]), mask[i, j]
            if (flag & no_data) or not (np.isfinite(value) and np.isfinite(noise)):
                continue
            out = clipped.size > 0 and clipped[i, j]
            if flag:
                number[2, i, j] += (flag & saturated) != 0
                if flag & edge and not out:
                    flags[2, i, j] |= _EDGE
            if out or flag & bad:
                flags[2, i, j] |= _CLIPPED if out else (0 if flag & edge else _REJECTED)
                where, total, which = 1, rest, maps[1]
            else:
                where, total, which = 0, clean, maps[0]
            number[where, i, j] += 1
            total[0, i, j] += weight * value
            total[1, i, j] += weight * weight * noise
            total[2, i, j] += weight
            flags[where, i, j] |= flag
            which[i, j] |= own


@njit(cache=True, nogil=True)
def _plain_row(image: F32, variance: F32, mask: IntArray) -> bool:
    union, odd = 0, 0
    for j in range(image.size):
        difference = image[j] - image[j] + (variance[j] - variance[j])  # NaN unless both are finite
        union |= mask[j]
        odd |= difference != 0
    return union == 0 and odd == 0


@njit(cache=True, nogil=True)
def _add_row(image: F32, variance: F32, weight: float, value: F64, noise: F64, total: F64) -> None:
    for j in range(image.size):
        value[j] += weight * float(image[j])
        noise[j] += weight * weight * float(variance[j])
        total[j] += weight


def finish_mean(sums: RunningSums, *, saturated_fraction: float) -> FoundMean:
    """Turn sums into the mean; where no image counts, all that are there do, and nothing is rejected."""
    none = sums.number[0] == 0
    image, variance, weight = (np.where(none, r, c) for r, c in zip(sums.rest, sums.clean, strict=True))
    there = weight > 0
    safe = np.where(there, weight, 1.0)
    image, variance = (np.where(there, v, np.nan) for v in (image / safe, variance / safe**2))
    history = sums.flags[2]
    return FoundMean(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        weight=weight.astype(np.float32),
        count=np.where(none, sums.number[1], sums.number[0]),
        input_map=np.where(none, sums.others, sums.inputs),
        mask=np.where(none, sums.flags[1], sums.flags[0]),
        clipped=(history & _CLIPPED) != 0,
        rejected=((history & _REJECTED) != 0) & ~none,
        edge=(history & _EDGE) != 0,
        end=(history & _END) != 0,
        saturated=sums.number[2] > saturated_fraction * (sums.number[0] + sums.number[1]),
    )


def mean_of_stack(stack: F32, variance: F32, use: BoolArray, weights: F64) -> tuple[F32, F32, NDArray[np.int16]]:
    """Do with all images in memory what `add_image` and `finish_mean` do for pixels that count.

    Parameters
    ----------
    stack, variance, use : ndarray, shape (n, ny, nx)
        Values, variances and which of them count.
    weights : ndarray, shape (n,)

    Returns
    -------
    (mean, variance, count)
        NaN, NaN and zero where nothing counts.
    """
    w = np.where(use, np.asarray(weights, float)[:, None, None], 0.0)
    total = w.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(use, w * stack.astype(float), 0).sum(axis=0) / total
        noise = np.where(use, w**2 * variance.astype(float), 0).sum(axis=0) / total**2
    return mean.astype(np.float32), noise.astype(np.float32), use.sum(axis=0).astype(np.int16)


def used_input(input_map: NDArray[np.uint32], number: int) -> BoolArray:
    """Return where an input was used, shape (ny, nx), from an input map."""
    own = np.uint32(1 << (number % _PER_PLANE))
    return np.asarray((input_map[number // _PER_PLANE] & own) != 0)
