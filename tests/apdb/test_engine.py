import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.catalog_samples import make_info, make_sources
from sqlalchemy import event

from apstream.apdb import create_apdb, open_apdb
from apstream.apdb.engine import parse_url
from apstream.errors import BadSettings, DatabaseUnavailable, SchemaMismatch, StorageUnavailable
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT
from apstream.model.products import CatalogProducts, SkyCircle
from apstream.ports import LedgerEntry, OutboxEntry

REGION = SkyCircle(150.0, 2.0, 5.0)


def products_of(visit, n):
    sources = make_sources(n, visit, visit * 10_000)
    sources["diaObjectId"] = sources["diaSourceId"]
    objects = DIA_OBJECT.empty(n)
    objects["diaObjectId"], objects["ra"], objects["dec"] = sources["diaSourceId"], sources["ra"], sources["dec"]
    objects["validityStartMjdTai"] = 60000.0
    info = make_info(visit)
    products = CatalogProducts(
        info=info, sources=sources, objects=objects, forced=DIA_FORCED_SOURCE.empty(0), alerts=(), region=REGION
    )
    return products, LedgerEntry(info.id, "done", "", n, n), OutboxEntry(info.id, "path", "sum", n)


async def commit(apdb, visit, n):
    async with apdb.unit(REGION) as unit:
        return await unit.commit(*products_of(visit, n))


@pytest.mark.parametrize(
    ("given", "driver"),
    [("sqlite:///x.db", "sqlite+aiosqlite"), ("postgresql://u@h/d", "postgresql+asyncpg")],
)
def test_urls_get_the_driver_of_the_house(given, driver):
    assert parse_url(given).drivername == driver


@pytest.mark.parametrize("given", ["nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:"])
def test_other_urls_are_refused(given):
    with pytest.raises(BadSettings):
        parse_url(given)


async def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(SchemaMismatch, match="apdb create"):
        await open_apdb(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageUnavailable, match="folder"):
        await create_apdb(f"sqlite:///{tmp_path}/nowhere/a.db")


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "a.db").write_bytes(b"SIMPLE  =                    T" * 200)
    with pytest.raises(SchemaMismatch, match=r"a\.db"):
        await open_apdb(f"sqlite:///{tmp_path}/a.db")


async def test_a_server_that_is_not_there_is_unavailable_and_the_password_stays_hidden():
    with pytest.raises(DatabaseUnavailable) as caught:
        await open_apdb("postgresql://me:secret@127.0.0.1:1/apdb")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


@pytest.mark.postgres
async def test_a_database_that_does_not_exist_is_a_setting_to_mend(postgres_url):
    with pytest.raises(BadSettings, match="database name"):
        await open_apdb(postgres_url + "_not")


async def test_a_full_disk_stores_nothing(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    await create_apdb(url)
    apdb = await open_apdb(url)
    assert await commit(apdb, 1, 5)
    async with apdb._engine.connect() as connection:  # the pool has one connection, which keeps the limit
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 10}")
    with pytest.raises(StorageUnavailable, match="full"):
        await commit(apdb, 2, 2000)
    assert await apdb.ledger(make_info(2).id) is None
    assert len((await apdb.known_objects(REGION)).ids) == 5
    await apdb.close()


async def test_an_error_of_the_caller_is_left_as_it_is(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    await create_apdb(url)
    apdb = await open_apdb(url)
    with pytest.raises(FileNotFoundError):
        async with apdb.unit(REGION):
            raise FileNotFoundError("an alert file")
    await apdb.close()


@pytest.mark.postgres
async def test_a_server_that_goes_away_comes_back(own_postgres):
    url = own_postgres.url(own_postgres.create_database())
    await create_apdb(url)
    apdb = await open_apdb(url)
    assert await commit(apdb, 1, 5)
    own_postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        await commit(apdb, 2, 5)
    own_postgres.start()
    assert await commit(apdb, 2, 5)
    await apdb.close()


_WORKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from apdb.test_engine import commit
from apstream.apdb import open_apdb

async def main():
    apdb = await open_apdb(sys.argv[1])
    for visit in range(int(sys.argv[3]), 1000):
        print(visit, flush=True)
        await commit(apdb, visit, 400)

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_worker_killed_at_any_moment_leaves_whole_commits_only(backend, tmp_path, request):
    url = f"sqlite:///{tmp_path}/a.db" if backend == "sqlite" else request.getfixturevalue("postgres_url")
    asyncio.run(create_apdb(url))
    tests = os.path.dirname(os.path.dirname(__file__))
    first, rng = 1, np.random.default_rng(7)
    for _ in range(2):
        worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, url, tests, str(first)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout
        for line in worker.stdout:
            if int(line) >= first + 2:
                break
        time.sleep(rng.uniform(0, 0.2))
        worker.send_signal(signal.SIGKILL)
        started = [int(line) for line in worker.stdout.read().split()]
        worker.wait()
        worker.stdout.close()
        first = max(started, default=int(line)) + 1
    asyncio.run(require_whole_commits(url, first))


async def require_whole_commits(url, last):
    apdb = await open_apdb(url)
    async with apdb.unit(REGION) as unit:
        history = await unit.history(now_mjd_tai=60101.0)
    done = np.unique(history.sources["visit"])
    assert len(history.sources) == len(history.objects) == 400 * len(done)
    assert {entry.id.visit for entry in await apdb.unsent()} == set(done.tolist())
    for visit in range(1, last + 1):
        entry = await apdb.ledger(make_info(visit).id)
        assert (entry is not None) == (visit in done)
    assert len(done) >= 4
    await apdb.close()


def test_readers_see_what_is_committed_while_a_unit_is_open(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"

    async def main():
        await create_apdb(url)
        apdb = await open_apdb(url)
        await commit(apdb, 1, 5)
        async with apdb.unit(REGION):
            known = await asyncio.wait_for(apdb.known_objects(REGION), 5)
        await apdb.close()
        return known

    assert len(asyncio.run(main()).ids) == 5
    assert sqlite3.connect(tmp_path / "a.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_every_query_of_a_unit_goes_through_an_index(tmp_path):
    """So the cost of a visit does not grow with the survey."""
    url = f"sqlite:///{tmp_path}/a.db"
    await create_apdb(url)
    apdb = await open_apdb(url)
    await commit(apdb, 1, 50)
    seen = []

    def remember(connection, cursor, statement, parameters, context, many):
        if statement.startswith(("SELECT", "UPDATE")):
            seen.append((statement, parameters[0] if many else parameters))

    event.listen(apdb._engine.sync_engine, "before_cursor_execute", remember)
    await apdb.known_objects(REGION)
    await apdb.unsent()
    async with apdb.unit(REGION) as unit:
        history = await unit.history(now_mjd_tai=60000.0)
        products, entry, outbox = products_of(2, 50)
        products.sources["diaObjectId"] = history.objects["diaObjectId"]
        products.objects["diaObjectId"] = history.objects["diaObjectId"]
        products.objects["validityStartMjdTai"] = 60001.0
        await unit.commit(products, entry, outbox)
    event.remove(apdb._engine.sync_engine, "before_cursor_execute", remember)
    assert len(seen) >= 5
    async with apdb._engine.connect() as connection:
        for statement, parameters in seen:
            plan = await connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
            details = [row[3] for row in plan]
            assert not [d for d in details if d.startswith("SCAN ") and "USING INDEX" not in d and "json_each" not in d]
    await apdb.close()
