"""Which source belongs to which object: optimal assignment on the position likelihood."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from apstream.arrays.assignment import assign, close_pairs, tangent_offsets, unit_vectors
from apstream.arrays.types import F64, BoolArray, Records
from apstream.model.columns import DIA_OBJECT, DIA_SOURCE
from apstream.model.products import Association, History

__all__ = ["AssociateConfig", "associate"]


class AssociateConfig(BaseModel):
    """How sources find their objects, and which sources may begin a new one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate_arcsec: float = Field(1.0, gt=0, le=10, description="A source further away than this never joins an object.")
    error_floor_arcsec: float = Field(
        0.05,
        gt=0,
        description="Added in quadrature to the position errors: astrometric scatter between visits.",
    )
    fallback_error_arcsec: float = Field(0.15, gt=0, description="Position error of a source or object that has none.")
    new_object_forbidden_flags: tuple[str, ...] = Field(
        (), description="Sources with any of these flags join objects but begin none."
    )
    new_object_min_snr: float = Field(0.0, ge=0, description="Fainter sources join objects but begin none.")
    new_object_min_reliability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Less reliable sources join objects but begin none; unrated ones may begin.",
    )


def associate(sources: Records, history: History, config: AssociateConfig) -> Association:
    """Give sources the ids of the objects they belong to.

    Sources that already have an ``ssObjectId`` stay without an object. The others are assigned to the
    objects within the gate such that the sum of the negative log likelihoods of the position residuals is
    least; a source left over costs as much as one at the edge of the gate. What stays alone begins an
    object whose id is its own, unless the settings forbid it.

    Parameters
    ----------
    sources
        Rows of DIA_SOURCE of one visit and detector.
    history
        What is known of the region.

    Returns
    -------
    Association
        Copies of the sources, in order, with ``diaObjectId`` set (0 where none), and the touched objects
        in ascending order of id.
    """
    sources = DIA_SOURCE.require(sources).copy()
    free = (sources["ssObjectId"] == 0) & np.isfinite(sources["ra"]) & np.isfinite(sources["dec"])
    sources["diaObjectId"] = 0
    match = _match(sources[free], history.objects, config)
    known = np.where(match >= 0, history.objects["diaObjectId"][match] if len(history.objects) else 0, 0)
    sources["diaObjectId"][free] = known
    begins = free & (sources["diaObjectId"] == 0) & _may_begin(sources, config)
    sources["diaObjectId"][begins] = sources["diaSourceId"][begins]
    ids = np.unique(sources["diaObjectId"][sources["diaObjectId"] != 0])
    return Association(sources, ids, np.isin(ids, sources["diaObjectId"][begins]))


def _match(sources: Records, objects: Records, config: AssociateConfig) -> NDArray[np.int64]:
    DIA_OBJECT.require(objects)
    i, j = close_pairs(
        unit_vectors(sources["ra"], sources["dec"]),
        unit_vectors(objects["ra"], objects["dec"]),
        config.gate_arcsec / 3600,
    )
    cost, edge = _negative_log_likelihood(sources[i], objects[j], config)
    miss = np.zeros(len(sources))
    np.maximum.at(miss, i, edge - edge.min(initial=0.0))
    return assign(i, j, cost - edge.min(initial=0.0), miss=miss, n_right=len(objects))


def _negative_log_likelihood(sources: Records, objects: Records, config: AssociateConfig) -> tuple[F64, F64]:
    """Return the cost of each pair, and what it would cost at the edge of the gate."""
    east, north = tangent_offsets(sources["ra"], sources["dec"], objects["ra"], objects["dec"])
    var_east = _variance(sources["raErr"], objects["raErr"], config)
    var_north = _variance(sources["decErr"], objects["decErr"], config)
    norm = 0.5 * (np.log(var_east) + np.log(var_north))
    cost = 0.5 * (east**2 / var_east + north**2 / var_north) + norm
    edge = 0.5 * config.gate_arcsec**2 / np.minimum(var_east, var_north) + norm
    return cost, edge


def _variance(first: Records, second: Records, config: AssociateConfig) -> F64:
    total = np.full(len(first), config.error_floor_arcsec**2)
    for err in (first, second):
        arcsec = np.asarray(err, float) * 3600
        total += np.where(arcsec > 0, arcsec, config.fallback_error_arcsec) ** 2
    return total


def _may_begin(sources: Records, config: AssociateConfig) -> BoolArray:
    allowed = np.ones(len(sources), bool)
    for flag in config.new_object_forbidden_flags:
        allowed &= ~sources[flag]
    if config.new_object_min_snr > 0:
        allowed &= sources["snr"] >= config.new_object_min_snr
    if config.new_object_min_reliability > 0:
        allowed &= ~(sources["reliability"] < config.new_object_min_reliability)
    return allowed
