"""Aligning two star lists of unknown relative shift and rotation by the triangles that the stars form.

Triangles of near neighbours are compared by shape and size (Groth 1986, AJ 91, 1244; Valdes et al. 1995,
PASP 107, 1119); each agreeing pair of triangles votes for a shift, a rotation and a scale; the densest
votes are verified on all stars, and one is accepted only when its matches cannot be chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apstream.arrays.match import mutual_nearest
from apstream.arrays.transform import PolyMap, fit_similarity, from_affine
from apstream.arrays.types import F64, BoolArray, FloatArray, IntArray

__all__ = ["PatternLimits", "PatternMatch", "align", "confirm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternLimits:
    """What the unknown map may be: lengths in pixels, angle in degrees, scale as a fraction of one."""

    tolerance: float = 2.0
    max_shift: float = np.inf
    max_rotation: float = 180.0
    max_scale: float = 0.03
    counts: tuple[int, ...] = (40, 80, 160, 320)
    neighbours: int = 9


@dataclass(frozen=True, slots=True, eq=False)
class PatternMatch:
    """A similarity map from the first list to the second, and the stars that follow it.

    `n_chance` stars would follow by chance, `n_possible` could have followed.
    """

    map: PolyMap
    n_matched: int
    n_chance: float
    n_possible: int


def align(
    first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray], limits: PatternLimits
) -> PatternMatch | None:
    """Find the similarity map from `first` to `second`.

    Parameters
    ----------
    first, second
        (y, x) of two star lists, brightest first. `second` may reach further and deeper.

    Returns
    -------
    PatternMatch or None
        None when no alignment is better than chance.
    """
    best: PatternMatch | None = None
    for count in limits.counts:
        for n_first, n_second in ((count, count), (count, 2 * count), (2 * count, count)):
            a, b = _brightest(first, n_first), _brightest(second, n_second)
            if len(a[0]) < 3 or len(b[0]) < 3:
                return None
            for start in _hypotheses(a, b, limits):
                found = _verify(a, b, start, limits)
                if _significance(found) > _significance(best) and _is_allowed(found.map, limits):
                    best = found
            if best is not None and _is_certain(best):
                return best
        if count >= max(len(first[0]), len(second[0])):
            break
    return best if best is not None and _is_certain(best) else None


def confirm(
    first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray], limits: PatternLimits
) -> PatternMatch | None:
    """Find the map from `first` to `second` where they are aligned already but for a few pixels.

    For few stars among many, whose triangles are never those of near neighbours. Arguments as `align`, whose
    certainty is asked for at its tolerance, half of it, or a quarter.
    """
    a, b = (_brightest(stars, max(limits.counts)) for stars in (first, second))
    still = from_affine(np.eye(2), np.zeros(2))
    for part in (1.0, 0.5, 0.25):
        found = _verify(a, b, still, replace(limits, tolerance=part * limits.tolerance))
        if _is_certain(found) and _is_allowed(found.map, limits):
            return found
    return None


def _brightest(stars: tuple[FloatArray, FloatArray], count: int) -> tuple[F64, F64]:
    return np.asarray(stars[0][:count], float), np.asarray(stars[1][:count], float)


@dataclass(frozen=True, slots=True, eq=False)
class _Triangles:
    vertices: IntArray  # (n, 3), opposite to the longest, middle and shortest side
    shape: F64  # (n, 3): two side ratios, logarithm of the longest side
    turn: F64  # (n,): sign of the area


def _triangles(y: F64, x: F64, neighbours: int, tolerance: float) -> _Triangles:
    from scipy.spatial import cKDTree

    k = min(neighbours, len(y) - 1)
    _, near = cKDTree(np.stack([y, x], axis=1)).query(np.stack([y, x], axis=1), k=k + 1)
    p, q = np.triu_indices(k, 1)
    hub = np.repeat(np.arange(len(y)), len(p))
    corners = np.stack([hub, near[:, 1:][:, p].ravel(), near[:, 1:][:, q].ravel()], axis=1)
    corners = np.unique(np.sort(corners, axis=1), axis=0)
    corner_z = x[corners] + 1j * y[corners]
    sides = np.abs(corner_z[:, [1, 2, 0]] - corner_z[:, [2, 0, 1]])  # opposite to each corner
    order = np.argsort(-sides, axis=1)
    sides = np.take_along_axis(sides, order, axis=1)
    corners = np.take_along_axis(corners, order, axis=1)
    clear = (sides[:, 0] - sides[:, 1] > tolerance) & (sides[:, 1] - sides[:, 2] > tolerance)
    clear &= sides[:, 2] > 5 * tolerance
    corners, sides = corners[clear], sides[clear]
    shape = np.stack([sides[:, 1] / sides[:, 0], sides[:, 2] / sides[:, 0], np.log(sides[:, 0])], axis=1)
    z = x[corners] + 1j * y[corners]
    turn = np.sign(((z[:, 1] - z[:, 0]) * np.conj(z[:, 2] - z[:, 0])).imag)
    return _Triangles(corners, shape, turn)


def _hypotheses(a: tuple[F64, F64], b: tuple[F64, F64], limits: PatternLimits) -> list[PolyMap]:
    """Return similarity maps in order of the votes they got."""
    first = _triangles(*a, limits.neighbours, limits.tolerance)
    second = _triangles(*b, limits.neighbours, limits.tolerance)
    if len(first.turn) == 0 or len(second.turn) == 0:
        return []
    i, j = _agreeing(first, second, limits)
    if len(i) == 0:
        return []
    turn, shift, votes = _votes(a, b, first.vertices[i], second.vertices[j], limits)
    maps = []
    for best in votes:
        matrix = np.array([[turn[best].real, turn[best].imag], [-turn[best].imag, turn[best].real]])
        center = np.array([a[0].mean(), a[1].mean()])
        maps.append(from_affine(matrix, np.array([shift[best].imag, shift[best].real]) - matrix @ center))
    return maps


def _agreeing(first: _Triangles, second: _Triangles, limits: PatternLimits) -> tuple[IntArray, IntArray]:
    # scaled so that a distance of one is the tolerance in every coordinate
    from scipy.spatial import cKDTree

    longest = np.exp(np.median(first.shape[:, 2]))
    unit = np.array([2 * limits.tolerance / longest] * 2 + [max(limits.max_scale, 2 * limits.tolerance / longest)])
    distance, j = cKDTree(second.shape / unit).query(first.shape / unit, k=12, distance_upper_bound=1.5)
    i, rank = np.nonzero(np.isfinite(distance))
    j = j[i, rank]
    same = first.turn[i] == second.turn[j]
    return i[same], j[same]


def _votes(
    a: tuple[F64, F64], b: tuple[F64, F64], i: IntArray, j: IntArray, limits: PatternLimits
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return every vote's complex turn and the place it maps the centre of `a` to; and the densest votes."""
    from scipy.spatial import cKDTree

    za, zb = (s[1][k] + 1j * s[0][k] for s, k in ((a, i), (b, j)))
    ma, mb = za.mean(axis=1), zb.mean(axis=1)
    da, db = za - ma[:, None], zb - mb[:, None]
    turn = (np.conj(da) * db).sum(axis=1) / (np.abs(da) ** 2).sum(axis=1)
    center = a[1].mean() + 1j * a[0].mean()
    place = mb + turn * (center - ma)
    # small triangles measure angle and scale badly: the limits are held at the end
    allowed = np.abs(np.angle(turn, deg=True)) <= limits.max_rotation + 1
    allowed &= np.abs(np.log(np.abs(turn))) <= limits.max_scale + 0.01
    allowed &= np.abs(place - center) <= limits.max_shift
    turn, place = turn[allowed], place[allowed]
    if len(turn) == 0:
        return turn, place, np.zeros(0, np.int64)
    radius = float(max(np.ptp(a[0]), np.ptp(a[1]))) / 2
    space = np.stack([place.real, place.imag, radius * turn.real, radius * turn.imag], axis=1)
    tree = cKDTree(space)
    reach = 3 * limits.tolerance + 0.01 * radius
    density = np.asarray(tree.query_ball_point(space, reach, return_length=True))
    chosen: list[int] = []
    for candidate in np.argsort(-density, kind="stable"):
        if all(np.linalg.norm(space[candidate] - space[c]) > reach for c in chosen):
            chosen.append(int(candidate))
        if len(chosen) == 8:
            break
    return turn, place, np.array(chosen, np.int64)


