"""What every APDB does, whichever database is behind it."""

import asyncio

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from helpers.catalog_samples import make_info, make_sources

from apstream.apdb import create_apdb, open_apdb
from apstream.apdb.tables import metadata
from apstream.errors import Conflict, DatabaseUnavailable, SchemaMismatch, UnfitImage
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.ids import VisitDetector
from apstream.model.products import CutoutTriplet, PixelProducts, SkyCircle
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts
from apstream.ports import LedgerEntry, OutboxEntry

REGION = SkyCircle(150.02, 2.0, 0.2)
CONFIG = CatalogsConfig()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/apdb.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
async def url(empty_url):
    await create_apdb(empty_url)
    return empty_url


@pytest.fixture
async def apdb(url):
    opened = await open_apdb(url)
    yield opened
    await opened.close()


def products_of(visit, n=3, *, forced_ids=(), shift=0.0, region=REGION):
    sources = make_sources(n, visit, visit * 1000, 60000.0 + visit)
    sources["ra"] += shift
    forced = DIA_FORCED_SOURCE.empty(len(forced_ids))
    forced["diaForcedSourceId"] = visit * 1000 + np.arange(len(forced_ids))
    forced["diaObjectId"], forced["visit"], forced["band"] = forced_ids, visit, "r"
    forced["ra"], forced["dec"], forced["midpointMjdTai"] = 150.0, 2.0, 60000.0 + visit
    forced["psfFlux"], forced["psfFluxErr"] = 10.0, 1.0
    cutouts = (CutoutTriplet(science=b"s", template=b"t", difference=b"d"),) * n
    return PixelProducts(info=make_info(visit), dia_sources=sources, forced=forced, cutouts=cutouts, region=region)


async def run(apdb, pixels, *, pause=0.0):
    """The catalogue half of one exposure as the service does it."""
    now = 60000.5 + pixels.info.id.visit
    async with apdb.unit(pixels.region) as unit:
        history = await unit.history(now_mjd_tai=now)
        products = make_alerts(pixels, history, now, CONFIG)
        await asyncio.sleep(pause)
        id = pixels.info.id
        entry = LedgerEntry(id, "processed", "", len(products.sources), len(products.alerts))
        outbox = OutboxEntry(id, f"/alerts/{id.visit}.avro", "0" * 64, len(products.alerts))
        return await unit.commit(products, entry, outbox)


async def read(apdb, now=60100.0, region=REGION, near=None):
    async with apdb.unit(region) as unit:
        return await unit.history(now_mjd_tai=now, near=near)


async def test_what_is_committed_comes_back(apdb):
    pixels = products_of(1)
    assert await run(apdb, pixels)
    history = await read(apdb)
    expected = pixels.dia_sources.copy()
    expected["diaObjectId"], expected["timeProcessedMjdTai"] = expected["diaSourceId"], 60001.5
    assert history.sources.tobytes() == expected.tobytes()
    assert history.objects.dtype == DIA_OBJECT.dtype
    assert history.objects["diaObjectId"].tolist() == [1000, 1001, 1002]
    assert history.objects["r_psfFluxMean"].tolist() == expected["psfFlux"].tolist()
    assert np.isnan(history.objects["u_psfFluxMean"]).all()


async def test_a_second_visit_continues_the_objects(apdb):
    await run(apdb, products_of(1))
    known = await apdb.known_objects(REGION)
    await run(apdb, products_of(2, forced_ids=known.ids))
    history = await read(apdb)
    assert history.objects["diaObjectId"].tolist() == [1000, 1001, 1002]
    assert history.objects["nDiaSources"].tolist() == [2, 2, 2]
    assert history.objects["r_fpFluxMean"].tolist() == [10, 10, 10]
    assert len(history.sources) == 6
    assert len(history.forced) == 3


async def test_every_version_of_an_object_is_kept_and_one_is_valid(apdb, url):
    for visit in (1, 2, 3):
        await run(apdb, products_of(visit, 1))
    async with apdb._engine.connect() as connection:
        table = metadata.tables["DiaObject"]
        query = sa.select(table.c.validityStartMjdTai, table.c.validityEndMjdTai, table.c.nDiaSources)
        rows = (await connection.execute(query.order_by(table.c.validityStartMjdTai))).all()
    assert [tuple(row) for row in rows] == [(60001.5, 60002.5, 1), (60002.5, 60003.5, 2), (60003.5, None, 3)]


