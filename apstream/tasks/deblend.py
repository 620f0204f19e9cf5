"""Photometry of all sources of an image at once: neighbours fitted together, hidden ones found in what is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.deblend import close_up, fit_jointly, neighbour_lists, strip_order
from apstream.arrays.hidden import find_hidden, misfit
from apstream.arrays.polynomial import poly_terms
from apstream.arrays.psf import add_stamps, move_stars, psf_stamps
from apstream.arrays.types import F32, F64, BoolArray, IntArray, Records
from apstream.model.psf import Psf

__all__ = ["DeblendConfig", "Deblended", "deblend"]

_LEAST_HOST = 8.0  # beside fainter sources nothing can hide
_HIDDEN_ROUNDS = 8  # a blend taken for one star has to move apart
_BEND = 1.4  # light lost by a Gaussian fitted at a distance, for the square of the distance in FWHM
_SETTLED = 0.1  # error of the flux, in its standard errors, that no further round is made for
_COLUMNS = ("y", "x", "y_err", "x_err", "flux", "flux_err", "chi2", "hidden")
_SPARE = 4  # one stamp in so many is kept for hidden sources; unused memory costs nothing
_LEAST_FREE = 5.0  # fainter sources keep the position of their peak


class DeblendConfig(BaseModel):
    """How overlapping sources are told apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reach_fwhm: float = Field(2.5, gt=0, le=6, description="neighbours within this distance are fitted together, FWHM")
    fit_radius_fwhm: float = Field(1.2, gt=0.5, le=4, description="radius of the fit around each source, FWHM")
    rounds: int = Field(2, ge=1, le=10, description="rounds of the joint fit")
    max_neighbours: int = Field(6, ge=0, le=20, description="neighbours fitted with a source, the nearest")
    max_peaks: int = Field(20000, ge=1, description="peaks per footprint that are told apart, the brightest")
    hidden_sigma: float | None = Field(
        5.0, gt=0, description="sources found in what stars leave over, sigma; null: none are sought"
    )
    model_error: float = Field(0.02, ge=0, description="part of a star's light that a wrong PSF may leave over")
    templates: bool = Field(True, description="divide blends with extended sources by symmetric templates")


@dataclass(slots=True)
class Deblended:
    """Sources with their PSF photometry; array pixels, arrays of one length.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx), float32
        The image less the PSF models of all sources.
    room : ndarray, shape (more than n, h, w), float32
        Begins with `cube`, the PSF at each source; behind it is room for more.
    hidden : ndarray, shape (n,), bool
        Found in what another source left over.
    """

    y: F64
    x: F64
    y_err: F64
    x_err: F64
    flux: F64
    flux_err: F64
    chi2: F64
    residual: F32
    room: F32
    hidden: BoolArray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def cube(self) -> F32:
        """The PSF at each source, shape (n, h, w)."""
        return self.room[: len(self)]

    def keep(self, chosen: BoolArray) -> None:
        """Keep some of the sources; the light of the others goes back into the residual."""
        gone = ~chosen
        add_stamps(self.residual, self.cube[gone], self.y[gone], self.x[gone], np.nan_to_num(self.flux[gone]))
        close_up(self.room, np.flatnonzero(chosen))
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[chosen])

    def append(self, cube: F32, y: F64, x: F64, flux: F64) -> None:
        """Add hidden sources, and subtract them."""
        count, nan = len(self), np.full(len(y), np.nan)
        add_stamps(self.residual, cube, y, x, -flux)
        if len(self.room) < count + len(y):
            self.room = np.concatenate([self.cube, cube])
        self.room[count : count + len(y)] = cube
        more = {"y": y, "x": x, "flux": flux, "hidden": np.ones(len(y), bool)}
        for name in _COLUMNS:
            setattr(self, name, np.concatenate([getattr(self, name), more.get(name, nan)]))


def deblend(
    image: F32, variance: F32, psf: Psf, start: tuple[F64, F64, F64], *, fwhm: float, config: DeblendConfig
) -> Deblended:
    """Fit the PSF fluxes and positions of all sources together.

    Parameters
    ----------
    image, variance : ndarray, shape (ny, nx), float32
        Background-subtracted; variance NaN where a pixel must not be used.
    psf
        On the box (0, 0, ny, nx).
    start
        y, x (array pixels) and flux to begin with.
    fwhm
        Of the PSF, pixels.

    Returns
    -------
    Deblended
        NaN fluxes where a source cannot be fitted.
    """
    sources = _begin(image, psf, start)
    _settle(sources, variance, psf, fwhm, config, np.arange(len(sources)), config.rounds)
    if config.hidden_sigma is not None:
        _add_hidden(sources, image, variance, psf, fwhm, config)
    fitted = np.isfinite(sources.flux)
    sources.chi2[fitted] = misfit(
        image, sources.residual, variance, sources.y[fitted], sources.x[fitted],
        radius=_radius(config, fwhm), model_error=0.0,
    )  # fmt: skip
    return sources


