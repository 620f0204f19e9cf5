"""A weighted mean of aligned images by running sums: one image at a time, nothing kept of those before.

`add_image` and `found_mean.finish_mean` are the fast pair; `mean_of_stack` says the same slowly, with all images in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray, IntArray

__all__ = [
    "CLIPPED",
    "EDGE",
    "END",
    "REJECTED",
    "RUN",
    "SATURATED",
    "RunningSums",
    "SumBits",
    "add_image",
    "mean_of_stack",
    "there",
    "usable",
    "used_input",
]

#: What happened to the images of a pixel.
CLIPPED, REJECTED, EDGE, END, SATURATED = 1, 2, 4, 8, 16
#: Inputs that one plane of an input map holds.
_PER_PLANE = 32
#: Pixels of a row that are added in one go if nothing is odd about them.
RUN = 64
#: Part of the runs that are odd above which whole planes are set to zero faster.
_FEW = 0.05


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
    clean, rest : ndarray, shape (3, ny, nx), float32
        Sums of weight times value, of weight squared times variance, and of weight: over the pixels that
        count, and over the others that are there.
    flags : ndarray, shape (3, ny, nx), int32
        Union of the masks over the same two sets, and what happened to the other pixels.
    number : ndarray, shape (3, ny, nx), int16
        How many pixels count, are there but do not count, and are saturated.
    inputs, others : ndarray, shape (ceil(n / 32), ny, nx), uint32
        Bit k % 32 of plane k // 32: image k counts; image k is there but does not count.
    odd : ndarray, shape (ny, ceil(nx / 64)), bool
        Runs of pixels of which anything but `clean`, `inputs` and the first of `number` may have been touched.
    """

    clean: F32
    rest: F32
    flags: NDArray[np.int32]
    number: NDArray[np.int16]
    inputs: NDArray[np.uint32]
    others: NDArray[np.uint32]
    odd: BoolArray

    @classmethod
    def zeros(cls, n: int, shape: tuple[int, int]) -> RunningSums:
        """Return the sums of no image, with room for `n`."""
        sums, planes = (3, *shape), (-(-n // _PER_PLANE), *shape)
        return cls(
            np.zeros(sums, np.float32),
            np.zeros(sums, np.float32),
            np.zeros(sums, np.int32),
            np.zeros(sums, np.int16),
            np.zeros(planes, np.uint32),
            np.zeros(planes, np.uint32),
            np.zeros((shape[0], -(-shape[1] // RUN)), np.bool_),
        )

    def cleared(self, shape: tuple[int, int]) -> RunningSums:
        """Return the sums of no image for `shape`: these, set to zero, if that is theirs."""
        if self.clean.shape[1:] != shape:
            return self.zeros(len(self.inputs) * _PER_PLANE, shape)
        self.clean[:], self.number[0], self.inputs[:] = 0, 0, 0
        rest = (self.rest, self.flags, self.number, self.others)
        if np.count_nonzero(self.odd) > _FEW * self.odd.size:
            for plane in rest:
                plane[:] = 0
        else:
            for i, run in np.argwhere(self.odd):
                where = (..., i, slice(run * RUN, (run + 1) * RUN))
                for plane in rest:
                    plane[where] = 0
        self.odd[:] = False
        return self


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
        (sums.inputs[number // _PER_PLANE], sums.others[number // _PER_PLANE], sums.odd),
        tuple(np.ascontiguousarray(plane) for plane in planes),
        (nothing if clipped is None else np.ascontiguousarray(clipped), nothing if ends is None else ends),
        np.float32(weight),
        np.uint32(1 << (number % _PER_PLANE)),
        (bits.no_data, bits.bad, bits.edge, bits.saturated),
    )


@njit(cache=True, nogil=True)
def _add(
    sums: tuple[F32, F32, IntArray, IntArray],
    maps: tuple[NDArray[np.uint32], NDArray[np.uint32], BoolArray],
    planes: tuple[F32, F32, IntArray],
    marks: tuple[BoolArray, BoolArray],
    weight: np.float32,
    own: np.uint32,
    bits: tuple[int, int, int, int],
) -> None:
    # no views are made: to count their references would cost as much as the sums
    clean, _, flags, number = sums
    image, variance, mask = planes
    clipped, ends = marks
    inputs, odd = maps[0], maps[2]
    ny, nx = image.shape
    for i in range(ny):
        for run in range(odd.shape[1]):
            where = (i, run * RUN, min((run + 1) * RUN, nx))
            if ends.size > 0 and _any(ends, where):
                odd[i, run] = True
                for j in range(where[1], where[2]):
                    if ends[i, j]:
                        flags[2, i, j] |= END
            if not (clipped.size > 0 and _any(clipped, where)) and _is_plain(image, variance, mask, where):
                _add_row(image, variance, weight, clean, where)
                _count_row(number, inputs, own, where)
            else:
                odd[i, run] = True
                _add_pixels(sums, maps, planes, clipped, where, (weight, own), bits)


@njit(cache=True, nogil=True)
def _add_pixels(
    sums: tuple[F32, F32, IntArray, IntArray],
    maps: tuple[NDArray[np.uint32], NDArray[np.uint32], BoolArray],
    planes: tuple[F32, F32, IntArray],
    clipped: BoolArray,
    where: tuple[int, int, int],
    input_: tuple[np.float32, np.uint32],
    bits: tuple[int, int, int, int],
) -> None:
    # pixels of a row, one by one
    clean, rest, flags, number = sums
    image, variance, mask = planes
    weight, own = input_
    no_data, bad, edge, saturated = bits
    i = where[0]
    for j in range(where[1], where[2]):
        value, noise, flag = image[i, j], variance[i, j], mask[i, j]
        if (flag & no_data) or not (np.isfinite(value) and np.isfinite(noise)):
            continue
        out = clipped.size > 0 and clipped[i, j]
        if flag:
            number[2, i, j] += (flag & saturated) != 0
            if flag & edge and not out:
                flags[2, i, j] |= EDGE
        if out or flag & bad:
            flags[2, i, j] |= CLIPPED if out else (0 if flag & edge else REJECTED)
            at, total, which = 1, rest, maps[1]
        else:
            at, total, which = 0, clean, maps[0]
        number[at, i, j] += 1
        total[0, i, j] += weight * value
        total[1, i, j] += weight * weight * noise
        total[2, i, j] += weight
        flags[at, i, j] |= flag
        which[i, j] |= own


@njit(cache=True, nogil=True)
def _any(flags: BoolArray, where: tuple[int, int, int]) -> bool:
    union, i = False, np.uintp(where[0])
    for j in range(np.uintp(where[1]), np.uintp(where[2])):
        union |= flags[i, j]
    return union


@njit(cache=True, nogil=True)
def _is_plain(image: F32, variance: F32, mask: IntArray, where: tuple[int, int, int]) -> bool:
    union, odd, i = np.int32(0), np.int32(0), np.uintp(where[0])
    for j in range(np.uintp(where[1]), np.uintp(where[2])):
        difference = image[i, j] - image[i, j] + (variance[i, j] - variance[i, j])  # NaN unless both are finite
        union |= mask[i, j]
        odd |= np.int32(difference != 0)
    return bool(union == 0 and odd == 0)


@njit(cache=True, nogil=True)
def _add_row(image: F32, variance: F32, weight: np.float32, clean: F32, where: tuple[int, int, int]) -> None:
    squared, i = weight * weight, np.uintp(where[0])
    value, noise, total = np.uintp(0), np.uintp(1), np.uintp(2)
    for j in range(np.uintp(where[1]), np.uintp(where[2])):
        clean[value, i, j] += weight * image[i, j]
        clean[noise, i, j] += squared * variance[i, j]
        clean[total, i, j] += weight


@njit(cache=True, nogil=True)
def _count_row(
    number: NDArray[np.int16], inputs: NDArray[np.uint32], own: np.uint32, where: tuple[int, int, int]
) -> None:
    counting, i = np.uintp(0), np.uintp(where[0])
    for j in range(np.uintp(where[1]), np.uintp(where[2])):
        number[counting, i, j] += np.int16(1)
        inputs[i, j] |= own


def usable(image: F32, variance: F32, mask: IntArray, bad: int, out: BoolArray | None = None) -> BoolArray:
    """Tell, shape (ny, nx), where image and variance are finite and the mask has none of the bits `bad`."""
    if out is None:
        out = np.empty(image.shape, np.bool_)
    _usable(np.ascontiguousarray(image), np.ascontiguousarray(variance), np.ascontiguousarray(mask), np.int32(bad), out)
    return out


@njit(cache=True, nogil=True)
def _usable(image: F32, variance: F32, mask: IntArray, bad: np.int32, out: BoolArray) -> None:
    for i in range(image.shape[0]):
        value, noise, flags, row = image[i], variance[i], mask[i], out[i]
        for j in range(row.size):
            difference = value[j] - value[j] + (noise[j] - noise[j])  # NaN unless both are finite
            row[j] = (difference == 0) & ((flags[j] & bad) == 0)


def there(image: F32, mask: IntArray, no_data: int, known: BoolArray | None = None) -> BoolArray:
    """Tell, shape (ny, nx), where an image is finite and the mask has not the bit `no_data`.

    Where that is `known` already, the image is not looked at.
    """
    out = np.empty(image.shape, np.bool_)
    nothing = np.zeros((0, 0), np.bool_)
    _there(
        np.ascontiguousarray(image),
        np.ascontiguousarray(mask),
        np.int32(no_data),
        nothing if known is None else np.ascontiguousarray(known),
        out,
    )
    return out


@njit(cache=True, nogil=True)
def _there(image: F32, mask: IntArray, no_data: np.int32, known: BoolArray, out: BoolArray) -> None:
    ny, nx = image.shape
    for i in range(ny):
        row = np.uintp(i)
        for first in range(0, nx, RUN):
            last, sure = min(first + RUN, nx), known.size > 0
            if sure:
                for j in range(np.uintp(first), np.uintp(last)):
                    sure &= known[row, j]
            if sure:
                for j in range(np.uintp(first), np.uintp(last)):
                    out[row, j] = True
                continue
            for j in range(np.uintp(first), np.uintp(last)):
                out[row, j] = (image[row, j] - image[row, j] == 0) & ((mask[row, j] & no_data) == 0)


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
