"""Engines, and the translation of what they raise into errors of the house."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from apstream.errors import (
    ApstreamError,
    BadSettings,
    Conflict,
    DatabaseUnavailable,
    SchemaMismatch,
    StorageUnavailable,
)

__all__ = ["make_engine", "parse_url", "require_level", "sqlite_path", "translated"]

#: What a kind of database offers, its default first. PostgreSQL's REPEATABLE READ would look at a region as it was
#: before its lock was had, and two workers would make two objects of one.
_LEVELS: dict[str, tuple[str, ...]] = {
    "sqlite": ("SERIALIZABLE", "READ_UNCOMMITTED"),
    "postgresql": ("READ_COMMITTED", "READ_UNCOMMITTED", "SERIALIZABLE"),
}

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_CONNECT_TIMEOUT_S, _COMMAND_TIMEOUT_S = 10, 120


def parse_url(text: str) -> sa.URL:
    """Return a database URL with the driver that the house uses; BadSettings if it is none."""
    try:
        url = sa.make_url(text)
    except exc.ArgumentError:
        raise BadSettings("not a database URL", where=text, remedy="sqlite:///FILE or postgresql://...") from None
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise BadSettings(f"no driver for {backend}", where=url.render_as_string(), remedy="use sqlite or postgresql")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise BadSettings("an APDB needs a file", where=text, remedy="sqlite:///FILE")
    return url.set(drivername=_DRIVERS[backend])


def sqlite_path(url: sa.URL) -> Path | None:
    """Return the file of an SQLite database, None for a server."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def require_level(url: sa.URL, level: str | None) -> str:
    """Return an isolation level, the default of the kind of database for None; BadSettings if it is not offered."""
    offered = _LEVELS[url.get_backend_name()]
    chosen = (level or offered[0]).upper().replace(" ", "_").replace("-", "_")
    if chosen not in offered:
        raise BadSettings(
            f"no isolation level {level} for {url.get_backend_name()}",
            where="apdb.isolation_level",
            remedy=f"take {' or '.join(offered)}",
        )
    return chosen


def make_engine(
    url: sa.URL, *, lock_timeout_s: float, pool_size: int = 5, isolation_level: str | None = None
) -> AsyncEngine:
    """Return an engine whose write transactions take SQLite's lock when they begin."""
    level = require_level(url, isolation_level)
    if sqlite_path(url) is None:
        level = level.replace("READ_UNCOMMITTED", "READ_COMMITTED")  # to PostgreSQL they are the same
        return create_async_engine(
            url,
            pool_size=pool_size,
            pool_pre_ping=True,
            isolation_level=level.replace("_", " "),  # what is read after the lock must be as new as the lock
            connect_args={"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _COMMAND_TIMEOUT_S},
        )
    engine = create_async_engine(url, pool_size=pool_size, connect_args={"timeout": lock_timeout_s})
    event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, uncommitted=level == "READ_UNCOMMITTED"))
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any, *, uncommitted: bool) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    cursor = connection.cursor()
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", f"read_uncommitted={int(uncommitted)}")
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("apdb_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def translated(url: sa.URL) -> Iterator[None]:
    """Raise what the drivers raise as errors of the house that name the database, without its password."""
    where = url.render_as_string(hide_password=True)
    try:
        yield
    except ApstreamError:
        raise
    except (exc.DBAPIError, exc.TimeoutError, OSError, TimeoutError) as error:
        raise _translate(error, where) from error
    except Exception as error:  # asyncpg raises its own, unwrapped, while it connects
        if type(error).__module__.startswith("asyncpg"):
            raise _translate(error, where) from error
        raise


_RULES: tuple[tuple[str, type[ApstreamError], str, str], ...] = (
    (
        r"disk is full|DiskFull|no space left|disk I/O",
        StorageUnavailable,
        "the disk is full",
        "free some space",
    ),
    (
        r"readonly database|read-only",
        StorageUnavailable,
        "the database cannot be written",
        "check its permissions",
    ),
    (
        r"no such table|UndefinedTable|no such column|UndefinedColumn|not a database|malformed",
        SchemaMismatch,
        "this is not an APDB of this version",
        "apstream apdb create URL",
    ),
    (
        r"InvalidPassword|InvalidAuthorization|InvalidCatalogName|gaierror",
        BadSettings,
        "the database refuses us",
        "check user, password, host and database name",
    ),
    (
        r"IntegrityError",
        Conflict,
        "a row differs from one that is stored",
        "one APDB per instrument and set of ids",
    ),
    (
        r"locked|lock timeout|LockNotAvailable|Deadlock|SerializationError|could not serialize",
        DatabaseUnavailable,
        "the database is locked by other work",
        "it is tried again",
    ),
)


def _translate(error: BaseException, where: str) -> ApstreamError:
    cause = getattr(error, "orig", None) or error
    root = cause.__cause__ or cause
    text = f"{type(error).__name__} {type(root).__name__} {cause!r}"
    detail = str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__
    for pattern, kind, message, remedy in _RULES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{message}: {detail}", where=where, remedy=remedy)
    return DatabaseUnavailable(detail, where=where, remedy="is the database server running?")
