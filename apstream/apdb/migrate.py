"""Create an APDB, bring it up to date, tell whether it is."""

from __future__ import annotations

from importlib import resources

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from apstream.apdb.engine import make_engine, parse_url, require_level, sqlite_path, translated
from apstream.apdb.pixels import PIXELIZATION
from apstream.apdb.tables import METADATA_TABLE, SCHEMA_VERSION
from apstream.errors import SchemaMismatch, StorageUnavailable

__all__ = ["create_apdb", "require_version", "stored_level"]

_REMEDY = "apstream apdb create URL"
_LEVEL = "isolation_level"


async def create_apdb(url: str, *, lock_timeout_s: float = 60.0, isolation_level: str | None = None) -> None:
    """Make the tables of an APDB, or bring an older one up to date; harmless where there is nothing to do.

    Parameters
    ----------
    isolation_level
        Level that programs which open it will use unless told otherwise; None leaves what is there.

    Raises
    ------
    BadSettings
        If the URL is none, or the database has no such isolation level.
    SchemaMismatch
        If the database was made by a newer version.
    DatabaseUnavailable, StorageUnavailable
        If it cannot be reached or written.
    """
    parsed = parse_url(url)
    path = sqlite_path(parsed)
    if path is not None and not path.parent.is_dir():
        raise StorageUnavailable("the folder does not exist", where=str(path.parent), remedy="make it first")
    level = require_level(parsed, isolation_level) if isolation_level else None
    engine = make_engine(parsed, lock_timeout_s=lock_timeout_s)
    try:
        with translated(parsed):
            async with engine.connect() as connection:
                await connection.execution_options(apdb_write=True)
                async with connection.begin():
                    await connection.run_sync(_upgrade)
                    if level is not None:
                        await connection.run_sync(_store_level, level)
    finally:
        await engine.dispose()


async def require_version(connection: AsyncConnection, where: str) -> None:
    """Raise SchemaMismatch unless the database is of the version and pixelization of this package."""
    found = await connection.run_sync(_version)
    if found is None:
        raise SchemaMismatch("there is no APDB", where=where, remedy=_REMEDY)
    if found != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the APDB has version {found}, this program needs {SCHEMA_VERSION}", where=where, remedy=_REMEDY
        )
    query = sa.select(METADATA_TABLE.c.value).where(METADATA_TABLE.c.key == "pixelization")
    pixelization = (await connection.execute(query)).scalar_one_or_none()
    if pixelization != PIXELIZATION:
        raise SchemaMismatch(
            f"the APDB has pixels {pixelization}, this program has {PIXELIZATION}",
            where=where,
            remedy=_REMEDY,
        )


async def stored_level(connection: AsyncConnection) -> str | None:
    """Return the isolation level that the APDB was created with, None if none was named."""
    query = sa.select(METADATA_TABLE.c.value).where(METADATA_TABLE.c.key == _LEVEL)
    return (await connection.execute(query)).scalar_one_or_none()


def _store_level(connection: sa.Connection, level: str) -> None:
    connection.execute(sa.delete(METADATA_TABLE).where(METADATA_TABLE.c.key == _LEVEL))
    connection.execute(sa.insert(METADATA_TABLE).values(key=_LEVEL, value=level))


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # only this needs it, and it is slow to import
    from alembic.config import Config

    if connection.dialect.name == "postgresql":  # two creators at once: the second finds all done
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(20260001)"))
    found = _version(connection)
    if found is not None and found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the APDB has version {found}, this program knows {SCHEMA_VERSION}",
            where=connection.engine.url.render_as_string(),
            remedy="update apstream",
        )
    config = Config()
    config.set_main_option("script_location", str(resources.files("apstream.apdb") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    known = connection.execute(sa.select(METADATA_TABLE.c.key)).scalars().all()
    if "pixelization" not in known:
        connection.execute(sa.insert(METADATA_TABLE).values(key="pixelization", value=PIXELIZATION))