async def test_known_objects_are_those_inside_the_circle(apdb):
    await run(apdb, products_of(1, 5))
    known = await apdb.known_objects(SkyCircle(150.0, 2.0, 0.0151))
    assert known.ids.tolist() == [1000, 1001]
    assert known.ra.tolist() == pytest.approx([150.0, 150.01])
    assert len((await apdb.known_objects(SkyCircle(10.0, -80.0, 1.0))).ids) == 0


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.999, -45.0), (77.0, 89.999), (200.0, -90.0)])
async def test_regions_are_found_everywhere_on_the_sky(apdb, ra, dec):
    pixels = products_of(1, 4, region=SkyCircle(ra, dec, 0.01))
    pixels.dia_sources["ra"] = (ra + np.array([0, 0.002, 0.003, 90])) % 360
    pixels.dia_sources["dec"] = np.clip(dec + np.array([0, 0.002, -0.002, 0.5]), -90, 90)
    await run(apdb, pixels)
    known = await apdb.known_objects(pixels.region)
    near = {1000, 1001, 1002} if abs(dec) < 89 else set(known.ids.tolist())
    assert set(known.ids.tolist()) == near
    assert len(known.ids) >= 3


async def test_an_exposure_is_committed_once(apdb):
    assert await run(apdb, products_of(1))
    assert not await run(apdb, products_of(1, shift=0.001))
    history = await read(apdb)
    assert len(history.sources) == len(history.objects) == 3
    assert len(await apdb.unsent()) == 1


async def test_leaving_a_unit_without_commit_stores_nothing(apdb):
    with pytest.raises(RuntimeError, match="on the way"):  # noqa: PT012
        async with apdb.unit(REGION) as unit:
            await unit.history(now_mjd_tai=60000.0)
            raise RuntimeError("on the way")
    assert await run(apdb, products_of(1))


async def test_the_history_has_a_window_and_leaves_withdrawn_rows_out(apdb):
    withdrawn = products_of(2)
    withdrawn.dia_sources["timeWithdrawnMjdTai"][0] = 60003.0
    await run(apdb, products_of(1))
    await run(apdb, withdrawn)
    assert len((await read(apdb)).sources) == 5
    late = await read(apdb, now=60001.5 + 365)
    assert len(late.sources) == 2
    assert len(late.objects) == 3


async def test_the_history_can_be_that_of_what_was_found(apdb):
    await run(apdb, products_of(1, 5))
    found = DIA_SOURCE.empty(2)
    found["ra"], found["dec"] = [150.01, np.nan], 2.0
    history = await read(apdb, near=found)
    assert history.objects["diaObjectId"].tolist() == [1001]
    assert history.sources["diaSourceId"].tolist() == [1001]


async def test_two_workers_on_one_region_make_one_object(url):
    first, second = await open_apdb(url), await open_apdb(url)
    jobs = [
        run(apdb, products_of(visit), pause=0.02)
        for visit, apdb in enumerate((first, second, first, second, first), start=1)
    ]
    assert all(await asyncio.gather(*jobs))
    history = await read(first)
    assert len(history.objects) == 3
    assert history.objects["nDiaSources"].tolist() == [5, 5, 5]
    assert len(history.sources) == 15
    await asyncio.gather(first.close(), second.close())


async def test_neighbours_with_overlapping_regions_share_objects_and_never_deadlock(url):
    """Regions that overlap in part, taken in opposite orders by two workers."""
    workers = [await open_apdb(url), await open_apdb(url)]
    jobs = []
    for visit in range(1, 9):
        region = SkyCircle(150.02 + 0.1 * (-1) ** visit, 2.0, 0.3)
        jobs.append(run(workers[visit % 2], products_of(visit, region=region), pause=0.01))
    assert all(await asyncio.gather(*jobs))
    assert (await read(workers[0])).objects["nDiaSources"].tolist() == [8, 8, 8]
    await asyncio.gather(*(worker.close() for worker in workers))


async def test_the_same_exposure_twice_at_once_is_stored_once(url):
    first, second = await open_apdb(url), await open_apdb(url)
    stored = await asyncio.gather(run(first, products_of(1)), run(second, products_of(1)))
    assert sorted(stored) == [False, True]
    await asyncio.gather(first.close(), second.close())


