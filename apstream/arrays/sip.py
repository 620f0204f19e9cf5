"""Gnomonic projection and the linear least-squares fit of a TAN-SIP solution (Shupe et al. 2005)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apstream.arrays.polynomial import degree_of, n_terms, poly_terms
from apstream.arrays.types import F64, FloatArray

__all__ = ["SipFit", "bent", "deproject", "evaluate_sip", "fit_sip", "project", "sip_inverse", "unbent"]

#: Steps towards the inverse of a distortion, how small the last one is, and how far off is lost, pixels.
_STEPS, _SMALL, _LOST = 30, 1e-8, 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class SipFit:
    """TAN-SIP terms about a reference pixel.

    Parameters
    ----------
    crval
        (ra, dec) of the reference pixel, degrees.
    cd : ndarray, shape (2, 2)
        Degrees per pixel; rows xi, eta, columns x, y.
    a, b : ndarray, shape (degree + 1, degree + 1)
        SIP terms A[p, q] of x^p y^q, zero below degree two.
    """

    crval: tuple[float, float]
    cd: F64
    a: F64
    b: F64

    @property
    def degree(self) -> int:
        """Highest degree; one means no distortion."""
        return len(self.a) - 1


def project(ra: FloatArray, dec: FloatArray, ra0: float, dec0: float) -> tuple[F64, F64]:
    """Return gnomonic (xi, eta) in degrees about (ra0, dec0); NaN beyond the horizon."""
    a, d, a0, d0 = (np.deg2rad(np.asarray(v, float)) for v in (ra, dec, ra0, dec0))
    cosine = np.sin(d) * np.sin(d0) + np.cos(d) * np.cos(d0) * np.cos(a - a0)
    cosine = np.where(cosine > 1e-6, cosine, np.nan)
    xi = np.cos(d) * np.sin(a - a0) / cosine
    eta = (np.sin(d) * np.cos(d0) - np.cos(d) * np.sin(d0) * np.cos(a - a0)) / cosine
    return np.rad2deg(xi), np.rad2deg(eta)


def deproject(xi: FloatArray, eta: FloatArray, ra0: float, dec0: float) -> tuple[F64, F64]:
    """Return (ra, dec) in degrees of gnomonic positions; the inverse of `project`."""
    x, y, a0, d0 = (np.deg2rad(np.asarray(v, float)) for v in (xi, eta, ra0, dec0))
    below = np.cos(d0) - y * np.sin(d0)
    ra = a0 + np.arctan2(x, below)
    dec = np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, below))
    return np.rad2deg(ra) % 360, np.rad2deg(dec)


def fit_sip(
    pixels: tuple[FloatArray, FloatArray],
    sky: tuple[FloatArray, FloatArray],
    *,
    crpix: tuple[float, float],
    degree: int,
    radial: bool = False,
    weights: FloatArray | None = None,
) -> SipFit:
    """Fit a TAN-SIP solution to matched stars by linear least squares.

    Parameters
    ----------
    pixels
        (y, x), 0-based.
    sky
        (ra, dec), degrees.
    crpix
        (y, x) of the reference pixel, 0-based; its sky position is found.
    degree
        Of the polynomial; one gives a plain TAN.
    radial
        Whether one more term, radial and cubic about the reference pixel, is fitted; for a degree below three.
    weights
        Inverse standard errors; None for equal ones.

    Raises
    ------
    ValueError
        If there are fewer stars than terms.
    """
    v, u = np.asarray(pixels[0], float) - crpix[0], np.asarray(pixels[1], float) - crpix[1]
    if len(u) < n_terms(degree):
        raise ValueError(f"{len(u)} stars cannot fix a TAN-SIP solution of degree {degree}")
    ra0, dec0 = _mean_position(*sky)
    k, cd, here = 0.0, np.eye(2), (ra0, dec0)
    for step in range(6 if radial else 5):  # the reference position moves to where the constant term vanishes
        plane, here = np.stack(project(*sky, ra0, dec0), axis=1), (ra0, dec0)
        if radial and step:
            solution, k = _fit_radial(u, v, plane, degree, weights, cd)
        else:
            solution = _fit_plane(u, v, plane, degree, weights)
        cd = np.asarray(solution[1:3].T)
        ra, dec = deproject(solution[0, 0], solution[0, 1], ra0, dec0)
        ra0, dec0 = float(ra), float(dec)
    a, b = _square((np.linalg.inv(cd) @ solution.T), max(degree, 3) if k else degree)
    if k:
        a[3, 0] += k
        a[1, 2] += k
        b[0, 3] += k
        b[2, 1] += k
    return SipFit(here, cd, a, b)


def evaluate_sip(fit: SipFit, y: FloatArray, x: FloatArray, *, crpix: tuple[float, float]) -> tuple[F64, F64]:
    """Return (ra, dec) in degrees of 0-based pixels; `crpix` is (y, x) of the reference pixel."""
    v, u = np.asarray(y, float) - crpix[0], np.asarray(x, float) - crpix[1]
    xi, eta = fit.cd @ np.stack(bent(u, v, fit.a, fit.b))
    return deproject(xi, eta, *fit.crval)


def bent(u: F64, v: F64, a: F64, b: F64) -> tuple[F64, F64]:
    """Return pixel offsets from the reference pixel, (x, y), with the distortion of SIP terms added."""
    big_u, big_v = np.array(u, float), np.array(v, float)
    for values, terms in ((big_u, a), (big_v, b)):
        for p, q in np.argwhere(terms != 0):
            values += terms[p, q] * u**p * v**q
    return big_u, big_v


def unbent(big_u: F64, big_v: F64, a: F64, b: F64) -> tuple[F64, F64]:
    """Return the offsets that `bent` makes these of, by repeated substitution; NaN where that leads nowhere."""
    u, v = np.array(big_u, float), np.array(big_v, float)
    step = np.full(np.shape(u), np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_STEPS):
            off_u, off_v = bent(u, v, a, b)
            off_u, off_v = off_u - big_u, off_v - big_v
            step = np.hypot(off_u, off_v)
            u, v = u - off_u, v - off_v
            if not (np.asarray(step)[np.isfinite(step)] > _SMALL).any():
                break
        lost = ~(step < _LOST)
    return np.where(lost, np.nan, u), np.where(lost, np.nan, v)


def _mean_position(ra: FloatArray, dec: FloatArray) -> tuple[float, float]:
    a, d = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    x, y, z = (np.cos(d) * np.cos(a)).mean(), (np.cos(d) * np.sin(a)).mean(), np.sin(d).mean()
    return float(np.rad2deg(np.arctan2(y, x)) % 360), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))


def _fit_plane(u: F64, v: F64, values: F64, degree: int, weights: FloatArray | None) -> F64:
    """Return polynomial coefficients in pixels, shape (n_terms, 2), solved on a normalised domain."""
    scale = max(float(np.abs(u).max()), float(np.abs(v).max()), 1.0)
    w = np.ones(len(u)) if weights is None else np.asarray(weights, float)
    terms = poly_terms(v / scale, u / scale, degree)
    solution, *_ = np.linalg.lstsq((terms * w).T, values * w[:, None], rcond=None)
    total = np.array([t for t in range(degree + 1) for _ in range(t + 1)])
    return np.asarray(solution / scale ** total[:, None])


def _fit_radial(u: F64, v: F64, values: F64, degree: int, weights: FloatArray | None, cd: F64) -> tuple[F64, float]:
    """Fit as `_fit_plane` together with one radial cubic term, whose direction the matrix `cd` gives."""
    scale = max(float(np.abs(u).max()), float(np.abs(v).max()), 1.0)
    w = np.ones(len(u)) if weights is None else np.asarray(weights, float)
    terms = (poly_terms(v / scale, u / scale, degree) * w).T
    r2 = (u**2 + v**2) / scale**2
    along = (cd @ np.stack([u * r2, v * r2])) * w
    n = terms.shape[1]
    design = np.zeros((2 * len(u), 2 * n + 1))
    design[: len(u), :n], design[len(u) :, n : 2 * n] = terms, terms
    # in units of the plane's own size, so that all columns are of one order
    unit = float(np.sqrt(abs(np.linalg.det(cd)))) * scale
    design[:, -1] = along.ravel() / unit
    solution, *_ = np.linalg.lstsq(design, (values * w[:, None]).T.ravel(), rcond=None)
    total = np.array([t for t in range(degree + 1) for _ in range(t + 1)])
    plane = np.stack([solution[:n], solution[n : 2 * n]], axis=1) / scale ** total[:, None]
    return plane, float(solution[-1] / unit / scale**2)


def _square(terms: F64, degree: int) -> tuple[F64, F64]:
    """Put the terms of degree two and more into (p, q) matrices."""
    out = np.zeros((2, degree + 1, degree + 1))
    index = 0
    for total in range(degree_of(terms.shape[1]) + 1):
        for q in range(total + 1):
            if total >= 2:
                out[:, total - q, q] = terms[:, index]
            index += 1
    return out[0], out[1]


def sip_inverse(fit: SipFit, u_range: tuple[float, float], v_range: tuple[float, float]) -> tuple[F64, F64]:
    """Fit the inverse terms AP, BP over a range of pixel offsets from the reference pixel.

    Returns
    -------
    ap, bp : ndarray, shape (degree + 2, degree + 2)
        u = U + sum AP[p, q] U^p V^q and the like for v, where U = u + A(u, v).
    """
    degree = fit.degree + 1
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(*u_range, 25), np.linspace(*v_range, 25)))
    powers = [(p, q) for p in range(fit.degree + 1) for q in range(fit.degree + 1 - p)]
    big_u = u + sum(fit.a[p, q] * u**p * v**q for p, q in powers)
    big_v = v + sum(fit.b[p, q] * u**p * v**q for p, q in powers)
    solution = _fit_plane(big_u, big_v, np.stack([u - big_u, v - big_v], axis=1), degree, None)
    out = np.zeros((2, degree + 1, degree + 1))
    index = 0
    for total in range(degree + 1):
        for q in range(total + 1):
            out[:, total - q, q] = solution[index]
            index += 1
    return out[0], out[1]
