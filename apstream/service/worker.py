"""One event, start to finish.

Parse, look whether it has been done, compute pixels in a child process, associate and pack under the lock of
the sky region, write the alert file, commit once, publish, mark sent. Every step can be repeated: a crash
anywhere leads to the same rows and the same alerts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from apstream.errors import ApstreamError, Disposition, MalformedEvent, UnfitImage, UnknownEvent, WorkerDied
from apstream.model.events import ExposureEvent
from apstream.model.ids import VisitDetector
from apstream.model.products import CatalogProducts, History, KnownObjects, PixelProducts, SkyCircle
from apstream.ports import AlertSink, Apdb, LedgerEntry, Message, OutboxEntry
from apstream.service.alert_files import AlertFiles
from apstream.service.flight import Flight, Outcome
from apstream.service.pool import WorkerPool
from apstream.service.request import HeaderRequest, Identity, PixelRequest
from apstream.service.roots import find_file
from apstream.service.settings import ServiceSettings

__all__ = ["EventWorker", "Tools"]

_log = structlog.get_logger(__name__)
_DAY_S = 86400.0
_NAMES = {
    Disposition.DEAD_LETTER: "dead-letter",
    Disposition.SKIP: "skipped",
    Disposition.RECORD: "unfit",
    Disposition.RETRY: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a worker works with.

    Parameters
    ----------
    make_alerts
        `pipeline.catalogs.make_alerts` with its settings: (products, history, now MJD TAI) to products.
    pixels
        The settings sent along to the child.
    clock
        Returns the time now, MJD TAI.
    """

    apdb: Apdb
    sink: AlertSink
    pool: WorkerPool
    files: AlertFiles
    make_alerts: Callable[[PixelProducts, History, float], CatalogProducts]
    pixels: Any
    clock: Callable[[], float]