async def test_a_lock_that_is_held_too_long_is_a_database_unavailable(url):
    first, second = await open_apdb(url), await open_apdb(url, lock_timeout_s=0.2)
    async with first.unit(REGION):
        with pytest.raises(DatabaseUnavailable, match="locked"):
            async with second.unit(REGION):
                pass
    assert await run(second, products_of(1))
    await asyncio.gather(first.close(), second.close())


async def test_a_worker_that_is_cancelled_leaves_nothing_and_frees_the_lock(url):
    first, second = await open_apdb(url), await open_apdb(url, lock_timeout_s=5)
    job = asyncio.create_task(run(first, products_of(1), pause=30))
    await asyncio.sleep(0.3)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert await run(second, products_of(2))
    assert (await read(second)).objects["diaObjectId"].tolist() == [2000, 2001, 2002]
    await asyncio.gather(first.close(), second.close())


async def test_ids_that_are_taken_by_other_rows_are_a_conflict(apdb):
    await run(apdb, products_of(1))
    other = products_of(2)
    other.dia_sources["diaSourceId"] = [1000, 1001, 1002]
    with pytest.raises(Conflict):
        await run(apdb, other)
    assert await apdb.ledger(other.info.id) is None
    assert len((await read(apdb)).sources) == 3


async def test_sources_without_position_are_refused_before_anything_is_written(apdb):
    pixels = products_of(1)
    pixels.dia_sources["ra"][1] = np.nan
    with pytest.raises(UnfitImage, match="ra"):
        await run(apdb, pixels)
    assert await apdb.ledger(pixels.info.id) is None


async def test_the_ledger_remembers_the_first_outcome(apdb):
    id = VisitDetector("simcam", 5, 3)
    assert await apdb.ledger(id) is None
    assert await apdb.record(LedgerEntry(id, "skipped", "no template"))
    assert not await apdb.record(LedgerEntry(id, "failed", "something else"))
    assert await apdb.ledger(id) == LedgerEntry(id, "skipped", "no template", 0, 0)


async def test_the_outbox_holds_what_is_not_sent_oldest_first(apdb):
    for visit in (3, 1, 2):
        await run(apdb, products_of(visit))
    waiting = await apdb.unsent()
    assert [entry.id.visit for entry in waiting] == [3, 1, 2]
    assert waiting[0].path == "/alerts/3.avro"
    await apdb.mark_sent(waiting[1])
    assert [entry.id.visit for entry in await apdb.unsent()] == [3, 2]
    assert [entry.id.visit for entry in await apdb.unsent(waiting[2].id)] == [2]
    assert await apdb.unsent(waiting[1].id) == []


async def test_no_sources_are_fine(apdb):
    assert await run(apdb, products_of(1, 0))
    assert (await apdb.ledger(VisitDetector("simcam", 1, 3))).n_sources == 0


async def test_creating_twice_changes_nothing(apdb, url):
    await run(apdb, products_of(1))
    await asyncio.gather(create_apdb(url), create_apdb(url))
    assert len((await read(apdb)).sources) == 3


async def test_migrations_make_the_tables_of_the_registry(apdb):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    async with apdb._engine.connect() as connection:
        assert await connection.run_sync(differences) == [], "write a migration and raise SCHEMA_VERSION"


async def test_a_database_without_tables_is_not_opened(empty_url):
    with pytest.raises(SchemaMismatch, match="apdb create"):
        await open_apdb(empty_url)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE alembic_version SET version_num = '0000'", "version 0000"),
        ("UPDATE alembic_version SET version_num = '9999'", "version 9999"),
        ("UPDATE \"Metadata\" SET value = 'htm-20'", "htm-20"),
    ],
)
async def test_a_database_of_another_version_is_not_opened(apdb, url, statement, message):
    async with apdb._engine.connect() as connection:
        await connection.execution_options(apdb_write=True)
        await connection.exec_driver_sql(statement)
        await connection.commit()
    with pytest.raises(SchemaMismatch, match=message):
        await open_apdb(url)
    if "9999" in message:
        with pytest.raises(SchemaMismatch, match="update apstream"):
            await create_apdb(url)


async def test_only_an_exposure_that_failed_can_be_tried_again(apdb):
    await run(apdb, products_of(1))
    failed = VisitDetector("simcam", 2, 1)
    await apdb.record(LedgerEntry(failed, "skipped", "NoTemplateOverlap"))
    assert await apdb.forget_failure(failed)
    assert await apdb.ledger(failed) is None
    done = make_info(1).id
    assert not await apdb.forget_failure(done)
    assert (await apdb.ledger(done)).outcome == "processed"
