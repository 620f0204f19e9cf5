import io
from itertools import pairwise

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.alerts.schema import record_schema
from apstream.arrays.avro import encode_rows
from apstream.model.columns import TABLES


def plain_encode(table, rows):
    """The plain equivalent: fastavro, row by row."""
    schema = fastavro.parse_schema(record_schema(table, "row"))
    columns = table.columns_of(rows)
    out = []
    for k in range(len(rows)):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, {name: values[k] for name, values in columns.items()})
        out.append(stream.getvalue())
    return out


def random_rows(table, n, seed):
    rng = np.random.default_rng(seed)
    rows = table.empty(n)
    for column in table.columns:
        filled = rng.random(n) < 0.7
        if column.kind == "f":
            values = rng.normal(0, 1e4, n)
        elif column.kind == "i":
            info = np.iinfo(column.dtype)
            values = rng.integers(info.min, info.max, n, endpoint=True, dtype=np.int64)
        elif column.kind == "b":
            values = rng.random(n) < 0.5
        else:
            values = rng.choice(["r", "é", "z-Ω", "𝛼b", "12345678"], n)
        rows[column.name][filled] = values[filled].astype(column.dtype)
    return rows


@pytest.mark.parametrize("table", list(TABLES.values()), ids=lambda t: t.name)
def test_rows_are_encoded_as_fastavro_does(table):
    rows = random_rows(table, 40, seed=len(table.columns))
    data, edges = encode_rows(rows, np.array([c.nullable for c in table.columns]))
    assert [data[a:b] for a, b in pairwise(edges)] == plain_encode(table, rows)


@given(
    st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(-(2**63), 2**63 - 1),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_value_is_encoded_as_fastavro_does(values):
    rows = np.array(values, [("a", "f4"), ("b", "f8"), ("c", "i8"), ("d", "U5")])
    schema = {
        "type": "record",
        "name": "r",
        "fields": [
            {"name": n, "type": ["null", t]}
            for n, t in zip("abcd", ("float", "double", "long", "string"), strict=True)
        ],
    }
    expected = io.BytesIO()
    for a, b, c, d in values:
        row = {
            "a": None if np.isnan(a) else a,
            "b": None if np.isnan(b) else b,
            "c": c or None,
            "d": d or None,
        }
        fastavro.schemaless_writer(expected, schema, row)
    assert encode_rows(rows, np.ones(4, bool))[0] == expected.getvalue()


def test_no_rows_give_no_bytes():
    data, edges = encode_rows(np.zeros(0, [("a", "f4")]), np.array([True]))
    assert (data, edges.tolist()) == (b"", [0])
