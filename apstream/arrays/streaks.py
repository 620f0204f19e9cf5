"""Straight trails through a single image, found below the noise of a pixel.

The image is binned and cut off at a few sigma, and summed along lines of every angle and offset (a Radon transform
by shear and sum over a coarse image). A trail through the detector adds up to many sigma; its line is then refined,
and its width measured, on the profile across it. What is bright only in part (a star, its spikes, a galaxy, a
bleeding column) is no trail: a trail must shine in most pieces of its line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["Streak", "bin_significance", "find_streaks", "paint_streak"]

_ANGLES_PER_PIXEL = 1.0  # of the binned diagonal
_PIECES = 16


@dataclass(frozen=True, slots=True)
class Streak:
    """A line y cos(angle) - x sin(angle) = offset in array pixels, the half width of its band, its significance."""

    angle: float
    offset: float
    half_width: float
    snr: float


def bin_significance(image: F32, variance: F32, usable: BoolArray, *, bin_px: int, clip: float) -> tuple[F32, F32]:
    """Return the image in bins, in units of its noise and cut off at +-clip, and 1 where a bin has pixels enough.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
    usable : ndarray, shape (ny, nx), bool
    """
    shape = image.shape[0] // bin_px, image.shape[1] // bin_px
    out, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    _bin(image, variance, usable, bin_px, np.float32(clip), out, weight)
    return out, weight


@njit(cache=True, nogil=True)
def _bin(image, variance, usable, size, clip, out, weight):  # type: ignore[no-untyped-def]
    for a in range(out.shape[0]):
        for b in range(out.shape[1]):
            total, noise, count = 0.0, 0.0, 0
            for y in range(a * size, (a + 1) * size):
                for x in range(b * size, (b + 1) * size):
                    if usable[y, x] and variance[y, x] > 0:
                        total += image[y, x]
                        noise += variance[y, x]
                        count += 1
            if count >= size * size // 2 and noise > 0:
                out[a, b] = min(max(total / np.sqrt(noise), -clip), clip)
                weight[a, b] = 1


def find_streaks(image: F32, weight: F32, *, n_sigma: float, most: int, bin_px: int, least_part: float) -> list[Streak]:
    """Find lines along which a binned significance image adds up.

    Parameters
    ----------
    image, weight : ndarray, shape (my, mx), float32
        From `bin_significance`.
    n_sigma
        Least significance of the sum along the line, of the scatter of such sums.
    most
        Most lines.
    bin_px
        Side of the bins: results are in pixels of the full image.
    least_part
        Least part of the pieces of a line in which it must shine.
    """
    found: list[Streak] = []
    work = image - np.float32(_level(image, weight))
    work *= weight
    angles = np.arange(0, np.pi, 1 / (_ANGLES_PER_PIXEL * max(image.shape)))
    for _ in range(most):
        sums, counts = _radon(work, weight, angles)
        score = _score(sums, counts, 0.25 * min(image.shape))
        if not score.size:
            break
        k, j = np.unravel_index(int(np.argmax(score)), score.shape)
        if not score[k, j] > n_sigma:
            break
        half = max(image.shape)
        line = float(angles[k]), float(j - half)
        line, width, part = _refine(work, weight, line)
        if part >= least_part and width < 12:
            angle, offset = line
            full = offset * bin_px + (bin_px - 1) / 2 * (np.cos(angle) - np.sin(angle))
            found.append(Streak(angle, full, (width + 1.0) * bin_px, float(score[k, j])))
        _erase(work, weight, line[0], line[1], max(2.0 * width, 3.0))
    return found


def _level(image: F32, weight: F32) -> float:
    values = image[weight > 0]
    return float(np.median(values)) if values.size else 0.0


def _radon(image: F32, weight: F32, angles: F64) -> tuple[F32, F32]:
    half = max(image.shape)
    shape = len(angles), 2 * half + 1
    sums, counts = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    _project(image, weight, np.cos(angles), np.sin(angles), half, sums, counts)
    return sums, counts


@njit(cache=True, nogil=True)
def _project(image, weight, cosines, sines, half, sums, counts):  # type: ignore[no-untyped-def]
    """Walk along each line one pixel of its longer axis at a time, the nearest pixel of the other axis."""
    ny, nx = image.shape
    for k in range(len(cosines)):
        c, s = cosines[k], sines[k]
        if abs(c) >= abs(s):  # y = (offset + x s) / c
            for x in range(nx):
                shift = x * s
                for y in range(ny):
                    if weight[y, x] > 0:
                        j = int(np.floor(y * c - shift + 0.5)) + half
                        if 0 <= j <= 2 * half:
                            sums[k, j] += image[y, x]
                            counts[k, j] += 1
        else:
            for y in range(ny):
                shift = y * c
                for x in range(nx):
                    if weight[y, x] > 0:
                        j = int(np.floor(shift - x * s + 0.5)) + half
                        if 0 <= j <= 2 * half:
                            sums[k, j] += image[y, x]
                            counts[k, j] += 1


def _score(sums: F32, counts: F32, least: float) -> F32:
    """Return the significance of sums against the scatter of all: three offsets together, less their surroundings."""
    total, many = (a[:, 1:-1] + a[:, :-2] + a[:, 2:] for a in (sums, counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(many > 3 * least, total / np.sqrt(many), 0)
    score = np.zeros_like(sums)
    around = 0.5 * (np.roll(mean, 8, axis=1) + np.roll(mean, -8, axis=1))
    local = mean - np.maximum(around, 0)
    used = mean[mean != 0]
    if used.size < 100:
        return score[:0]
    width = 1.4826 * float(np.median(np.abs(used - np.median(used))))
    score[:, 1:-1] = local / max(width, 1e-3)
    return score


def _refine(image: F32, weight: F32, line: tuple[float, float]) -> tuple[tuple[float, float], float, float]:
    """Return the line fitted to its pieces, its width across (bins), and the part of its pieces that shine."""
    pieces = _profiles(image, weight, line, _PIECES, 12)
    with np.errstate(invalid="ignore", divide="ignore"):
        profile = np.nansum(pieces[:, 0], axis=0) / np.maximum(np.nansum(pieces[:, 1], axis=0), 1)
    grid = np.arange(-12, 13)
    level = np.median(profile[np.abs(grid) > 6])
    light = np.maximum(profile - level, 0) * (np.abs(grid) <= 5)
    if not light.sum() > 0:
        return line, 0.0, 0.0
    middle = float((light * grid).sum() / light.sum())
    limit = max(0.15 * light.max(), 2.5 * float(np.std(profile[np.abs(grid) > 6])))
    width = 1.0
    while width < 12 and np.any(profile[np.abs(np.abs(grid - middle) - width) < 0.6] - level > limit):
        width += 1.0
    inside = np.abs(grid - middle) <= max(width, 1.0)
    count = pieces[:, 1][:, inside].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        height = pieces[:, 0][:, inside].sum(axis=1) / np.sqrt(count)
    known = count > 5
    part = float(np.mean(height[known] > 1.0)) if known.sum() >= 4 else 0.0
    even = bool(known.sum() >= 4 and np.max(height[known]) < 0.6 * np.sum(np.maximum(height[known], 0)))
    return (line[0], line[1] + middle), width, part if even else 0.0


def _profiles(image: F32, weight: F32, line: tuple[float, float], pieces: int, reach: int) -> F64:
    """Return sums and counts by piece of the line and distance from it, shape (pieces, 2, 2 reach + 1)."""
    out = np.zeros((pieces, 2, 2 * reach + 1))
    y, x = np.nonzero(weight > 0)
    c, s = np.cos(line[0]), np.sin(line[0])
    across = np.rint(y * c - x * s - line[1]).astype(int)
    near = np.abs(across) <= reach
    y, x, across = y[near], x[near], across[near]
    along = y * s + x * c
    if not along.size:
        return out
    low, high = along.min(), along.max() + 1e-6
    piece = ((along - low) / (high - low) * pieces).astype(int)
    np.add.at(out, (piece, 0, across + reach), image[y, x])
    np.add.at(out, (piece, 1, across + reach), 1.0)
    return out


def _erase(image: F32, weight: F32, angle: float, offset: float, half: float) -> None:
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    near = np.abs(y * np.cos(angle) - x * np.sin(angle) - offset) <= half
    image[near], weight[near] = 0, 0


def paint_streak(mask: BoolArray, streak: Streak) -> None:
    """Set True on the pixels of `mask` within the half width of a streak, in place."""
    _paint(mask, np.cos(streak.angle), np.sin(streak.angle), streak.offset, streak.half_width)


@njit(cache=True, nogil=True)
def _paint(mask, c, s, offset, half):  # type: ignore[no-untyped-def]
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if abs(y * c - x * s - offset) <= half:
                mask[y, x] = True
