"""Making and sending exposure events from the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from apstream.cameras import load_camera
from apstream.errors import FileMissing
from apstream.model.events import ExposureEvent
from apstream.repo.formats.raw import read_raw_info
from apstream.repo.repository import Repository, is_repository
from apstream.service.batch import select_raws
from apstream.settings import Source, build_settings, environment_sources
from apstream.transports.kafka import KafkaSink
from apstream.transports.settings import KafkaSettings

__all__ = ["events_of", "send_events"]


def events_of(
    sources: Sequence[Path],
    *,
    selection: Sequence[str] = (),
    pattern: str = "**/*.fits*",
    camera: str = "",
    instrument: str = "",
    detector: int | None = None,
) -> list[ExposureEvent]:
    """Make events of repositories, raw files, folders and JSON-lines files, in order of name.

    Parameters
    ----------
    selection
        Which raws of a repository, such as ``visit=1..5``.
    pattern
        Which files of a folder.
    camera
        Camera whose description reads instrument, visit and detector from the files' headers. Events that
        name their detector are spread over the topic's partitions; those that do not share one.
    instrument, detector
        What events made of files say where no camera is given.

    Raises
    ------
    FileMissing
        If a source does not exist or a folder has no such file.
    DatasetNotFound
        If a selection names no raw.
    MalformedEvent
        If a line is no event.
    ApstreamError
        Whatever is wrong with a header that has to be read.
    """
    events: list[ExposureEvent] = []
    for source in sources:
        if source.suffix == ".jsonl":
            events += _parsed(source)
        elif is_repository(source):
            events += [job.event for job in select_raws(Repository(source), selection)]
        elif camera:
            events += [_of_header(path, camera, detector) for path in _files(source, pattern)]
        else:
            uris = [str(path) for path in _files(source, pattern)]
            events += [ExposureEvent(uris=(uri,), instrument=instrument, detector=detector) for uri in uris]
    return events


async def send_events(
    events: Sequence[ExposureEvent], *, bootstrap: str, topic: str, environment: Mapping[str, str] = os.environ
) -> None:
    """Send events, keyed by instrument and detector, and wait for every acknowledgement.

    Variables such as ``APSTREAM__TRANSPORT__SECURITY__PASSWORD`` say how to log in, as they do to the service.

    Raises
    ------
    BadSettings
        If one of the variables is wrong.
    BrokerUnavailable
        If the broker does not acknowledge.
    """
    named = Source({"bootstrap_servers": bootstrap, "events_topic": topic}, "command line")
    login = environment_sources(environment, {"transport.security": "security", "transport.producer": "producer"})
    sink = KafkaSink(build_settings(KafkaSettings, [*login, named]))
    try:
        await sink.send_events([(event.key, event.to_json()) for event in events])
    finally:
        await sink.close()


def _files(source: Path, pattern: str) -> list[Path]:
    paths = sorted(source.glob(pattern)) if source.is_dir() else [source]
    if not paths or not all(path.is_file() for path in paths):
        raise FileMissing("no exposure there", where=str(source), remedy="give raw files or their folder")
    return [path.absolute() for path in paths]


def _of_header(path: Path, camera: str, detector: int | None) -> ExposureEvent:
    id = read_raw_info(path, load_camera(camera), detector=detector).id
    return ExposureEvent(uris=(str(path),), instrument=id.instrument, visit=id.visit, detector=id.detector)


def _parsed(path: Path) -> Iterator[ExposureEvent]:
    if not path.is_file():
        raise FileMissing("no such file", where=str(path))
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            yield ExposureEvent.parse(line, where=f"{path}:{number}")