class EventWorker:
    """Works off events, several at a time if asked to."""

    def __init__(self, tools: Tools, settings: ServiceSettings) -> None:
        self._tools = tools
        self._settings = settings
        self.flights: set[Flight] = set()

    async def handle(self, message: Message) -> Outcome:
        """Bring one event to its end.

        Raises
        ------
        FatalError
            If the service cannot go on; the event is then unfinished.
        """
        flight = Flight(message)
        self.flights.add(flight)
        try:
            with structlog.contextvars.bound_contextvars(origin=flight.origin):
                while (outcome := await self._advance(flight)) is None:
                    pass
        finally:
            self.flights.discard(flight)
        return outcome

    def working_on(self, id: VisitDetector) -> bool:
        """Whether some event of this unit of work is in flight here."""
        return any(flight.id == id for flight in self.flights)

    async def publish(self, entry: OutboxEntry) -> int:
        """Send committed alerts from their file, byte for byte, and mark them sent."""
        alerts = await asyncio.to_thread(self._tools.files.read, entry)
        await self._tools.sink.publish(alerts)
        await self._tools.apdb.mark_sent(entry)
        return len(alerts)

    async def _advance(self, flight: Flight) -> Outcome | None:
        try:
            if flight.verdict is None:
                return await self._process(flight)
            return await self._conclude(flight, flight.verdict)
        except ApstreamError as error:
            await self._judge(flight, error)
        except Exception as error:  # the rim: a defect of ours must not take the other events down
            if flight.verdict is not None:
                raise
            _log.exception("event.unexpected")
            await self._judge(flight, UnfitImage(f"unexpected {type(error).__name__}: {error}"))
        return None

    async def _judge(self, flight: Flight, error: ApstreamError) -> None:
        """Say what a failure does to its event: the one place."""
        match error.disposition:
            case Disposition.DEAD_LETTER | Disposition.SKIP | Disposition.RECORD:
                flight.verdict = error
            case Disposition.RETRY if self._is_enough(flight, error):
                flight.verdict = error
            case Disposition.RETRY:
                await self._back_off(flight, error)
            case Disposition.STOP:
                raise error

    def _is_enough(self, flight: Flight, error: ApstreamError) -> bool:
        retry = self._settings.retry
        if isinstance(error, WorkerDied):
            flight.deaths += 1
            return flight.deaths >= retry.deaths
        return flight.verdict is None and retry.limit is not None and flight.attempts > retry.limit

    async def _back_off(self, flight: Flight, error: ApstreamError) -> None:
        retry = self._settings.retry
        pause = min(retry.longest_s, retry.first_s * 2.0 ** min(flight.attempts - 1, 20))
        _log.warning(
            "event.retry",
            error_class=type(error).__name__,
            reason=str(error),
            attempt=flight.attempts,
            pause_s=pause,
        )
        flight.attempts += 1
        with flight.at("waiting"):
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))

    async def _conclude(self, flight: Flight, error: ApstreamError) -> Outcome:
        """Put an event with a verdict aside: to the dead letters, or into the ledger."""
        name, kind = _NAMES[error.disposition], type(error).__name__
        if error.disposition is Disposition.DEAD_LETTER:
            with flight.at("dead-letter"):
                await self._tools.sink.dead_letter(flight.message, reason=str(error), error_class=kind)
        elif flight.id is not None:
            with flight.at("record"):
                await self._tools.apdb.record(LedgerEntry(flight.id, name, f"{kind}: {error}"))
        return flight.outcome(name, reason=str(error), error_class=kind)

    async def _process(self, flight: Flight) -> Outcome:
        with flight.at("parse"):
            event = self._parse(flight)
        if event.id is not None and (repeated := await self._if_ended(flight, event.id)):
            return repeated
        if flight.products is None:
            found = await self._pixels(flight, event)
            if isinstance(found, Outcome):
                return found
            flight.products = found
        entry = await self._commit(flight, flight.products)
        if entry is None:  # another process was faster
            return await self._if_ended(flight, flight.products.info.id) or flight.outcome("repeated")
        with flight.at("publish"):
            await self.publish(entry)
        return self._timed(flight, flight.outcome("processed", n_alerts=entry.n_alerts), flight.products)

    def _parse(self, flight: Flight) -> ExposureEvent:
        event = ExposureEvent.parse(flight.message.value, max_bytes=self._settings.max_event_bytes, where=flight.origin)
        accepted = self._settings.instruments
        if accepted and event.instrument and event.instrument not in accepted:
            raise UnknownEvent(f"instrument {event.instrument!r} is not served here", where=flight.origin)
        flight.event = event
        self._name(flight, event.id)
        return event

    def _name(self, flight: Flight, id: VisitDetector | None) -> None:
        if id is not None:
            flight.id = id
            structlog.contextvars.bind_contextvars(instrument=id.instrument, visit=id.visit, detector=id.detector)

    async def _if_ended(self, flight: Flight, id: VisitDetector) -> Outcome | None:
        """If the ledger has the row already: send what is unsent, and end."""
        with flight.at("ledger"):
            entry = await self._tools.apdb.ledger(id)
        if entry is None:
            return None
        with flight.at("publish"):
            sent = [await self.publish(unsent) for unsent in await self._tools.apdb.unsent(id)]
        return flight.outcome("repeated", reason=f"ended before as {entry.outcome}", n_alerts=sum(sent))

    async def _pixels(self, flight: Flight, event: ExposureEvent) -> PixelProducts | Outcome:
        with flight.at("locate"):
            path = await asyncio.to_thread(find_file, event.uris, self._settings.roots)
        identity = await self._identify(flight, event, path)
        if event.id is None and (repeated := await self._if_ended(flight, identity.id)):
            return repeated
        with flight.at("known"):
            region = identity.region
            known = KnownObjects.none() if region is None else await self._tools.apdb.known_objects(region)
        with flight.at("pixels"):
            request = PixelRequest(event, path, known, self._tools.pixels)
            products: PixelProducts = await self._tools.pool.run(self._settings.pixel_job, request)
        _require_same(identity.id, products.info.id, path)
        return products

    async def _identify(self, flight: Flight, event: ExposureEvent, path: str) -> Identity:
        if self._settings.identify_job:
            with flight.at("identify"):
                request = HeaderRequest(event, path, self._tools.pixels)
                identity: Identity = await self._tools.pool.run(self._settings.identify_job, request)
        else:
            identity = _identity_of(event, self._settings.search_radius_deg)
        if event.id is not None:
            _require_same(event.id, identity.id, path)
        self._name(flight, identity.id)
        return identity

    async def _commit(self, flight: Flight, products: PixelProducts) -> OutboxEntry | None:
        tools, info = self._tools, products.info
        with flight.at("commit"):
            async with tools.apdb.unit(products.region) as unit:
                history = await unit.history(now_mjd_tai=info.mid_mjd_tai, near=products.dia_sources)
                catalogs = await asyncio.to_thread(tools.make_alerts, products, history, tools.clock())
                tools.sink.check(catalogs.alerts)
                outbox = await asyncio.to_thread(tools.files.write, info.id, catalogs.alerts)
                ledger = LedgerEntry(
                    info.id, "processed", n_sources=len(catalogs.sources), n_alerts=len(catalogs.alerts)
                )
                return outbox if await unit.commit(catalogs, ledger, outbox) else None

    def _timed(self, flight: Flight, outcome: Outcome, products: PixelProducts) -> Outcome:
        shutter = products.info.mid_mjd_tai + products.info.exposure_s / 2 / _DAY_S
        return replace(outcome, shutter_to_alert_s=(self._tools.clock() - shutter) * _DAY_S)


def _identity_of(event: ExposureEvent, radius_deg: float) -> Identity:
    if event.id is None:
        raise MalformedEvent("instrument, visit and detector are needed", where=event.event_id)
    if event.ra is None or event.dec is None:
        return Identity(event.id, None)
    return Identity(event.id, SkyCircle(event.ra, event.dec, radius_deg))


def _require_same(said: VisitDetector, found: VisitDetector, path: str) -> None:
    if said != found:
        raise MalformedEvent(f"the event says {said}, the file {found}", where=path)
