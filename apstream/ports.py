"""The seams of the house: what the service needs from the outside, on one screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from apstream.arrays.types import Records
from apstream.model.ids import VisitDetector
from apstream.model.products import Alert, CatalogProducts, History, KnownObjects, SkyCircle

__all__ = [
    "AlertSink",
    "Apdb",
    "ApdbUnit",
    "EventSource",
    "IsolationLevel",
    "LedgerEntry",
    "Message",
    "OutboxEntry",
    "Repository",
    "SinkStatus",
    "SourceStatus",
]

#: Of transactions of an APDB; which of them there are depends on the database.
IsolationLevel = Literal["READ_UNCOMMITTED", "READ_COMMITTED", "REPEATABLE_READ", "SERIALIZABLE"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came; (topic, partition, offset) say where from."""

    value: bytes
    key: bytes | None = None
    topic: str = ""
    partition: int = 0
    offset: int = 0
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The one row that says that a visit and detector ended, and how."""

    id: VisitDetector
    outcome: str
    reason: str = ""
    n_sources: int = 0
    n_alerts: int = 0


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A committed alert file that waits for its acknowledgements."""

    id: VisitDetector
    path: str
    checksum: str
    n_alerts: int


@dataclass(slots=True)
class SourceStatus:
    """The state of an event source.

    Parameters
    ----------
    problem
        Why no events can come now; empty when all is well.
    assigned
        Names of the partitions this process reads.
    lag
        Events behind the end, by partition.
    """

    problem: str = "not started"
    assigned: tuple[str, ...] = ()
    lag: dict[str, int] = field(default_factory=dict)
    rebalances: int = 0
    commits: int = 0
    commit_failures: int = 0
    restarts: int = 0


@dataclass(slots=True)
class SinkStatus:
    """The state of an alert sink; `problem` is empty when all is well."""

    problem: str = ""
    sent: int = 0
    acknowledged: int = 0
    failures: int = 0


class EventSource(Protocol):
    """Where exposure events come from; at least once, in order within a partition."""

    @property
    def status(self) -> SourceStatus:
        """What the source says of itself."""
        ...

    @property
    def idle(self) -> bool:
        """Whether all that has come so far is finished."""
        ...

    async def start(self) -> None:
        """Begin to connect in the background."""
        ...

    def stop_intake(self) -> None:
        """Take no further events; `messages` ends."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Yield messages until `close`."""
        ...

    async def done(self, message: Message) -> None:
        """Mark a message as finished; its offset is committed when all before it are finished."""
        ...

    async def close(self) -> None:
        """Stop intake, commit, leave the group."""
        ...


class AlertSink(Protocol):
    """Where alerts go."""

    @property
    def status(self) -> SinkStatus:
        """What the sink says of itself."""
        ...

    async def start(self) -> None:
        """Connect; BrokerUnavailable where nobody answers."""
        ...

    def check(self, alerts: Sequence[Alert]) -> None:
        """Refuse with UnfitImage, before anything is committed, alerts that could never be sent."""
        ...

    async def dead_letter(self, message: Message, *, reason: str, error_class: str) -> None:
        """Put a refused event aside as it came, with the reason; BrokerUnavailable otherwise."""
        ...

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Send all alerts and return when every one is acknowledged; BrokerUnavailable otherwise."""
        ...

    async def close(self) -> None:
        """Flush and close."""
        ...


class Repository(Protocol):
    """Typed datasets by type and data id; synchronous."""

    def get(self, dataset_type: str, /, **data_id: Any) -> Any:
        """Return the dataset; DatasetNotFound if there is none."""
        ...

    def put(self, value: Any, dataset_type: str, /, **data_id: Any) -> str:
        """Store the dataset atomically and return its location."""
        ...

    def locate(self, dataset_type: str, /, **data_id: Any) -> str | None:
        """Return the location of a dataset or None."""
        ...


class ApdbUnit(Protocol):
    """One unit of work under the lock on a sky region."""

    async def history(self, *, now_mjd_tai: float, near: Records | None = None) -> History:
        """Return the latest objects in the region with their sources inside the history window.

        With `near`, only objects that one of these sources could belong to.
        """
        ...

    async def commit(self, products: CatalogProducts, entry: LedgerEntry, outbox: OutboxEntry) -> bool:
        """Store all in one transaction; False if the ledger had the row already (nothing is stored)."""
        ...


class Apdb(Protocol):
    """The Alert Production Database."""

    def unit(self, region: SkyCircle) -> AbstractAsyncContextManager[ApdbUnit]:
        """Lock a region: what `history` returns stays true until `commit`."""
        ...

    async def known_objects(self, region: SkyCircle) -> KnownObjects:
        """Return ids and positions of the objects inside `region`."""
        ...

    async def ledger(self, id: VisitDetector) -> LedgerEntry | None:
        """Return how a visit and detector ended, None if it has not."""
        ...

    async def record(self, entry: LedgerEntry) -> bool:
        """Store a ledger row alone, for an exposure that ended without alerts."""
        ...

    async def unsent(self, id: VisitDetector | None = None) -> Sequence[OutboxEntry]:
        """Return outbox rows not marked sent, oldest first."""
        ...

    async def mark_sent(self, entry: OutboxEntry) -> None:
        """Mark an outbox row sent."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
