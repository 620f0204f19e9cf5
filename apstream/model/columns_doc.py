"""The column registry as a page of the documentation: ``python -m apstream.model.columns_doc > docs/columns.md``."""

from __future__ import annotations

from apstream.model.columns import TABLES, Column, TableSpec

__all__ = ["columns_page"]

_HEAD = """# Columns

What the tables of the APDB and the records of an alert hold. Made from `apstream/model/columns.py` by
`python -m apstream.model.columns_doc > docs/columns.md`; a test fails when the two differ.

Names follow the public names of the Rubin APDB (schema 10) and alert packet (11.1) where the meaning is the
same. Fluxes are in nJy, on the difference image unless the text says otherwise; positions ICRS degrees;
times MJD TAI; pixels 0-based with centres at integers; errors of right ascension are angles on the sky.
`null` says that a value may be missing: null in the database, in alerts and in Parquet, and in arrays NaN,
0 (integers) or an empty string.
"""

_NAMES = {"f4": "float", "f8": "double", "i2": "short", "i4": "int", "i8": "long", "?": "boolean"}


def columns_page() -> str:
    """Return the page in Markdown."""
    return "\n".join([_HEAD, *(_section(table) for table in TABLES.values())])


def _section(table: TableSpec) -> str:
    rows = "\n".join(_row(column) for column in table.columns)
    key = ", ".join(f"`{name}`" for name in table.key)
    return f"""## {table.name}

{table.doc} Key: {key}.

| Column | Type | Unit | null | Meaning |
| --- | --- | --- | --- | --- |
{rows}
"""


def _row(column: Column) -> str:
    kind = _NAMES.get(column.dtype, f"text ({column.dtype[1:]})")
    null = "null" if column.nullable and column.kind != "b" else ""
    return f"| `{column.name}` | {kind} | {column.unit} | {null} | {column.doc} |"


if __name__ == "__main__":
    print(columns_page(), end="")
