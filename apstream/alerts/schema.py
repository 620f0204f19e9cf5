"""The Avro schema of an alert, generated from the column registry.

Field names and structure are those of the Rubin alert packet 11.1, so that a reader of Rubin alerts finds
what it knows. Unions have null first. Within a major version fields are only added, always nullable.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from apstream.model.columns import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_SOURCE,
    MPC_ORBITS,
    SS_SOURCE,
    Column,
    TableSpec,
)

__all__ = ["SCHEMA_ID", "SCHEMA_VERSION", "alert_schema", "record_schema", "released_schema"]

#: Major and minor number of the schema this package writes.
SCHEMA_VERSION = (1, 0)
#: Number of the schema in the Confluent framing: major * 100 + minor.
SCHEMA_ID = SCHEMA_VERSION[0] * 100 + SCHEMA_VERSION[1]

_TYPES = {"f4": "float", "f8": "double", "i2": "int", "i4": "int", "i8": "long", "?": "boolean"}
_CUTOUT = "FITS file around the source, as astropy's CCDData reads it: image, mask, variance, PSF, local WCS."


def record_schema(table: TableSpec, name: str) -> dict[str, Any]:
    """Return the Avro record of a table."""
    return {
        "type": "record",
        "name": name,
        "doc": table.doc,
        "fields": [_field(column) for column in table.columns],
    }


@cache
def alert_schema() -> dict[str, Any]:
    """Return the schema of an alert; do not change what it returns."""
    major, minor = SCHEMA_VERSION
    fields = [
        {"name": "diaSourceId", "type": "long", "doc": "The source that caused the alert."},
        _nullable("observation_reason", "string", "Why the exposure was taken."),
        _nullable("target_name", "string", "What the exposure was aimed at."),
        {"name": "diaSource", "type": record_schema(DIA_SOURCE, "diaSource"), "doc": "The source itself."},
        _nullable("prvDiaSources", _array("diaSource"), "Earlier sources of the object, oldest first."),
        _nullable(
            "prvDiaForcedSources",
            _array(record_schema(DIA_FORCED_SOURCE, "diaForcedSource")),
            "Forced fluxes at the object up to and with this exposure, oldest first.",
        ),
        _nullable("diaObject", record_schema(DIA_OBJECT, "diaObject"), "The object, this source included."),
        _nullable("ssSource", record_schema(SS_SOURCE, "ssSource"), "The source as a solar-system object."),
        _nullable("mpc_orbits", record_schema(MPC_ORBITS, "mpc_orbits"), "The orbit of that object."),
        *(_nullable(f"cutout{image}", "bytes", _CUTOUT) for image in ("Difference", "Science", "Template")),
    ]
    return {
        "type": "record",
        "name": "alert",
        "namespace": f"apstream.v{major}_{minor}",
        "doc": "One detection on a difference image with what is known of it.",
        "fields": fields,
    }


def released_schema(major: int, minor: int) -> dict[str, Any]:
    """Return the frozen schema of a released version; FileNotFoundError if there is none."""
    path = resources.files("apstream.alerts") / "schemas" / str(major) / str(minor) / "alert.avsc"
    return dict(json.loads(path.read_text("utf-8")))


def _field(column: Column) -> dict[str, Any]:
    doc = f"{column.doc} [{column.unit}]" if column.unit else column.doc
    kind = "string" if column.kind == "U" else _TYPES[column.dtype]
    return _nullable(column.name, kind, doc) if column.nullable else {"name": column.name, "type": kind, "doc": doc}


def _nullable(name: str, kind: Any, doc: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}
