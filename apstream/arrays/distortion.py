"""How much distortion matched stars can prove, and how far positions scatter beyond their known errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import n_terms
from apstream.arrays.sip import SipFit, evaluate_sip, fit_sip, project
from apstream.arrays.types import F64, BoolArray, FloatArray

__all__ = ["Distortion", "fit_distortion"]

#: Stars for every term of a polynomial.
_STARS_PER_TERM = 4
#: Median of the squared length of a 2-D Gaussian of unit variance per axis.
_MEDIAN_SQUARE = 2 * np.log(2)


@dataclass(frozen=True, slots=True, eq=False)
class Distortion:
    """A TAN-SIP solution, which stars made it, and what they scatter.

    Parameters
    ----------
    fit
        The solution.
    degree, radial
        Its polynomial, and whether it has the radial cubic term.
    used
        Stars not rejected.
    residual : ndarray, shape (n, 2)
        Catalogue minus solution, arcsec east and north, of all stars.
    excess
        Scatter per axis beyond the known errors, arcsec.
    error
        Standard error per axis of the solution at the stars that made it, rms by their weights, arcsec.
    """

    fit: SipFit
    degree: int
    radial: bool
    used: BoolArray
    residual: F64
    excess: float
    error: float


def fit_distortion(
    pixels: tuple[FloatArray, FloatArray],
    sky: tuple[FloatArray, FloatArray],
    error: FloatArray,
    *,
    crpix: tuple[float, float],
    max_degree: int,
    nsigma: float,
) -> Distortion:
    """Fit TAN-SIP with rejection, with as many terms as the stars prove.

    Plain TAN, one radial cubic term, and polynomials of rising degree are tried, each alone and with the radial
    term where it has none of its own; the one with the least Bayesian information criterion (Schwarz 1978, Ann.
    Stat. 6, 461) is kept. Errors that the table does not know (motions, a catalogue's own) appear as scatter
    in excess, which is shared by all stars and enters the weights.

    Parameters
    ----------
    pixels, sky
        (y, x), 0-based, and (ra, dec), degrees, of the pairs.
    error : ndarray, shape (n,)
        Known standard error per axis, arcsec, above zero.
    crpix
        (y, x) of the reference pixel.

    Raises
    ------
    ValueError
        If there are fewer than three pairs.
    """
    best = _Fitter(pixels, sky, np.asarray(error, float), crpix)
    used, excess = np.ones(len(pixels[0]), bool), float(np.median(error))
    for _ in range(12):
        chosen = _choose(best, used, excess, max_degree)
        excess = _excess(chosen[2], best.error, used, chosen[3])
        size = np.hypot(*chosen[2].T) / np.hypot(best.error, excess)
        kept = size <= nsigma * np.sqrt(2) * max(1.0, float(np.sqrt(np.median(size[used] ** 2) / _MEDIAN_SQUARE)))
        if np.array_equal(kept, used) or kept.sum() < 3:
            break
        used = kept
    (degree, radial), fit, residual, terms = _choose(best, used, excess, max_degree)
    weight = float(np.sum(1 / (best.error[used] ** 2 + excess**2)))
    return Distortion(fit, degree, radial, used, residual, excess, (terms / 2 / weight) ** 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitter:
    pixels: tuple[FloatArray, FloatArray]
    sky: tuple[FloatArray, FloatArray]
    error: F64
    crpix: tuple[float, float]

    def __call__(self, used: BoolArray, excess: float, model: tuple[int, bool]) -> tuple[SipFit, F64]:
        fit = fit_sip(
            (self.pixels[0][used], self.pixels[1][used]),
            (self.sky[0][used], self.sky[1][used]),
            crpix=self.crpix,
            degree=model[0],
            radial=model[1],
            weights=1 / np.hypot(self.error[used], excess),
        )
        there = evaluate_sip(fit, *self.pixels, crpix=self.crpix)
        mine, theirs = (np.stack(project(ra, dec, *fit.crval), axis=1) for ra, dec in (there, self.sky))
        return fit, (theirs - mine) * 3600


def _choose(
    fitter: _Fitter, used: BoolArray, excess: float, max_degree: int
) -> tuple[tuple[int, bool], SipFit, F64, int]:
    """Return model, solution, residuals (arcsec) and number of terms of the least information criterion."""
    found = []
    n = 2 * int(used.sum())
    for model, terms in _models(int(used.sum()), max_degree):
        fit, residual = fitter(used, excess, model)
        square = np.sum(residual[used] ** 2, axis=1) / (fitter.error[used] ** 2 + excess**2)
        found.append((n * np.log(max(float(square.sum()), 1e-30)) + terms * np.log(n), model, fit, residual, terms))
    _, model, fit, residual, terms = min(found, key=lambda one: one[0])
    return model, fit, residual, terms


def _models(stars: int, max_degree: int) -> Iterator[tuple[tuple[int, bool], int]]:
    """Yield (degree, radial) and the number of terms of the models that so many stars may have."""
    yield (1, False), 6
    for degree in range(1, max_degree + 1):
        if degree > 1 and stars >= _STARS_PER_TERM * n_terms(degree):
            yield (degree, False), 2 * n_terms(degree)
        if degree < 3 <= max_degree and stars >= _STARS_PER_TERM * (n_terms(degree) + 1):
            yield (degree, True), 2 * n_terms(degree) + 1


def _excess(residual: F64, error: F64, used: BoolArray, terms: int) -> float:
    """Return the scatter per axis that, beside the known errors, makes the median residual what it should be."""
    n = int(used.sum())
    square = np.sum(residual[used] ** 2, axis=1) * (2 * n / max(2 * n - terms, 1))
    known = error[used] ** 2

    def too_small(excess: float) -> bool:
        return bool(np.median(square / (known + excess**2)) > _MEDIAN_SQUARE)

    low, high = 0.0, float(np.sqrt(np.median(square)) * 3)
    if not too_small(low):
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high
