"""Everything a daemon process holds, built once from the settings and closed in reverse."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import structlog

from apstream.apdb import open_apdb
from apstream.errors import TransientFailure
from apstream.model.columns import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE
from apstream.model.exposures import ExposureInfo
from apstream.model.ids import VisitDetector
from apstream.model.products import CatalogProducts, History, PixelProducts, SkyCircle
from apstream.pipeline.catalogs import CatalogsConfig, make_alerts
from apstream.ports import AlertSink, Apdb, EventSource
from apstream.service.alert_files import AlertFiles
from apstream.service.clock import now_mjd_tai
from apstream.service.lifecycle import Lifecycle
from apstream.service.pool import PoolSettings, WorkerPool
from apstream.service.relay import Relay
from apstream.service.settings import DaemonSettings
from apstream.service.telemetry import Telemetry
from apstream.service.worker import EventWorker, Tools
from apstream.transports.embedded import EmbeddedBroker
from apstream.transports.files import FilesSink, FilesSource
from apstream.transports.kafka import KafkaSink, KafkaSource
from apstream.transports.settings import EmbeddedSettings, FilesSettings, KafkaSettings

__all__ = ["ProcessContext", "make_pool", "open_transport"]

_log = structlog.get_logger(__name__)
_NOBODY = VisitDetector("", 0, 0)


class ProcessContext:
    """The parts of a running daemon."""

    def __init__(
        self,
        *,
        source: EventSource,
        sink: AlertSink,
        apdb: Apdb,
        pool: WorkerPool,
        worker: EventWorker,
        relay: Relay,
        closing: AsyncExitStack,
    ) -> None:
        self.source = source
        self.sink = sink
        self.apdb = apdb
        self.pool = pool
        self.worker = worker
        self.relay = relay
        self._closing = closing

    @classmethod
    async def from_settings(
        cls, settings: DaemonSettings, telemetry: Telemetry, lifecycle: Lifecycle
    ) -> ProcessContext:
        """Build all parts; waits for a database that is away, until told to stop.

        Raises
        ------
        FatalError
            If settings, schema or warm-up are wrong.
        """
        async with AsyncExitStack() as stack:
            source, sink = await open_transport(settings.transport, stack)
            stack.push_async_callback(sink.close)
            apdb = await _open_apdb(settings, lifecycle)
            stack.push_async_callback(apdb.close)
            pool = make_pool(settings, telemetry)
            stack.push_async_callback(pool.close)
            await asyncio.gather(pool.start(), asyncio.to_thread(_warm_up, settings.catalogs))
            worker = EventWorker(
                Tools(
                    apdb=apdb,
                    sink=sink,
                    pool=pool,
                    files=AlertFiles(settings.service.alert_dir, settings.catalogs.pack.schema_id),
                    make_alerts=partial(_make_alerts, settings.catalogs),
                    pixels=settings.pixels,
                    clock=now_mjd_tai,
                ),
                settings.service,
            )
            relay = Relay(apdb, worker, telemetry, settings.service.relay_s)
            stack.push_async_callback(source.close)
            await source.start()
            return cls(
                source=source,
                sink=sink,
                apdb=apdb,
                pool=pool,
                worker=worker,
                relay=relay,
                closing=stack.pop_all(),
            )
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Commit offsets and leave the group, kill the children, close database and producer."""
        await self._closing.aclose()

    async def apdb_problem(self) -> str:
        """Readiness: does the database answer?"""
        await self.apdb.ledger(_NOBODY)
        return ""

    async def source_problem(self) -> str:
        """Readiness: do events come?"""
        return self.source.status.problem

    async def sink_problem(self) -> str:
        """Readiness: are alerts acknowledged? Connects if nothing was sent yet."""
        if self.sink.status.problem == "not connected":
            await self.sink.start()
        return self.sink.status.problem

    async def pool_problem(self) -> str:
        """Readiness: are there children?"""
        return self.pool.problem


async def open_transport(
    settings: KafkaSettings | EmbeddedSettings | FilesSettings, stack: AsyncExitStack
) -> tuple[EventSource, AlertSink]:
    """Make source and sink; an embedded broker lives as long as the stack."""
    match settings:
        case FilesSettings():
            return FilesSource(settings), FilesSink(settings)
        case KafkaSettings():
            return KafkaSource(settings), KafkaSink(settings)
        case EmbeddedSettings():
            kafka = settings.kafka
            topics = (kafka.events_topic, kafka.alerts_topic, kafka.dead_letter_topic)
            broker = await stack.enter_async_context(EmbeddedBroker(topics))
            kafka = kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
            _log.info("embedded.broker", bootstrap_servers=broker.bootstrap_servers)
            if settings.address_file is not None:
                await asyncio.to_thread(settings.address_file.write_text, broker.bootstrap_servers)
            return KafkaSource(kafka), KafkaSink(kafka)


def make_pool(settings: DaemonSettings, telemetry: Telemetry) -> WorkerPool:
    """Make the pool of children."""
    workers = settings.workers
    limits = PoolSettings(
        size=workers.count,
        job_timeout_s=workers.job_timeout_s,
        start_timeout_s=workers.start_timeout_s,
        memory_bytes=workers.memory_mib << 20,
        jobs_per_child=workers.jobs_per_child,
        threads=workers.threads,
        warm_up=settings.service.warm_up,
    )
    return WorkerPool(limits, telemetry.lost_child)


async def _open_apdb(settings: DaemonSettings, lifecycle: Lifecycle) -> Apdb:
    apdb, pause = settings.apdb, settings.service.retry.first_s
    while True:
        try:
            return await open_apdb(
                apdb.url,
                history_days=apdb.history_days,
                lock_timeout_s=apdb.lock_timeout_s,
                isolation_level=apdb.isolation_level,
            )
        except TransientFailure as error:
            if lifecycle.stopping:
                raise
            _log.warning("apdb.waiting", reason=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, settings.service.retry.longest_s)


def _warm_up(config: CatalogsConfig) -> None:
    """Compile the kernels of the catalogue half now, not under the lock of the first exposure."""
    info = ExposureInfo(id=_NOBODY, band="", physical_filter="", mid_mjd_tai=0.0, exposure_s=0.0)
    empty = PixelProducts(
        info=info,
        dia_sources=DIA_SOURCE.empty(0),
        forced=DIA_FORCED_SOURCE.empty(0),
        cutouts=(),
        region=SkyCircle(0.0, 0.0, 0.1),
    )
    history = History(DIA_OBJECT.empty(0), DIA_SOURCE.empty(0), DIA_FORCED_SOURCE.empty(0))
    make_alerts(empty, history, 0.0, config)


def _make_alerts(config: CatalogsConfig, products: PixelProducts, history: History, now: float) -> CatalogProducts:
    return make_alerts(products, history, now, config)