def _verify(a: tuple[F64, F64], b: tuple[F64, F64], start: PolyMap, limits: PatternLimits) -> PatternMatch:
    """Match all stars under `start`, refit, and count."""
    current, n, chance, possible = start, 0, 0.0, 0
    for radius in (6 * limits.tolerance, 4 * limits.tolerance, 2 * limits.tolerance, 2 * limits.tolerance):
        mapped = current(*a)
        i, j = mutual_nearest(mapped, b, radius)
        n = len(i)
        chance, possible = _chance(mapped, b, radius)
        if n < 3:
            break
        current = fit_similarity((a[0][i], a[1][i]), (b[0][j], b[1][j]))
    return PatternMatch(current, n, chance, possible)


def _chance(mapped: tuple[F64, F64], b: tuple[F64, F64], radius: float) -> tuple[float, int]:
    """Return how many matches unrelated lists would give, and how many there could be at most."""
    inside = _inside(mapped, b, radius)
    y, x = np.ptp(b[0]), np.ptp(b[1])
    density = len(b[0]) / max(float(y * x), 1.0)
    possible = min(int(inside.sum()), int(_inside(b, mapped, radius).sum()))
    return float(inside.sum() * -np.expm1(-density * np.pi * radius**2)), possible


def _inside(stars: tuple[F64, F64], others: tuple[F64, F64], margin: float) -> BoolArray:
    # whether stars lie in the bounding box of the others
    within = np.ones(len(stars[0]), bool)
    for mine, their in zip(stars, others, strict=True):
        within &= (mine > their.min() - margin) & (mine < their.max() + margin)
    return within


def _significance(match: PatternMatch | None) -> float:
    if match is None or match.n_matched < 3:
        return -np.inf
    return float((match.n_matched - match.n_chance) / np.sqrt(match.n_chance + 1))


def _is_allowed(found: PolyMap, limits: PatternLimits) -> bool:
    matrix, _ = found.affine_at(0.0, 0.0)
    angle = abs(float(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0]))))
    scale = abs(float(np.log(abs(np.linalg.det(matrix)))) / 2)
    return angle <= limits.max_rotation + 0.2 and scale <= limits.max_scale + 0.003


def _is_certain(match: PatternMatch) -> bool:
    # the best of very many trials: unrelated lists reach a significance of six
    if match.n_matched >= 6 and match.n_matched >= 0.6 * match.n_possible and match.n_chance < 0.5:
        return True
    return match.n_matched >= 5 and _significance(match) > 7.5
