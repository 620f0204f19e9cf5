"""Images at half the resolution: smoothed by (1, 3, 3, 1) / 8 along both axes, then every second pixel.

Pixel (i, j) lies at (2 i + 1/2, 2 j + 1/2) of the image. What is narrower than a pixel of the result is weakened
enough that a star looks the same wherever it lies, to one per cent of its peak.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.spline import interpolation
from apstream.arrays.types import F32, F64, BoolArray, FloatArray

__all__ = ["halved", "halved_kernel", "halved_noise", "halved_plain"]

_NEAR, _FAR = np.float32(3 / 8), np.float32(1 / 8)
_OFFSETS, _SHARES = (-1.5, -0.5, 0.5, 1.5), (0.125, 0.375, 0.375, 0.125)


def halved(image: F32, good: BoolArray, other: F32) -> F32:
    """Return an image at half the resolution; what is not good is taken from another.

    Parameters
    ----------
    image, good, other : ndarray, shape (ny, nx)
        `other` is finite, and `image` where it is good. Beyond the border all is mirrored.

    Returns
    -------
    ndarray, shape (ceil(ny / 2), ceil(nx / 2))
    """
    ny, nx = image.shape
    out = np.empty(((ny + 1) // 2, (nx + 1) // 2), np.float32)
    _halve(np.ascontiguousarray(image), good, other, out)
    return out


@njit(cache=True, nogil=True)
def _halve(image: F32, good: BoolArray, other: F32, out: F32) -> None:
    nx = image.shape[1]
    lines, line = np.empty((4, nx), np.float32), np.empty(nx + 4, np.float32)
    for n in range(-1, 1):
        _fill(image, good, other, n, lines[n % 4])
    for i in range(out.shape[0]):
        for n in (2 * i + 1, 2 * i + 2):
            _fill(image, good, other, n, lines[n % 4])
        a, b, c, d = (2 * i - 1) % 4, (2 * i) % 4, (2 * i + 1) % 4, (2 * i + 2) % 4
        for j in range(nx):
            line[j + 1] = _NEAR * (lines[b, j] + lines[c, j]) + _FAR * (lines[a, j] + lines[d, j])
        line[0], line[nx + 1], line[nx + 2] = line[1], line[nx], line[max(nx - 1, 1)]
        for k in range(out.shape[1]):
            out[i, k] = _NEAR * (line[2 * k + 1] + line[2 * k + 2]) + _FAR * (line[2 * k] + line[2 * k + 3])


@njit(cache=True, nogil=True)
def _fill(image: F32, good: BoolArray, other: F32, row: int, out: F32) -> None:
    ny, nx = image.shape
    i = max(0, -row - 1 if row < 0 else (2 * ny - 1 - row if row >= ny else row))
    for j in range(nx):
        out[j] = image[i, j] if good[i, j] else other[i, j]


def halved_plain(image: FloatArray) -> F64:
    """Do what `halved` does with numpy, where all is good."""
    wide = np.pad(np.asarray(image, float), 2, mode="symmetric")
    for axis in (0, 1):
        length = wide.shape[axis] - 3
        wide = sum(s * wide.take(range(k, k + length), axis) for k, s in enumerate(_SHARES))  # type: ignore[assignment]
    return np.asarray(wide[1::2, 1::2][: (image.shape[0] + 1) // 2, : (image.shape[1] + 1) // 2])


def halved_kernel(kernel: F64) -> F64:
    """Return what a star's profile becomes at half the resolution; odd sides, centred, summing to one."""
    half = kernel.shape[0] // 2
    nodes = half + 2.0 * np.arange(-(half // 2), half // 2 + 1)
    taps = sum(share * interpolation(nodes + off, len(kernel)) for off, share in zip(_OFFSETS, _SHARES, strict=True))
    out = taps @ kernel @ np.transpose(taps)
    return np.asarray(out / out.sum())


def halved_noise(kernel: F64) -> float:
    """Return what halving, and convolution with a kernel after it, make of the variance of white noise."""
    spread = kernel * (20 / 64) ** 2  # overlap of the four taps, along both axes
    wide = np.pad(kernel, 1)
    ends, sides = 6 / 64, 20 / 64
    spread += ends * sides * (wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:])
    spread += ends**2 * (wide[:-2, :-2] + wide[:-2, 2:] + wide[2:, :-2] + wide[2:, 2:])
    return float((kernel * spread).sum())
