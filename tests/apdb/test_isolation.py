"""The isolation level of the APDB: chosen when it is made, or by a setting; never one that makes two objects of one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.catalog_samples import make_info, make_sources
from typer.testing import CliRunner

from apstream.apdb import SqlApdb, create_apdb, open_apdb
from apstream.cli.main import app, register
from apstream.errors import BadSettings, DatabaseUnavailable
from apstream.model.columns import DIA_FORCED_SOURCE
from apstream.model.products import CutoutTriplet, PixelProducts, SkyCircle
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts
from apstream.ports import LedgerEntry, OutboxEntry
from apstream.service.settings import load_daemon

register()
REGION = SkyCircle(150.02, 2.0, 0.2)


async def level_of(apdb: SqlApdb) -> str:
    async with apdb._engine.connect() as connection:
        if apdb._is_sqlite:
            found = (await connection.exec_driver_sql("PRAGMA read_uncommitted")).scalar_one()
            return "READ_UNCOMMITTED" if found else "SERIALIZABLE"
        level = (await connection.execute(sa.text("SHOW transaction_isolation"))).scalar_one()
        return str(level).upper().replace(" ", "_")


async def opened_level(url: str, level: str | None = None) -> str:
    apdb = await open_apdb(url, isolation_level=level)
    try:
        return await level_of(apdb)
    finally:
        await apdb.close()


async def test_sqlite_has_two_levels_and_remembers_the_one_it_was_made_with(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/apdb.sqlite"
    await create_apdb(url)
    assert await opened_level(url) == "SERIALIZABLE"
    await create_apdb(url, isolation_level="READ_UNCOMMITTED")
    assert await opened_level(url) == "READ_UNCOMMITTED"
    assert await opened_level(url, "SERIALIZABLE") == "SERIALIZABLE"
    await create_apdb(url)
    assert await opened_level(url) == "READ_UNCOMMITTED"


@pytest.mark.postgres
@pytest.mark.parametrize("level", ["READ_UNCOMMITTED", "READ_COMMITTED", "SERIALIZABLE"])
async def test_postgresql_runs_at_the_level_it_was_made_with(postgres_url: str, level: str) -> None:
    await create_apdb(postgres_url, isolation_level=level)
    assert await opened_level(postgres_url) == level.replace("UNCOMMITTED", "COMMITTED")  # the same to PostgreSQL


@pytest.mark.postgres
async def test_a_level_that_would_read_behind_its_lock_is_refused(postgres_url: str) -> None:
    with pytest.raises(BadSettings, match=r"REPEATABLE_READ for postgresql.*READ_COMMITTED"):
        await create_apdb(postgres_url, isolation_level="REPEATABLE_READ")


def test_the_command_and_the_setting_take_a_level(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/apdb.sqlite"
    words = ["apdb", "create", url, "--isolation-level"]
    assert CliRunner().invoke(app, [*words, "read_uncommitted"]).exit_code == 0
    assert asyncio.run(opened_level(url)) == "READ_UNCOMMITTED"
    refused = CliRunner().invoke(app, [*words, "SNAPSHOT"]).exception
    assert isinstance(refused, BadSettings)
    assert "SERIALIZABLE" in str(refused)
    assert load_daemon(["apdb.isolation_level=SERIALIZABLE"], {}).apdb.isolation_level == "SERIALIZABLE"
    with pytest.raises(BadSettings, match=r"apdb\.isolation_level"):
        load_daemon(["apdb.isolation_level=SNAPSHOT"], {})


async def commit(apdb: SqlApdb, visit: int) -> bool:
    sources = make_sources(3, visit, visit * 1000, 60000.0 + visit)
    pixels = PixelProducts(
        info=make_info(visit),
        dia_sources=sources,
        forced=DIA_FORCED_SOURCE.empty(0),
        cutouts=(CutoutTriplet(science=b"s", template=b"t", difference=b"d"),) * 3,
        region=REGION,
    )
    async with apdb.unit(REGION) as unit:
        history = await unit.history(now_mjd_tai=60000.0 + visit)
        await asyncio.sleep(0.02)
        products = make_alerts(pixels, history, 60000.5 + visit, CatalogsConfig())
        ledger = LedgerEntry(pixels.info.id, "processed", n_sources=3, n_alerts=3)
        return await unit.commit(products, ledger, OutboxEntry(pixels.info.id, f"{visit}.avro", "x", 3))


async def until_done(apdb: SqlApdb, visit: int) -> bool:
    for _ in range(20):
        try:
            return await commit(apdb, visit)
        except DatabaseUnavailable:  # what the service tries again
            await asyncio.sleep(0.01)
    raise AssertionError("never done")


@pytest.mark.postgres
async def test_serializable_transactions_are_tried_again_and_make_one_object(postgres_url: str) -> None:
    await create_apdb(postgres_url, isolation_level="SERIALIZABLE")
    first, second = await open_apdb(postgres_url), await open_apdb(postgres_url)
    jobs = [until_done(apdb, visit) for visit, apdb in enumerate((first, second, first, second), start=1)]
    assert all(await asyncio.gather(*jobs))
    async with first.unit(REGION) as unit:
        history = await unit.history(now_mjd_tai=60010.0)
    assert history.objects["nDiaSources"].tolist() == [4, 4, 4]
    await asyncio.gather(first.close(), second.close())
