"""Straight trails through a single image, found below the noise of a pixel.

The image is binned and cut off at a few sigma, and summed along lines of every angle and offset (a Radon transform
by shear and sum over a coarse image). A trail through the detector adds up to many sigma; its line is then fitted,
and its width measured, on the profile across it, pixel by pixel. What is bright only in
part (a star, its spikes, a galaxy, a bleeding column) is no trail: a trail must shine in most pieces of its line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apstream.arrays.compiled import njit
from apstream.arrays.types import F32, F64, BoolArray

__all__ = ["Streak", "bin_significance", "find_streaks", "fit_streak", "paint_streak"]

_ANGLES_PER_PIXEL = 1.0  # of the binned diagonal
_PIECES = 16
_FAINT = 0.1  # of the noise of a pixel: where a trail ends sideways


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
        line = float(angles[k]), _offset(float(j) - max(image.shape), float(angles[k]))
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
    """Return sums and counts of lines, shape (angles, 3 half + 1): by where they meet the axis that they cross."""
    half, flat = max(image.shape), _is_flat(angles)
    sums, counts = (np.zeros((len(angles), 3 * half + 1), np.float32) for _ in range(2))
    for plane, out in ((image, sums), (weight, counts)):
        turned = np.ascontiguousarray(plane.T)
        for k, angle in enumerate(angles):
            if flat[k]:
                _project(turned, np.tan(angle), half, out[k])
            else:
                _project(plane, 1 / np.tan(angle), half, out[k])
    return sums, counts


def _offset(meets: float, angle: float) -> float:
    return meets * float(np.cos(angle) if _is_flat(np.array(angle)) else -np.sin(angle))


def _is_flat(angles: F64) -> BoolArray:
    """Tell which lines are closer to the x axis than to the y axis."""
    return np.asarray(np.abs(np.cos(angles)) >= np.abs(np.sin(angles)), np.bool_)


@njit(cache=True, nogil=True)
def _project(plane, slope, half, out):  # type: ignore[no-untyped-def]
    """Shear by one pixel of the second axis at a time, and sum over the first."""
    length = plane.shape[1]
    for i in range(plane.shape[0]):
        first = half - int(np.floor(i * slope + 0.5))
        target, line = out[first : first + length], plane[i]
        for j in range(length):
            target[j] += line[j]


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


def fit_streak(
    image: F32, variance: F32, usable: BoolArray, streak: Streak, *, reach: int, clip: float
) -> Streak | None:
    """Fit the line of a streak on the pixels, and how far across it shines.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
    usable : ndarray, shape (ny, nx), bool
    streak
        From `find_streaks`.
    reach
        How far from the line to look, in pixels.
    clip
        Pixels count at most as much, in units of their noise.

    Returns
    -------
    Streak or None
        Its band ends where the mean light falls to a tenth of the noise of a pixel, or into its own noise. None
        where most of the line shows no light: what was found is the rest of another trail, or of a bright source.
    """
    for window in (reach, reach // 2, reach // 4, reach // 4):
        light, counts, along = _profile(image, variance, usable, streak, reach, clip)
        grid = np.arange(-reach, reach + 1)
        near = np.where(np.abs(grid) <= window, light, 0)
        total = near.sum(axis=1)
        lit = total > 0.3 * np.median(total)
        if not np.median(total) > 0 or lit.sum() < 4:
            return None
        slope, start = np.polyfit(along[lit], (near[lit] * grid).sum(axis=1) / total[lit], 1)
        streak = _turned(streak, float(slope), float(np.clip(start, -window, window)))
    light, counts, _ = _profile(image, variance, usable, streak, reach, clip)
    return replace(streak, half_width=_half_width((light * counts).sum(axis=0), counts.sum(axis=0)))


def _turned(streak: Streak, slope: float, start: float) -> Streak:
    """Return the line through the points that are ``start + slope * along`` away from a line."""
    offset = (streak.offset + start) / float(np.hypot(1.0, slope))
    return replace(streak, angle=streak.angle + float(np.arctan(slope)), offset=offset)


def _profile(
    image: F32, variance: F32, usable: BoolArray, streak: Streak, reach: int, clip: float
) -> tuple[F64, F64, F64]:
    """Return mean light over its surroundings (of a pixel's noise), pixels and place of each piece of a line."""
    sums, counts = np.zeros((2, _PIECES, 2 * reach + 1))
    places = np.zeros(_PIECES)
    line = float(np.cos(streak.angle)), float(np.sin(streak.angle)), float(streak.offset)
    _across(image, variance, usable, line, clip, (sums, counts, places))
    mean = sums / np.maximum(counts, 1)
    outside = np.abs(np.arange(-reach, reach + 1)) > 0.75 * reach
    level = np.sum(sums[:, outside], axis=1) / np.maximum(np.sum(counts[:, outside], axis=1), 1)
    return np.where(counts > 0, mean - level[:, None], 0), counts, places / np.maximum(counts.sum(axis=1), 1)


@njit(cache=True, nogil=True)
def _across(image, variance, usable, line, clip, out):  # type: ignore[no-untyped-def]
    """Add up significance by piece of the line and distance from it; walks along the longer axis."""
    c, s, offset = line
    sums, counts, places = out
    (ny, nx), reach = image.shape, sums.shape[1] // 2
    steep = abs(c) < abs(s)
    length, other = (ny, nx) if steep else (nx, ny)
    slant = max(abs(c), abs(s))
    for i in range(length):
        middle = (i * c - offset) / s if steep else (offset + i * s) / c
        low, high = int(np.ceil(middle - reach / slant)), int(np.floor(middle + reach / slant))
        for j in range(max(low, 0), min(high, other - 1) + 1):
            y, x = (i, j) if steep else (j, i)
            if usable[y, x] and variance[y, x] > 0:
                k = int(np.floor(y * c - x * s - offset + 0.5)) + reach
                if 0 <= k <= 2 * reach:
                    piece = i * len(places) // length
                    sums[piece, k] += min(image[y, x] / np.sqrt(variance[y, x]), clip)
                    counts[piece, k] += 1
                    places[piece] += y * s + x * c


def _half_width(light: F64, counts: F64) -> float:
    reach = len(light) // 2
    seen = np.convolve(light, np.ones(3), "same") / np.maximum(np.convolve(counts, np.ones(3), "same"), 1)
    limit = max(_FAINT, 3 / np.sqrt(max(3 * float(np.median(counts)), 1.0)))
    dark = seen[reach::-1] < limit, seen[reach:] < limit
    ends = [int(np.argmax(side)) if side.any() else reach for side in dark]
    return float(max(*ends, 1) + 1)


def paint_streak(mask: BoolArray, streak: Streak) -> None:
    """Set True on the pixels of `mask` within the half width of a streak, in place."""
    _paint(mask, np.cos(streak.angle), np.sin(streak.angle), streak.offset, streak.half_width)


@njit(cache=True, nogil=True)
def _paint(mask, c, s, offset, half):  # type: ignore[no-untyped-def]
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if abs(y * c - x * s - offset) <= half:
                mask[y, x] = True
