"""The APDB in SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from apstream.apdb.engine import make_engine, parse_url, sqlite_path, translated
from apstream.apdb.migrate import require_version, stored_level
from apstream.apdb.pixels import lock_pixels
from apstream.apdb.tables import LEDGER, OUTBOX, TABLE_OF
from apstream.apdb.unit import SqlUnit, covering, insert_ledger, inside, is_exposure
from apstream.errors import SchemaMismatch
from apstream.model.columns import DIA_OBJECT
from apstream.model.ids import VisitDetector
from apstream.model.products import KnownObjects, SkyCircle
from apstream.ports import LedgerEntry, OutboxEntry

__all__ = ["SqlApdb", "open_apdb"]

_LOCK_CLASS = 0x41500000 << 24  # upper bits of our advisory locks


async def open_apdb(
    url: str, *, history_days: float = 365.0, lock_timeout_s: float = 60.0, isolation_level: str | None = None
) -> SqlApdb:
    """Open an APDB that `create_apdb` made.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.
    history_days
        Sources older than this are not read back.
    lock_timeout_s
        How long to wait for another unit of work on the same sky before DatabaseUnavailable.
    isolation_level
        ``READ_COMMITTED``, ``SERIALIZABLE``, ...; None for the one that the APDB was created with.

    Raises
    ------
    BadSettings
        If the database has no such isolation level.
    SchemaMismatch
        If there is no APDB or one of another version.
    DatabaseUnavailable
        If it cannot be reached.
    """
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    if path is not None and not path.is_file():
        raise SchemaMismatch("there is no APDB", where=str(path), remedy="apstream apdb create URL")
    engine = make_engine(parsed, lock_timeout_s=lock_timeout_s, isolation_level=isolation_level)
    apdb = SqlApdb(engine, history_days=history_days, lock_timeout_s=lock_timeout_s)
    try:
        async with apdb._reading() as connection:
            await require_version(connection, parsed.render_as_string(hide_password=True))
            created_with = await stored_level(connection)
    except BaseException:
        await apdb.close()
        raise
    if isolation_level is None and created_with is not None:
        await apdb.close()
        return await open_apdb(
            url, history_days=history_days, lock_timeout_s=lock_timeout_s, isolation_level=created_with
        )
    return apdb


class SqlApdb:
    """An open APDB; see `apstream.ports.Apdb` for what it does and `open_apdb` for how to get one."""

    def __init__(self, engine: AsyncEngine, *, history_days: float, lock_timeout_s: float) -> None:
        self._engine = engine
        self._history_days = history_days
        self._lock_timeout_s = lock_timeout_s
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._turn = asyncio.Lock()  # SQLite's own waiting is not fair; ours is

    @asynccontextmanager
    async def unit(self, region: SkyCircle) -> AsyncIterator[SqlUnit]:
        """Lock a sky region: what `history` returns stays true until `commit`.

        SQLite's write lock covers the whole sky, PostgreSQL's advisory locks the coarse pixels of the
        region, in ascending order so that no two units wait for each other.
        Leaving without commit stores nothing.
        """
        async with AsyncExitStack() as stack:
            if self._is_sqlite:
                await stack.enter_async_context(self._turn)
            with translated(self._engine.url):
                connection = await stack.enter_async_context(self._connection(write=True))
                if not self._is_sqlite:
                    await self._lock(connection, region)
            yield SqlUnit(connection, region, history_days=self._history_days)

    async def known_objects(self, region: SkyCircle) -> KnownObjects:
        """Return ids and positions of the objects inside `region`, in ascending order of id."""
        table = TABLE_OF[DIA_OBJECT.name]
        query = sa.select(table.c.diaObjectId, table.c.ra, table.c.dec).where(*covering(region))
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
        found = np.array([tuple(row) for row in rows], [("id", "i8"), ("ra", "f8"), ("dec", "f8")])
        found = np.sort(found[inside(found["ra"], found["dec"], region)], order="id")
        return KnownObjects(*(np.ascontiguousarray(found[name]) for name in ("id", "ra", "dec")))

    async def ledger(self, id: VisitDetector) -> LedgerEntry | None:
        """Return how a visit and detector ended, None if it has not."""
        query = sa.select(LEDGER).where(*is_exposure(LEDGER, id))
        async with self._reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return LedgerEntry(id, row.outcome, row.reason, row.nSources, row.nAlerts)

    async def record(self, entry: LedgerEntry) -> bool:
        """Store a ledger row alone; False if there was one."""
        async with self._writing() as connection:
            return await insert_ledger(connection, entry)

    async def forget_failure(self, id: VisitDetector) -> bool:
        """Take back the ledger row of an exposure that ended without products, so that it can be tried again."""
        query = sa.delete(LEDGER).where(*is_exposure(LEDGER, id), LEDGER.c.outcome != "processed")
        async with self._writing() as connection:
            return (await connection.execute(query)).rowcount > 0

    async def unsent(self, id: VisitDetector | None = None) -> Sequence[OutboxEntry]:
        """Return outbox rows not marked sent, oldest first."""
        query = sa.select(OUTBOX).where(sa.not_(OUTBOX.c.sent)).order_by(OUTBOX.c.number)
        if id is not None:
            query = query.where(*is_exposure(OUTBOX, id))
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
        return [
            OutboxEntry(VisitDetector(r.instrument, r.visit, r.detector), r.path, r.checksum, r.nAlerts) for r in rows
        ]

    async def mark_sent(self, entry: OutboxEntry) -> None:
        """Mark an outbox row sent."""
        async with self._writing() as connection:
            await connection.execute(sa.update(OUTBOX).where(*is_exposure(OUTBOX, entry.id)).values(sent=True))

    async def close(self) -> None:
        """Release connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self, *, write: bool) -> AsyncIterator[AsyncConnection]:
        """Open a transaction; SQLite takes its lock now if it will write. Rolled back unless committed."""
        async with self._engine.connect() as connection:
            await connection.execution_options(apdb_write=write)
            await connection.begin()
            yield connection

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with translated(self._engine.url):
            async with self._connection(write=False) as connection:
                yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            if self._is_sqlite:
                await stack.enter_async_context(self._turn)
            with translated(self._engine.url):
                async with self._connection(write=True) as connection:
                    yield connection
                    await connection.commit()

    async def _lock(self, connection: AsyncConnection, region: SkyCircle) -> None:
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(self._lock_timeout_s * 1000)}")
        for pixel in lock_pixels(region):
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_CLASS + pixel})")
