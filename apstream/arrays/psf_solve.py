"""Solve the pixels of a PSF, and the polynomials by which they vary, from stars on a common grid.

What a pixel's own data do not tell is expected: a round mean, and variation that widens and shears it. How much it
widens and shears is the most probable amount given all pixels at once, and how much to trust these amounts is
learnt from themselves (empirical Bayes; MacKay 1992, Neural Computation 4, 415). So the wings, faint in
any pixel, widen with the core. A wide star with narrow wings would have, as all sum to one, too much light in its core.
"""

from __future__ import annotations

import numpy as np

from apstream.arrays.types import F64

__all__ = ["normalise", "pedestal", "rings", "round_profile", "solve"]

_MEAN_SPREAD, _SPREAD = 0.5, 0.1  # what a pixel may differ by from what is expected, of the profile: mean and variation
_FIRST_AMOUNT, _ROUNDS = 0.05, 6  # of widening and shear: where the search for their size begins, and its length
_RING = 0.25  # width of the rings in which the profile's slope is taken, in log(1 + r^2 / FWHM^2)
_KINDS = np.array([0, 1, 1])  # widening, and the two components of a shear, which are alike


def solve(target: F64, weight: F64, terms: F64, profile: F64) -> F64:
    """Solve each pixel's polynomial by ridge regression about what is expected.

    Parameters
    ----------
    target, weight : ndarray, shape (n, h, w)
        Stars of unit light on the grid of the PSF, and the inverse variance of their pixels; zero is not used.
    terms : ndarray, shape (n, count)
        Polynomial terms at the stars, the first one constant.
    profile : ndarray, shape (h, w)
        The mean star made round.

    Returns
    -------
    ndarray, shape (count, h, w)
    """
    count, light = terms.shape[1], profile.ravel()
    w, t = weight.reshape(len(weight), -1), target.reshape(len(target), -1)
    normal = np.einsum("sp,sa,sb->pab", w, terms, terms, optimize=True)
    vector = np.einsum("sp,sp,sa->pa", w, t, terms, optimize=True)
    precision = (np.where(np.arange(count) == 0, _MEAN_SPREAD, _SPREAD) * light[:, None] + 1e-7) ** -2.0
    normal[:, np.arange(count), np.arange(count)] += precision
    vector[:, 0] += precision[:, 0] * light
    if count > 1:
        vector[:, 1:] += precision[:, 1:] * _variation(normal, vector, precision, profile)
    solution = np.linalg.solve(normal, vector[:, :, None])[:, :, 0]
    return np.ascontiguousarray(solution.T.reshape(count, *profile.shape))


def _variation(normal: F64, vector: F64, precision: F64, profile: F64) -> F64:
    """Return the variation to expect, shape (pixels, terms but the constant one).

    `normal` and `vector` are those of pixels of which no variation is expected.
    """
    patterns, inverse = _patterns(profile), np.linalg.inv(normal)
    free, n = precision[:, 1:], len(patterns)
    # The pixels solved for, what is left is quadratic in the amounts of the patterns.
    known = -free[:, :, None] * inverse[:, 1:, 1:] * free[:, None, :]
    known[:, np.arange(free.shape[1]), np.arange(free.shape[1])] += free
    pull = free * np.einsum("pab,pb->pa", inverse, vector)[:, 1:]
    information = np.einsum("pab,kp,lp->kalb", known, patterns, patterns, optimize=True)
    side = n * free.shape[1]
    amounts = _amounts(information.reshape(side, side), (patterns @ pull).ravel(), np.repeat(_KINDS, free.shape[1]))
    return np.asarray((amounts.reshape(n, -1).T @ patterns).T)


def _amounts(information: F64, vector: F64, kind: F64) -> F64:
    """Return the most probable amounts, their variance by kind estimated along."""
    square = np.full(len(information), _FIRST_AMOUNT**2)
    for _ in range(_ROUNDS):
        covariance = np.linalg.inv(information + np.diag(1 / square))
        amounts = covariance @ vector
        found = amounts**2 + np.diag(covariance)
        square = np.array([found[kind == one].mean() for one in kind])
    return np.asarray(np.linalg.solve(information + np.diag(1 / square), vector))


def _patterns(profile: F64) -> F64:
    """Return what a round profile changes by when it widens, and by the two components of a shear; flat.

    Its logarithm is a line over log(1 + r^2 / FWHM^2) where it is a Moffat function, and nearly one where it is not,
    so that a few rings tell its slope.
    """
    light, distance = profile - pedestal(profile), rings(len(profile) // 2)
    width = max(4 / np.pi * np.count_nonzero(light > 0.5 * light.max()), 4.0)
    place = np.log1p(distance**2 / width)
    ring = np.rint(place / _RING).astype(int).ravel()
    count = np.bincount(ring)
    there = count > 0
    middle, mean = (np.bincount(ring, values.ravel())[there] / count[there] for values in (place, light))
    log = np.log(np.maximum(mean, max(1e-6 * light.max(), 1e-30)))
    smooth = np.exp(np.interp(place, middle, log))
    fall = smooth * np.interp(place, middle, np.gradient(log, middle)) * 2 / (width + distance**2)
    offsets = np.arange(len(profile)) - len(profile) // 2
    y, x = offsets[:, None], offsets[None, :]
    bent = (2 * smooth + fall * distance**2, fall * (x**2 - y**2), 2 * fall * x * y)
    return -np.array([pattern.ravel() for pattern in bent])


def rings(half: int) -> F64:
    """Return the distance of each pixel of a stamp from its middle."""
    offsets = np.arange(-half, half + 1)
    return np.asarray(np.hypot(offsets[:, None], offsets[None, :]))


def round_profile(target: F64, weight: F64) -> F64:
    """Return the azimuthal mean of the mean star, not below zero, shape (h, w)."""
    mean = ((weight * target).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)).ravel()
    shape = target.shape[1:]
    ring = np.rint(rings(shape[0] // 2)).astype(int).ravel()
    by_ring = np.bincount(ring, mean) / np.maximum(np.bincount(ring), 1)
    return np.asarray(np.maximum(by_ring, 0)[ring].reshape(shape))


def normalise(basis: F64) -> F64:
    """Take the pedestal off, scale term 0 to unit sum and the others to zero sum: every kernel sums to one."""
    basis = basis.copy()
    basis[0] -= pedestal(basis[0])
    sums = basis.sum(axis=(1, 2))
    out = basis / sums[0]
    for k in range(1, len(basis)):
        out[k] -= sums[k] / sums[0] * out[0]
    return np.ascontiguousarray(out)


def pedestal(kernel: F64, *, slope: float = 5.0) -> float:
    """Return the constant under a kernel whose wings fall as radius to the power -`slope`.

    A constant in the PSF cannot be told from the stars' local backgrounds; the outer profile decides.
    """
    half = kernel.shape[0] // 2
    radius = rings(half)
    inner = float(np.mean(kernel[np.abs(radius - 0.6 * half) < max(0.08 * half, 0.5)]))
    outer = float(np.mean(kernel[np.abs(radius - 0.95 * half) < max(0.08 * half, 0.5)]))
    fall = (0.95 / 0.6) ** -slope
    return float((outer - fall * inner) / (1 - fall))