def _begin(image: F32, psf: Psf, start: tuple[F64, F64, F64]) -> Deblended:
    order = strip_order(start[0], start[1])
    y, x, flux = (np.asarray(values, float)[order] for values in start)
    nan = np.full(len(y), np.nan)
    room = np.empty((len(y) + len(y) // _SPARE, *psf.basis.shape[1:]), np.float32)
    cube = psf_stamps(psf.basis, _terms(psf, y, x), y=y, x=x, out=room[: len(y)])
    residual = image.copy()
    add_stamps(residual, cube, y, x, -flux)
    return Deblended(y, x, nan.copy(), nan.copy(), flux, nan.copy(), nan.copy(), residual, room, np.zeros(len(y), bool))


def _terms(psf: Psf, y: F64, x: F64) -> F64:
    return np.ascontiguousarray(poly_terms(*psf.box.normalize(y, x), psf.degree).T)


def _radius(config: DeblendConfig, fwhm: float) -> float:
    return max(config.fit_radius_fwhm * fwhm, 2.5)


def _settle(
    sources: Deblended, variance: F32, psf: Psf, fwhm: float, config: DeblendConfig, index: IntArray, rounds: int
) -> None:
    """Fit the sources of `index` until they rest; what lies beside one that moved is fitted again."""
    links = neighbour_lists(sources.y, sources.x, config.reach_fwhm * fwhm)
    for _ in range(rounds):
        if not len(index):
            return
        fit = fit_jointly(
            (sources.residual, variance), (sources.cube, sources.y, sources.x), links, free=_bright(sources),
            radius=_radius(config, fwhm), most=config.max_neighbours, rows=index,
        )  # fmt: skip
        index = _and_neighbours(index[_update(sources, psf, fwhm, index, fit)], links)


def _and_neighbours(index: IntArray, links: tuple[IntArray, IntArray]) -> IntArray:
    starts, others = links
    chosen = np.zeros(len(starts) - 1, bool)
    chosen[index] = True
    owner = np.repeat(np.arange(len(chosen)), np.diff(starts))
    chosen[others[chosen[owner]]] = True
    return np.flatnonzero(chosen)


def _update(sources: Deblended, psf: Psf, fwhm: float, index: IntArray, fit: Records) -> BoolArray:
    """Correct sources by what a round has found; tell which moved so far that the next round may change them."""
    y, x, flux = sources.y[index], sources.x[index], sources.flux[index]
    new = np.maximum(np.nan_to_num(flux) + fit["flux"], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        dy, dx = (np.clip(np.nan_to_num(fit[name] / new), -0.5, 0.5) for name in ("fdy", "fdx"))
        sources.y_err[index], sources.x_err[index] = fit["fdy_err"] / new, fit["fdx_err"] / new
        bend = _BEND * (dy**2 + dx**2) / fwhm**2 * new / fit["flux_err"]
    sources.flux_err[index] = fit["flux_err"]
    _place(sources, psf, index, y + dy, x + dx, new)
    return np.asarray(bend > _SETTLED)


def _place(sources: Deblended, psf: Psf, index: IntArray, y: F64, x: F64, flux: F64) -> None:
    """Move sources, and subtract them anew."""
    old = sources.y[index], sources.x[index], sources.flux[index]
    move_stars(sources.residual, sources.cube, psf.basis, _terms(psf, y, x), index, old, (y, x, flux))
    sources.y[index], sources.x[index], sources.flux[index] = y, x, flux


def _bright(sources: Deblended) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(~(sources.flux < _LEAST_FREE * sources.flux_err))


def _add_hidden(sources: Deblended, image: F32, variance: F32, psf: Psf, fwhm: float, config: DeblendConfig) -> None:
    """Find sources in what others leave over, fit them with these, and keep those that explain it."""
    count = len(sources)
    suspects = np.flatnonzero(sources.flux > _LEAST_HOST * sources.flux_err)
    y, x, flux, host = find_hidden(
        (image, sources.residual, variance), sources.cube[suspects], (sources.y[suspects], sources.x[suspects]),
        fwhm=fwhm, n_sigma=float(config.hidden_sigma or 5.0), model_error=config.model_error,
    )  # fmt: skip
    if not len(host):
        return
    order = strip_order(y, x)
    y, x, flux, host = y[order], x[order], flux[order], host[order]
    host, reach = suspects[host], config.reach_fwhm * fwhm
    before = sources.y.copy(), sources.x.copy(), sources.flux.copy()
    sources.append(psf_stamps(psf.basis, _terms(psf, y, x), y=y, x=x), y, x, flux)
    _settle(sources, variance, psf, fwhm, config, _within(sources, y, x, reach), _HIDDEN_ROUNDS)
    good = _explained(sources, image, variance, host, count, fwhm, config)
    if good.all():
        return
    moved = _within(sources, y[~good], x[~good], reach)
    moved = np.union1d(moved[moved < count], host[~good])
    sources.keep(np.concatenate([np.ones(count, bool), good]))
    _place(sources, psf, moved, *(values[moved] for values in before))  # they had made room for what is none
    _settle(sources, variance, psf, fwhm, config, moved, _HIDDEN_ROUNDS)


def _within(sources: Deblended, y: F64, x: F64, radius: float) -> IntArray:
    """Return the sources that are near one of the places."""
    from scipy.spatial import cKDTree

    places = np.column_stack([sources.y, sources.x])
    gap, _ = cKDTree(np.column_stack([y, x])).query(places, distance_upper_bound=radius)
    return np.flatnonzero(np.isfinite(gap))


def _explained(
    sources: Deblended, image: F32, variance: F32, host: IntArray, count: int, fwhm: float, config: DeblendConfig
) -> BoolArray:
    """Tell which hidden sources are significant and make stars of their hosts: a galaxy is never explained."""
    new = np.arange(count, len(sources))
    left = [
        misfit(image, sources.residual, variance, sources.y[rows], sources.x[rows],
               radius=1.5 * fwhm, model_error=config.model_error)
        for rows in (host, new)
    ]  # fmt: skip
    with np.errstate(invalid="ignore"):
        snr = sources.flux[new] / sources.flux_err[new]
        gap = np.hypot(sources.y[new] - sources.y[host], sources.x[new] - sources.x[host])
        good = (np.maximum(*left) < 1.5) & (snr > float(config.hidden_sigma or 5.0)) & (gap > 0.5 * fwhm)
    return np.asarray(good)
