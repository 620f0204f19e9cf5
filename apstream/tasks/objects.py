"""What an object is, summed up from its sources: position, epochs, statistics per band."""

from __future__ import annotations

from collections.abc import Mapping
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
    sources, at = _of_objects(ids, history.sources, association.sources)
    _set_position(rows, sources, at, config)
    _set_flux_statistics(rows, sources, at, config)
    _set_forced_statistics(rows, *_of_objects(ids, history.forced, forced))
    _set_epochs(rows, association, history.objects, now_mjd_tai)
    return rows


def _of_objects(ids: _Index, *tables: Records) -> tuple[Records, _Index]:
    """Return the rows that belong to `ids`, with the index of the object of each."""
    rows = np.concatenate(tables)
    if len(ids) == 0:
        return rows[:0], np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(ids, rows["diaObjectId"]), len(ids) - 1)
    mine = ids[at] == rows["diaObjectId"]
    return rows[mine], at[mine]


def _set_position(rows: Records, sources: Records, at: _Index, config: SummarizeConfig) -> None:
    n = len(rows)
    ra_err, dec_err = (_error(sources[name], config) for name in ("raErr", "decErr"))
    weight = 2 / (ra_err**2 + dec_err**2)
    rows["ra"], rows["dec"] = mean_position(at, n, sources["ra"], sources["dec"], weight)
    total = np.bincount(at, weight, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows["raErr"] = np.sqrt(np.bincount(at, (weight * ra_err) ** 2, n)) / total
        rows["decErr"] = np.sqrt(np.bincount(at, (weight * dec_err) ** 2, n)) / total
        rows["ra_dec_Cov"] = np.bincount(at, weight**2 * sources["ra_dec_Cov"], n) / total**2


def _error(err: Records, config: SummarizeConfig) -> F64:
    degrees = np.asarray(err, float)
    known = np.where(degrees > 0, degrees, config.fallback_error_arcsec / 3600)
    return np.asarray(np.hypot(known, config.error_floor_arcsec / 3600))


def _set_flux_statistics(rows: Records, sources: Records, at: _Index, config: SummarizeConfig) -> None:
    good = np.ones(len(sources), bool)
    for flag in config.excluded_flags:
        good &= ~sources[flag]
    sources, at = sources[good], at[good]
    curve, banded = _curves(sources, at)
    sources, n = sources[banded], len(rows) * len(BANDS)
    stats = curve_statistics(curve, n, sources["midpointMjdTai"], sources["psfFlux"], sources["psfFluxErr"])
    science = weighted_mean(curve, n, sources["scienceFlux"], sources["scienceFluxErr"])
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


def _set_forced_statistics(rows: Records, forced: Records, at: _Index) -> None:
    curve, banded = _curves(forced, at)
    n = len(rows) * len(BANDS)
    mean, err = weighted_mean(curve, n, forced["psfFlux"][banded], forced["psfFluxErr"][banded])
    _spread(rows, {"fpFluxMean": mean, "fpFluxMeanErr": err})


def _curves(rows: Records, at: _Index) -> tuple[_Index, BoolArray]:
    """Number the light curves object by object and band by band; rows in no known band are left out."""
    band = np.full(len(rows), -1, np.int64)
    for number, name in enumerate(BANDS):
        band[rows["band"] == name] = number
    known = band >= 0
    return (at * len(BANDS) + band)[known], known


def _spread(rows: Records, values: Mapping[str, NDArray[Any]]) -> None:
    for name, per_curve in values.items():
        table = per_curve.reshape(len(rows), len(BANDS))
        for number, band in enumerate(BANDS):
            rows[f"{band}_{name}"] = table[:, number]


def _set_epochs(rows: Records, association: Association, before: Records, now_mjd_tai: float) -> None:
    new, at = _of_objects(association.object_ids, association.sources)
    first, last = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    np.fmin.at(first, at, new["midpointMjdTai"])
    np.fmax.at(last, at, new["midpointMjdTai"])
    rows["nDiaSources"] = np.bincount(at, minlength=len(rows))
    rows["validityStartMjdTai"] = now_mjd_tai
    old, of = _of_objects(association.object_ids, before)
    rows["nDiaSources"][of] += old["nDiaSources"]
    first[of] = np.fmin(first[of], old["firstDiaSourceMjdTai"])
    last[of] = np.fmax(last[of], old["lastDiaSourceMjdTai"])
    rows["firstDiaSourceMjdTai"], rows["lastDiaSourceMjdTai"] = first, last
    rows["validityStartMjdTai"][of] = np.maximum(now_mjd_tai, np.nextafter(old["validityStartMjdTai"], np.inf))
