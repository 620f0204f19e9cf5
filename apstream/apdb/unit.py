"""One unit of work on a region of the sky: read history, then commit, under one lock."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from apstream.apdb.engine import translated
from apstream.apdb.pixels import pixel_ids, pixel_ranges
from apstream.apdb.rows import insert_rows, require_complete, select_rows
from apstream.apdb.tables import LEDGER, OUTBOX, TABLE_OF
from apstream.arrays.assignment import close_pairs, unit_vectors
from apstream.arrays.types import BoolArray, FloatArray, Records
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, TableSpec
from apstream.model.ids import VisitDetector
from apstream.model.products import CatalogProducts, History, SkyCircle
from apstream.model.wcs import separation
from apstream.ports import LedgerEntry, OutboxEntry

__all__ = ["SqlUnit", "covering", "insert_ledger", "inside", "is_exposure"]

_REACH_DEG = 10 / 3600  # objects this far outside the region, or away from any source, may still matter

_OBJECT = TABLE_OF[DIA_OBJECT.name]


class SqlUnit:
    """A unit of work; `SqlApdb.unit` makes it and holds the lock."""

    def __init__(self, connection: AsyncConnection, region: SkyCircle, *, history_days: float) -> None:
        self._connection = connection
        self._region = region
        self._history_days = history_days

    async def history(self, *, now_mjd_tai: float, near: Records | None = None) -> History:
        """Return the latest objects in the region with their sources and forced sources.

        Parameters
        ----------
        now_mjd_tai
            End of the history window; rows from before the window, and withdrawn ones, stay behind.
        near
            Rows with ra and dec: read only objects that one of them could belong to. The cost of a visit then
            depends on what was found in it, not on what is known there.
        """
        since = now_mjd_tai - self._history_days
        with translated(self._connection.engine.url):
            objects = await select_rows(self._connection, DIA_OBJECT, *covering(self._region))
            objects = objects[inside(objects["ra"], objects["dec"], self._region, margin=_REACH_DEG)]
            if near is not None:
                objects = objects[_reached(objects, near)]
            ids = objects["diaObjectId"]
            sources = await self._rows_of(DIA_SOURCE, ids, since)
            return History(objects, sources, await self._rows_of(DIA_FORCED_SOURCE, ids, since))

    async def commit(self, products: CatalogProducts, entry: LedgerEntry, outbox: OutboxEntry) -> bool:
        """Store all in one transaction; False if the ledger had the row already (nothing is stored)."""
        tables = (
            (DIA_SOURCE, products.sources),
            (DIA_OBJECT, products.objects),
            (DIA_FORCED_SOURCE, products.forced),
        )
        for spec, rows in tables:
            require_complete(spec, rows)
        with translated(self._connection.engine.url):
            if not await insert_ledger(self._connection, entry):
                await self._connection.rollback()
                return False
            await self._end_versions(products)
            for spec, rows in tables:
                await insert_rows(self._connection, spec, rows, _own_columns(spec, rows))
            await self._connection.execute(_outbox_row(outbox))
            await self._connection.commit()
        return True

    async def _rows_of(self, spec: TableSpec, ids: NDArray[np.int64], since: float) -> Records:
        if len(ids) == 0:
            return spec.empty(0)
        table = TABLE_OF[spec.name]
        return await select_rows(
            self._connection,
            spec,
            _among(table.c.diaObjectId, ids.tolist(), self._connection.dialect.name),
            table.c.midpointMjdTai >= since,
            table.c.timeWithdrawnMjdTai.is_(None),
        )

    async def _end_versions(self, products: CatalogProducts) -> None:
        """Let the versions that are replaced end where the new ones begin; a new object has none."""
        rows = products.objects[~np.isin(products.objects["diaObjectId"], products.sources["diaSourceId"])]
        if len(rows) == 0:
            return
        statement = (
            sa.update(_OBJECT)
            .where(_OBJECT.c.diaObjectId == sa.bindparam("id"), _OBJECT.c.validityEndMjdTai.is_(None))
            .values(validityEndMjdTai=sa.bindparam("end"))
        )
        ends = zip(rows["diaObjectId"].tolist(), rows["validityStartMjdTai"].tolist(), strict=True)
        await self._connection.execute(statement, [{"id": id, "end": end} for id, end in ends])


async def insert_ledger(connection: AsyncConnection, entry: LedgerEntry) -> bool:
    """Insert a ledger row; False if the exposure has one."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    statement = insert(LEDGER).values(
        instrument=entry.id.instrument,
        visit=entry.id.visit,
        detector=entry.id.detector,
        outcome=entry.outcome,
        reason=entry.reason,
        nSources=entry.n_sources,
        nAlerts=entry.n_alerts,
    )
    return bool((await connection.execute(statement.on_conflict_do_nothing())).rowcount)


def is_exposure(table: sa.Table, id: VisitDetector) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions that choose the row of an exposure."""
    return table.c.instrument == id.instrument, table.c.visit == id.visit, table.c.detector == id.detector


def covering(region: SkyCircle) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions that choose the latest objects in the pixels that cover a region."""
    grown = SkyCircle(region.ra, region.dec, region.radius + _REACH_DEG)
    ranges = (_OBJECT.c.pixelId.between(low, high) for low, high in pixel_ranges(grown))
    return _OBJECT.c.validityEndMjdTai.is_(None), sa.or_(*ranges)


def inside(ra: FloatArray, dec: FloatArray, region: SkyCircle, *, margin: float = 0.0) -> BoolArray:
    """Tell which positions lie in a region grown by `margin` degrees."""
    center = np.array(region.ra), np.array(region.dec)
    return np.asarray(separation(ra, dec, *center) <= region.radius + margin)


def _reached(objects: Records, near: Records) -> NDArray[np.int64]:
    good = near[np.isfinite(near["ra"]) & np.isfinite(near["dec"])]
    i, _ = close_pairs(unit_vectors(objects["ra"], objects["dec"]), unit_vectors(good["ra"], good["dec"]), _REACH_DEG)
    return np.unique(i)


def _among(column: sa.ColumnElement[int], ids: Sequence[int], dialect: str) -> sa.ColumnElement[bool]:
    if dialect == "sqlite":
        return column.in_(sa.select(sa.column("value")).select_from(sa.func.json_each(json.dumps(ids))))
    return column == sa.any_(sa.bindparam("ids", ids, type_=ARRAY(sa.BigInteger)))


def _own_columns(spec: TableSpec, rows: Records) -> dict[str, list[int | None]]:
    if spec is DIA_FORCED_SOURCE:
        return {}
    own: dict[str, list[int | None]] = {"pixelId": pixel_ids(rows["ra"], rows["dec"]).tolist()}
    if spec is DIA_OBJECT:
        own["validityEndMjdTai"] = [None] * len(rows)
    return own


def _outbox_row(outbox: OutboxEntry) -> sa.Insert:
    return sa.insert(OUTBOX).values(
        instrument=outbox.id.instrument,
        visit=outbox.id.visit,
        detector=outbox.id.detector,
        path=outbox.path,
        checksum=outbox.checksum,
        nAlerts=outbox.n_alerts,
        sent=False,
    )
