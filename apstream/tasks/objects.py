"""What an object is, summed up from its sources: position, epochs, statistics per band."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.assignment import mean_position
from apstream.arrays.lightcurve import curve_statistics, weighted_mean
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.columns import BANDS, DIA_OBJECT
from apstream.model.products import Association, History

__all__ = ["SummarizeConfig", "summarize"]

_Index = NDArray[np.int64]
_Columns = Mapping[str, NDArray[Any]]

_POSITIONS = ("ra", "raErr", "dec", "decErr", "ra_dec_Cov")
_VERSION = ("nDiaSources", "firstDiaSourceMjdTai", "lastDiaSourceMjdTai", "validityStartMjdTai")
_FORCED = ("band", "psfFlux", "psfFluxErr")
_FLUXES = (*_FORCED, "midpointMjdTai", "scienceFlux", "scienceFluxErr")


class SummarizeConfig(BaseModel):
    """Which sources count in the statistics of an object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    excluded_flags: tuple[str, ...] = Field(
        ("psfFlux_flag",), description="Sources with any of these flags are left out of the flux statistics."
    )
    error_floor_arcsec: float = Field(
        0.02, gt=0, description="Added in quadrature to position errors before positions are averaged."
    )
    fallback_error_arcsec: float = Field(0.15, gt=0, description="Position error of a source that has none.")


def summarize(
    association: Association,
    history: History,
    forced: Records,
    now_mjd_tai: float,
    config: SummarizeConfig,
) -> Records:
    """Make the new version of every touched object.

    Parameters
    ----------
    association
        The new sources with their objects.
    history
        Previous versions, sources and forced sources within the history window.
    forced
        New rows of DIA_FORCED_SOURCE.
    now_mjd_tai
        Start of the validity of the new versions; a version never starts before the one it replaces.

    Returns
    -------
    Records
        Rows of DIA_OBJECT in the order of ``association.object_ids``. Statistics run over the sources in the
        history window and the new ones; the number of sources and the first epoch over all of them.
    """
    ids = association.object_ids
    rows = DIA_OBJECT.empty(len(ids))
    rows["diaObjectId"] = ids
    names = (*_POSITIONS, *_FLUXES, *config.excluded_flags)
    sources, at = _of_objects(ids, names, history.sources, association.sources)
    _set_position(rows, sources, at, config)
    _set_flux_statistics(rows, sources, at, config)
    _set_forced_statistics(rows, *_of_objects(ids, _FORCED, history.forced, forced))
    _set_epochs(rows, association, history.objects, now_mjd_tai)
    return rows


def _of_objects(ids: _Index, names: Iterable[str], *tables: Records) -> tuple[_Columns, _Index]:
    """Return columns of the rows that belong to `ids`, with the index of the object of each.

    Column by column: whole rows are wide, and copying them would take most of the time.
    """
    owner = np.concatenate([table["diaObjectId"] for table in tables])
    at = np.minimum(np.searchsorted(ids, owner), max(len(ids) - 1, 0))
    mine = np.isin(owner, ids)
    columns = {name: np.concatenate([table[name] for table in tables])[mine] for name in names}
    return columns, at[mine]


def _set_position(rows: Records, sources: _Columns, at: _Index, config: SummarizeConfig) -> None:
    n = len(rows)
    ra_err, dec_err = (_error(sources[name], config) for name in ("raErr", "decErr"))
    weight = 2 / (ra_err**2 + dec_err**2)
    rows["ra"], rows["dec"] = mean_position(at, n, sources["ra"], sources["dec"], weight)
    total = np.bincount(at, weight, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows["raErr"] = np.sqrt(np.bincount(at, (weight * ra_err) ** 2, n)) / total
        rows["decErr"] = np.sqrt(np.bincount(at, (weight * dec_err) ** 2, n)) / total
        rows["ra_dec_Cov"] = np.bincount(at, weight**2 * sources["ra_dec_Cov"], n) / total**2


def _error(err: NDArray[Any], config: SummarizeConfig) -> F64:
    degrees = np.asarray(err, float)
    known = np.where(degrees > 0, degrees, config.fallback_error_arcsec / 3600)
    return np.asarray(np.hypot(known, config.error_floor_arcsec / 3600))


def _set_flux_statistics(rows: Records, sources: _Columns, at: _Index, config: SummarizeConfig) -> None:
    good = np.ones(len(at), bool)
    for flag in config.excluded_flags:
        good &= ~sources[flag]
    curve, use = _curves(sources["band"], at, good)
    time, flux, err, *science_flux = (
        sources[name][use] for name in ("midpointMjdTai", "psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr")
    )
    n = len(rows) * len(BANDS)
    stats = curve_statistics(curve, n, time, flux, err)
    science = weighted_mean(curve, n, *science_flux)
    values = {
        "psfFluxMean": stats.mean,
        "psfFluxMeanErr": stats.mean_err,
        "psfFluxSigma": stats.sigma,
        "psfFluxNdata": stats.count,
        "psfFluxMin": stats.minimum,
        "psfFluxMax": stats.maximum,
        "psfFluxMaxSlope": stats.max_slope,
        "psfFluxErrMean": stats.err_mean,
        "scienceFluxMean": science[0],
        "scienceFluxMeanErr": science[1],
    }
    _spread(rows, values)


def _set_forced_statistics(rows: Records, forced: _Columns, at: _Index) -> None:
    curve, use = _curves(forced["band"], at, np.ones(len(at), bool))
    mean, err = weighted_mean(curve, len(rows) * len(BANDS), forced["psfFlux"][use], forced["psfFluxErr"][use])
    _spread(rows, {"fpFluxMean": mean, "fpFluxMeanErr": err})


def _curves(bands: NDArray[np.str_], at: _Index, good: BoolArray) -> tuple[_Index, BoolArray]:
    """Number the light curves object by object and band by band; rows in no known band are left out."""
    number = np.full(len(bands), -1, np.int64)
    for k, band in enumerate(BANDS):
        number[bands == band] = k
    use = good & (number >= 0)
    return (at * len(BANDS) + number)[use], use


def _spread(rows: Records, values: Mapping[str, NDArray[Any]]) -> None:
    for name, per_curve in values.items():
        table = per_curve.reshape(len(rows), len(BANDS))
        for number, band in enumerate(BANDS):
            rows[f"{band}_{name}"] = table[:, number]


def _set_epochs(rows: Records, association: Association, before: Records, now_mjd_tai: float) -> None:
    ids = association.object_ids
    new, at = _of_objects(ids, ("midpointMjdTai",), association.sources)
    first, last = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    np.fmin.at(first, at, new["midpointMjdTai"])
    np.fmax.at(last, at, new["midpointMjdTai"])
    rows["nDiaSources"] = np.bincount(at, minlength=len(rows))
    rows["validityStartMjdTai"] = now_mjd_tai
    old, of = _of_objects(ids, _VERSION, before)
    rows["nDiaSources"][of] += old["nDiaSources"]
    first[of] = np.fmin(first[of], old["firstDiaSourceMjdTai"])
    last[of] = np.fmax(last[of], old["lastDiaSourceMjdTai"])
    rows["firstDiaSourceMjdTai"], rows["lastDiaSourceMjdTai"] = first, last
    rows["validityStartMjdTai"][of] = np.maximum(now_mjd_tai, np.nextafter(old["validityStartMjdTai"], np.inf))
