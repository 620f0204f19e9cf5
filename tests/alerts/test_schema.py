import json

import fastavro
import pytest

from apstream.alerts.schema import SCHEMA_ID, SCHEMA_VERSION, alert_schema, released_schema
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE

RELEASED = [(1, 0)]


def records_of(schema):
    """All records of a schema by name."""
    found = {}

    def walk(node):
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            if node["type"] == "record":
                found[node["name"]] = {f["name"]: f for f in node["fields"]}
                for field in node["fields"]:
                    walk(field["type"])
            elif node["type"] == "array":
                walk(node["items"])

    walk(schema)
    return found


def test_the_generated_schema_is_the_released_one():
    assert alert_schema() == released_schema(*SCHEMA_VERSION), "raise SCHEMA_VERSION"


def test_the_registry_and_the_schema_have_the_same_columns():
    records = records_of(alert_schema())
    for table, name in (
        (DIA_SOURCE, "diaSource"),
        (DIA_OBJECT, "diaObject"),
        (DIA_FORCED_SOURCE, "diaForcedSource"),
        (SS_SOURCE, "ssSource"),
    ):
        assert tuple(records[name]) == table.names


def test_the_packet_has_the_public_structure():
    names = """diaSourceId observation_reason target_name diaSource prvDiaSources prvDiaForcedSources
        diaObject ssSource mpc_orbits cutoutDifference cutoutScience cutoutTemplate"""
    assert [field["name"] for field in alert_schema()["fields"]] == names.split()
    assert SCHEMA_ID == 100


def test_unions_have_null_first_and_default_to_it():
    for fields in records_of(alert_schema()).values():
        for field in fields.values():
            if isinstance(field["type"], list):
                assert field["type"][0] == "null"
                assert field["default"] is None


@pytest.mark.parametrize("version", RELEASED)
def test_released_schemas_parse(version):
    fastavro.parse_schema(released_schema(*version))


def test_an_unknown_version_is_not_there():
    with pytest.raises(FileNotFoundError):
        released_schema(99, 0)


def test_docs_stay_when_the_schema_is_written():
    assert json.loads(json.dumps(alert_schema())) == alert_schema()
    assert json.dumps(alert_schema()).count("nJy") > 20
