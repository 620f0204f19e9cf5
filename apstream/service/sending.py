"""Making and sending exposure events from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from apstream.errors import FileMissing
from apstream.model.events import ExposureEvent
from apstream.transports.kafka import KafkaSink
from apstream.transports.settings import KafkaSettings

__all__ = ["events_of", "send_events"]


def events_of(
    sources: Sequence[Path], *, pattern: str = "**/*.fits*", instrument: str = "", detector: int | None = None
) -> list[ExposureEvent]:
    """Make events of raw files, folders and JSON-lines files, in order of name.

    Raises
    ------
    FileMissing
        If a source does not exist or a folder has no such file.
    MalformedEvent
        If a line is no event.
    """
    events: list[ExposureEvent] = []
    for source in sources:
        if source.suffix == ".jsonl":
            events += _parsed(source)
        else:
            paths = sorted(source.glob(pattern)) if source.is_dir() else [source]
            if not paths or not all(path.is_file() for path in paths):
                raise FileMissing("no exposure there", where=str(source), remedy="give raw files or their folder")
            uris = [str(path.absolute()) for path in paths]
            events += [ExposureEvent(uris=(uri,), instrument=instrument, detector=detector) for uri in uris]
    return events


async def send_events(events: Sequence[ExposureEvent], *, bootstrap: str, topic: str) -> None:
    """Send events, keyed by instrument and detector, and wait for every acknowledgement.

    Raises
    ------
    BrokerUnavailable
        If the broker does not acknowledge.
    """
    sink = KafkaSink(KafkaSettings(bootstrap_servers=bootstrap, events_topic=topic))
    try:
        await sink.send_events([(event.key, event.to_json()) for event in events])
    finally:
        await sink.close()


def _parsed(path: Path) -> Iterator[ExposureEvent]:
    if not path.is_file():
        raise FileMissing("no such file", where=str(path))
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            yield ExposureEvent.parse(line, where=f"{path}:{number}")
