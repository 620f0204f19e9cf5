"""Sources, objects and history become alerts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from apstream.alerts.codec import frame, object_key, varint
from apstream.alerts.schema import SCHEMA_ID
from apstream.arrays.avro import encode_rows
from apstream.arrays.types import Records
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, TableSpec
from apstream.model.exposures import ExposureInfo
from apstream.model.products import Alert, Association, CutoutTriplet, History

__all__ = ["PackConfig", "pack"]

_NULL, _SOME, _END = b"\0", b"\2", b"\0"

_Index = NDArray[np.int64]


class PackConfig(BaseModel):
    """What goes into an alert."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_id: int = Field(SCHEMA_ID, gt=0, description="Number that the schema registry gave the alert schema.")
    max_history_rows: int = Field(
        1000,
        ge=0,
        description="Most previous sources, and most forced ones, in one alert; the latest are kept.",
    )


def pack(
    association: Association,
    objects: Records,
    history: History,
    forced: Records,
    cutouts: Sequence[CutoutTriplet],
    info: ExposureInfo,
    config: PackConfig,
) -> tuple[Alert, ...]:
    """Make one alert per source that has an object or is a solar-system object.

    Parameters
    ----------
    association
        The sources with their objects.
    objects
        New versions of the touched objects, rows of DIA_OBJECT, in ascending order of id.
    history
        Earlier sources and forced sources.
    forced
        Forced sources of this exposure.
    cutouts
        One per source.

    Returns
    -------
    tuple of Alert
        In the order of the sources. Keyed by object, or by solar-system object where there is none.
    """
    sources = association.sources
    ids = association.object_ids
    earlier = _histories(DIA_SOURCE, (history.sources,), "diaSourceId", ids, config)
    fluxes = _histories(DIA_FORCED_SOURCE, (history.forced, forced), "diaForcedSourceId", ids, config)
    datum_of_source, datum_of_object = _rows(DIA_SOURCE, sources), _rows(DIA_OBJECT, objects)
    aim = _optional_text(info.observation_type) + _optional_text(info.object_name)
    places = dict(zip(objects["diaObjectId"].tolist(), range(len(objects)), strict=True))
    alerts = []
    for k, (source_id, object_id, solar_id) in enumerate(
        zip(*(sources[name].tolist() for name in ("diaSourceId", "diaObjectId", "ssObjectId")), strict=True)
    ):
        if not (object_id or solar_id):
            continue
        datum = b"".join(
            (
                varint(source_id),
                aim,
                datum_of_source(k),
                earlier(object_id),
                fluxes(object_id),
                _SOME + datum_of_object(places[object_id]) if object_id else _NULL,
                _NULL,  # ssSource
                _NULL,  # mpc_orbits
                *_cutout_fields(cutouts[k]),
            )
        )
        alerts.append(Alert(source_id, object_key(object_id or solar_id), frame(datum, config.schema_id)))
    return tuple(alerts)


def _rows(table: TableSpec, rows: Records) -> Callable[[int], bytes]:
    data, edges = encode_rows(table.require(rows), _nullable(table))
    return lambda k: data[edges[k] : edges[k + 1]]


def _nullable(table: TableSpec) -> NDArray[np.bool_]:
    return np.array([column.nullable for column in table.columns])


def _histories(
    table: TableSpec, tables: Sequence[Records], key: str, ids: _Index, config: PackConfig
) -> Callable[[int], bytes]:
    """Return what gives the encoded array of an object's rows, null where it has none.

    Rows are encoded once and lie object by object, oldest first, so an array is one slice.
    """
    rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
    mine = np.flatnonzero(np.isin(rows["diaObjectId"], ids))
    order = np.lexsort([rows[name][mine] for name in (key, "midpointMjdTai", "diaObjectId")])
    rows = rows[mine[order]]
    data, edges = encode_rows(rows, _nullable(table))
    first = dict(zip(ids.tolist(), np.searchsorted(rows["diaObjectId"], ids).tolist(), strict=True))
    last = dict(zip(ids.tolist(), np.searchsorted(rows["diaObjectId"], ids, "right").tolist(), strict=True))

    def array(object_id: int) -> bytes:
        stop = last.get(object_id, 0)
        start = max(first.get(object_id, 0), stop - config.max_history_rows)
        if start == stop:
            return _NULL
        return b"".join((_SOME, varint(stop - start), data[edges[start] : edges[stop]], _END))

    return array


def _optional_text(text: str) -> bytes:
    encoded = text.encode()
    return _SOME + varint(len(encoded)) + encoded if encoded else _NULL


def _cutout_fields(cutouts: CutoutTriplet) -> tuple[bytes, ...]:
    images = (cutouts.difference, cutouts.science, cutouts.template)
    return tuple(part for image in images for part in (_SOME, varint(len(image)), image))
