"""The mean of running sums: its planes, and what happened to the images of each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.running_mean import REJECTED, RUN, SATURATED, RunningSums
from apstream.arrays.types import F32, BoolArray, IntArray

__all__ = ["FoundMean", "finish_mean"]


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
    history : ndarray, shape (ny, nx), int32
        Bits of `CLIPPED`, `REJECTED`, `EDGE`, `END` and `SATURATED`: some image was clipped here, rejected for its
        mask, at its edge, or ends just before; more than the asked fraction is saturated.
    odd : ndarray, shape (ny, ceil(nx / 64)), bool
        Runs of pixels beyond which mask and history are zero.
    """

    image: F32
    variance: F32
    weight: F32
    count: NDArray[np.int16]
    input_map: NDArray[np.uint32]
    mask: NDArray[np.int32]
    history: NDArray[np.int32]
    odd: BoolArray

    def mask_with(self, bits: Mapping[int, int], dropped: int, nothing: int, out: NDArray[np.int32]) -> None:
        """Fill a mask: the union without the bits `dropped`, the bits that those of the history stand for.

        Where no image was used it is `nothing`.
        """
        table = np.zeros(2 * SATURATED, np.int32)
        for bit, meaning in bits.items():
            table[(np.arange(len(table)) & bit) != 0] |= np.int32(meaning)
        _fill_mask((self.mask, self.history, self.count), self.odd, table, (np.int32(~dropped), np.int32(nothing)), out)


def finish_mean(sums: RunningSums, out: tuple[F32, F32, F32], *, saturated_fraction: float) -> FoundMean:
    """Turn sums into the mean; where no image counts, all that are there do, and nothing is rejected.

    Image, variance and weight are written to `out`. The rest of the result is made of the arrays of the sums, which
    are good for nothing else until they are cleared.
    """
    image, variance, weight = out
    none = _without(sums.number)
    _finish((sums.clean, sums.rest), none, (image, variance, weight))
    kept = (sums.flags, sums.number, sums.inputs, sums.others)
    _finish_odd(kept, sums.odd, none, saturated_fraction)
    return FoundMean(
        image=image,
        variance=variance,
        weight=weight,
        count=sums.number[0],
        input_map=sums.inputs,
        mask=sums.flags[0],
        history=sums.flags[2],
        odd=sums.odd,
    )


@njit(cache=True, nogil=True)
def _without(number: NDArray[np.int16]) -> BoolArray:
    # where no image counts
    _, ny, nx = number.shape
    out = np.empty((ny, nx), np.bool_)
    for i in range(ny):
        for j in range(nx):
            out[i, j] = number[0, i, j] == 0
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(sums: tuple[F32, F32], none: BoolArray, out: tuple[F32, F32, F32]) -> None:
    ny, nx = none.shape
    for i in range(ny):
        image, variance, weight = out[0][i], out[1][i], out[2][i]
        value, noise, total = sums[0][0, i], sums[0][1, i], sums[0][2, i]
        for j in range(nx):
            share = np.float32(1) / total[j]  # infinite, and NaN the rest, where there is nothing
            image[j], variance[j], weight[j] = value[j] * share, noise[j] * share * share, total[j]
        if none[i].any():
            for j in range(nx):
                if none[i, j]:
                    share = np.float32(1) / sums[1][2, i, j]
                    image[j], variance[j] = sums[1][0, i, j] * share, sums[1][1, i, j] * share * share
                    weight[j] = sums[1][2, i, j]


@njit(cache=True, nogil=True)
def _finish_odd(
    kept: tuple[IntArray, IntArray, NDArray[np.uint32], NDArray[np.uint32]],
    odd: BoolArray,
    none: BoolArray,
    fraction: float,
) -> None:
    flags, number, inputs, others = kept
    for i in range(none.shape[0]):
        for run in range(odd.shape[1]):
            for j in range(run * RUN, min((run + 1) * RUN, none.shape[1]) if odd[i, run] else 0):
                if number[2, i, j] > fraction * (number[0, i, j] + number[1, i, j]):
                    flags[2, i, j] |= SATURATED
                if none[i, j]:
                    flags[2, i, j] &= ~REJECTED
                    number[0, i, j], flags[0, i, j] = number[1, i, j], flags[1, i, j]
                    for plane in range(inputs.shape[0]):
                        inputs[plane, i, j] = others[plane, i, j]


@njit(cache=True, nogil=True)
def _fill_mask(
    known: tuple[IntArray, IntArray, IntArray],
    odd: BoolArray,
    table: IntArray,
    bits: tuple[np.int32, np.int32],
    out: IntArray,
) -> None:
    mask, history, count = known
    kept, nothing = bits
    for i in range(out.shape[0]):
        for run in range(odd.shape[1]):
            first, last = run * RUN, min((run + 1) * RUN, out.shape[1])
            if odd[i, run]:
                for j in range(first, last):
                    out[i, j] = (mask[i, j] & kept) | table[history[i, j]] if count[i, j] > 0 else nothing
            else:
                row = np.uintp(i)
                for j in range(np.uintp(first), np.uintp(last)):
                    out[row, j] = np.int32(0) if count[row, j] > 0 else nothing
