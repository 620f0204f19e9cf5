"""What changes the registry, each within a transaction that the caller began."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from apstream.repo.entries import Entry, Input
from apstream.repo.registry_query import among
from apstream.repo.registry_tables import DATASETS, INPUTS, entry_of, input_rows

__all__ = ["insert_absent", "store", "superseded", "take"]

Row = dict[str, Any]
_Key = tuple[int, str]
_MANY = 1_000  # so many new rows change PostgreSQL's statistics: without them it takes the wrong index


def store(
    connection: sa.Connection, rows: Sequence[Row], names: Mapping[int, str], inputs: Sequence[Input]
) -> list[Entry]:
    """Insert what is new; lock and update what is there; again, if somebody removed it in between.

    Parameters
    ----------
    connection
        In a transaction.
    rows
        Rows of `DATASETS` with types and keys that differ.
    names
        The name of each type's number.
    inputs
        What each was made from.

    Returns
    -------
    replaced
        The datasets that were there before, of which nobody else is told.
    """
    pending = {_key(row): row for row in sorted(rows, key=_key)}  # all in one order, so that none waits in a circle
    replaced: list[Entry] = []
    stored: list[int] = []
    changed: list[Row] = []
    while pending:
        for new in connection.execute(*_inserting(connection, list(pending.values()))):
            stored.append(new.id)
            del pending[new.type, new.key]
        for old in _locked(connection, list(pending)):
            row = pending.pop((old.type, old.key))
            replaced += superseded(entry_of(old, names[old.type]), row["path"])
            changed.append({"old_id": old.id, **row})
    _change(connection, changed)
    stored += [row["old_id"] for row in changed]
    if inputs:
        connection.execute(sa.insert(INPUTS), [row for id in stored for row in input_rows(id, inputs)])
    if len(rows) >= _MANY and not _is_sqlite(connection):
        connection.execute(sa.text(f"ANALYZE {DATASETS.name}"))
    return replaced


def take(connection: sa.Connection, type: int, key: str) -> Any:
    """Remove a dataset and return its row, None if there is none."""
    for row in _locked(connection, [(type, key)]):
        connection.execute(sa.delete(INPUTS).where(INPUTS.c.dataset == row.id))
        connection.execute(sa.delete(DATASETS).where(DATASETS.c.id == row.id))
        return row
    return None


def insert_absent(connection: sa.Connection, table: sa.Table, row: Row) -> None:
    """Insert a row unless there is one with its key."""
    connection.execute(_insert_into(connection, table).values(row).on_conflict_do_nothing())


def superseded(old: Entry | None, path: str) -> list[Entry]:
    """Return an entry unless its path is that of the one that replaces it."""
    return [] if old is None or old.path == path else [old]


def _inserting(connection: sa.Connection, rows: list[Row]) -> tuple[Any, Any]:
    """Return the statement that inserts what is new and returns it, and its parameters."""
    returned = DATASETS.c.id, DATASETS.c.type, DATASETS.c.key
    if _is_sqlite(connection):
        return _insert_into(connection, DATASETS).on_conflict_do_nothing().returning(*returned), rows
    # one array per column: a place holder per value takes psycopg ten times as long
    names = list(rows[0])
    arrays = {name: sa.bindparam(name, type_=sa.ARRAY(DATASETS.c[name].type)) for name in names}
    columns = [sa.column(name, DATASETS.c[name].type) for name in names]
    source = sa.func.unnest(*arrays.values()).table_valued(*columns).render_derived(name="fresh")
    insert = _insert_into(connection, DATASETS).from_select(names, sa.select(*source.c))
    return insert.on_conflict_do_nothing().returning(*returned), {name: [row[name] for row in rows] for name in names}


def _change(connection: sa.Connection, rows: Sequence[Row]) -> None:
    if rows:
        old_id: sa.BindParameter[int] = sa.bindparam("old_id")
        connection.execute(sa.update(DATASETS).where(DATASETS.c.id == old_id), rows)
        connection.execute(sa.delete(INPUTS).where(INPUTS.c.dataset == old_id), rows)


def _locked(connection: sa.Connection, keys: Sequence[_Key]) -> list[Any]:
    """Return the rows with these keys and hold them until the transaction ends."""
    rows: list[Any] = []
    for number in sorted({type for type, _ in keys}):
        mine = among(DATASETS.c.key, [key for type, key in keys if type == number], sqlite=_is_sqlite(connection))
        query = sa.select(DATASETS).where(DATASETS.c.type == number, mine).order_by(DATASETS.c.key)
        rows += connection.execute(query.with_for_update()).all()
    return rows


def _insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the dialect's own insertion; the other one is not imported."""
    dialects = importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    return dialects.insert(table)


def _is_sqlite(connection: sa.Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _key(row: Row) -> _Key:
    return row["type"], row["key"]
