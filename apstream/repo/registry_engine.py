"""Connections of the registry: SQLite or PostgreSQL, one pool per process, errors in the words of the house."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event, exc

from apstream.errors import ApstreamError, BadSettings, DatabaseUnavailable, SchemaMismatch
from apstream.repo.registry_tables import METADATA, SCHEMA, VERSION

__all__ = ["Database"]

T = TypeVar("T")

_CREATING = 7_236_154  # PostgreSQL's advisory lock of those who create the tables
_ATTEMPTS = 6
_INHERITED: list[sa.Engine] = []  # a parent's connections: closing them here would hang up on the parent


class Database:
    """The database of a registry; it may be carried over a fork or pickled.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql://...``.
    lock_timeout_s
        How long a lock is waited for.

    Raises
    ------
    BadSettings
        If the URL is of another kind or the server refuses us.
    DatabaseUnavailable
        By everything, if the database does not answer.
    """

    def __init__(self, url: str, *, lock_timeout_s: float = 60.0) -> None:
        self.file = _sqlite_file(url)
        self.lock_timeout_s = lock_timeout_s
        self._url = None if self.file else _postgres_url(url)
        self.name = str(self.file) if self._url is None else _public_name(self._url)
        self._pools: dict[int, sa.Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pools": {}}

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what `work` returns from within a transaction that reads."""
        with self._errors(), self._engine().connect() as connection, connection.begin():
            return work(connection)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what `work` returns from within a transaction that writes; it may be called again after a deadlock."""
        with self._errors():
            for attempt in range(_ATTEMPTS):
                try:
                    with self._engine().execution_options(registry_write=True).begin() as connection:
                        return work(connection)
                except exc.DBAPIError as error:
                    if attempt == _ATTEMPTS - 1 or getattr(error.orig, "sqlstate", "") not in ("40001", "40P01"):
                        raise
            raise AssertionError("unreachable")

    def prepare(self) -> None:
        """Create the tables if there are none.

        Raises
        ------
        SchemaMismatch
            If they are of another version.
        """
        if not self.read(self._current):
            self.write(self._create)

    def close(self) -> None:
        """Close the connections of this process."""
        engine = self._pools.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def _current(self, connection: sa.Connection) -> bool:
        tables = set(sa.inspect(connection).get_table_names())
        if SCHEMA.name in tables:
            found = connection.scalar(sa.select(SCHEMA.c.version))
            if found == VERSION:
                return True
            raise SchemaMismatch(
                f"the registry is of version {found}, this apstream reads version {VERSION}",
                where=self.name,
                remedy="use the apstream that wrote it, or ingest again into a new repository",
            )
        if self.file and "datasets" in tables:
            raise SchemaMismatch(
                "the registry was written by an early apstream and has no version",
                where=self.name,
                remedy="ingest again into a new repository",
            )
        return False

    def _create(self, connection: sa.Connection) -> None:
        if self._url is not None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
        if not self._current(connection):
            METADATA.create_all(connection)
            connection.execute(sa.insert(SCHEMA).values(version=VERSION))

    def _engine(self) -> sa.Engine:
        engine = self._pools.get(os.getpid())
        if engine is None:
            _INHERITED.extend(self._pools.values())
            engine = self._sqlite() if self._url is None else self._postgres(self._url)
            self._pools = {os.getpid(): engine}
        return engine

    def _sqlite(self) -> sa.Engine:
        engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.QueuePool)
        event.listen(engine, "begin", _begin)
        return engine

    def _postgres(self, url: sa.URL) -> sa.Engine:
        options = {"connect_timeout": 10, "options": f"-c lock_timeout={int(self.lock_timeout_s * 1000)}"}
        return sa.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=options)

    def _connect(self) -> sqlite3.Connection:
        file = Path(str(self.file))
        # in this order: between the two another process may create the file
        writable = os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))
        asleep = not writable and not file.with_name(file.name + "-wal").exists()
        how = "" if writable else "?mode=ro" + ("&immutable=1" if asleep else "")
        connection = sqlite3.connect(
            f"file:{quote(str(file))}{how}", uri=True, timeout=self.lock_timeout_s, check_same_thread=False
        )
        connection.isolation_level = None  # transactions begin where we say so
        if writable:
            self._set_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")  # a replaced file goes after the commit: it must last
        return connection

    def _set_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self.lock_timeout_s
        while True:  # SQLite does not wait here for others who make the same new file
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
            raise _translated(error, self.name) from error


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("registry_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _sqlite_file(url: str) -> Path | None:
    scheme, found, file = url.partition(":///")
    if not found or scheme.partition("+")[0] != "sqlite":
        return None
    if file in ("", ":memory:"):
        raise BadSettings("a registry needs a file", where=url, remedy="sqlite:///FILE")
    return Path(file).absolute()


def _postgres_url(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.drivername.partition("+")[0]
    except (exc.ArgumentError, ValueError):
        backend = ""
    if backend not in ("postgresql", "postgres"):
        hidden = re.sub(r"//[^/]*@", "//***@", url)
        raise BadSettings("not the URL of a registry", where=hidden, remedy="sqlite:///FILE or postgresql://...")
    return parsed.set(drivername="postgresql+psycopg")


def _public_name(url: sa.URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


_RULES: tuple[tuple[str, type[ApstreamError], str, str], ...] = (
    (
        "locked|busy|lock timeout|LockNotAvailable|Deadlock",
        DatabaseUnavailable,
        "the registry is locked",
        "see who else writes, then try again",
    ),
    (
        "disk is full|disk I/O|DiskFull|no space left",
        DatabaseUnavailable,
        "the disk is full or broken",
        "free some space, then try again",
    ),
    (
        "malformed|not a database|corrupt",
        DatabaseUnavailable,
        "the registry is damaged",
        "restore the file from a backup, or ingest again",
    ),
    (
        "readonly|read-only|unable to open|InsufficientPrivilege",
        DatabaseUnavailable,
        "the registry cannot be opened or written",
        "check that the folder exists and its rights",
    ),
    (
        "no such table|no such column|UndefinedTable|UndefinedColumn",
        SchemaMismatch,
        "a table of the registry is not as expected",
        "restore it from a backup, or ingest again",
    ),
    (
        "password|authentication|does not exist|resolve host|name resolution",
        BadSettings,
        "the database refuses us",
        "check user, password, host and database name",
    ),
)


def _translated(error: Exception, where: str) -> ApstreamError:
    cause = getattr(error, "orig", None) or error
    detail = (str(cause).strip().splitlines() or [""])[0][:300]
    text = f"{type(error).__name__} {type(cause).__name__} {cause}"
    for pattern, kind, message, remedy in _RULES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{message}: {detail}", where=where, remedy=remedy)
    return DatabaseUnavailable(f"the registry does not answer: {detail}", where=where, remedy="is the server running?")
