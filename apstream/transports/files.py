"""Events from files and alerts to files: no broker needed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from apstream.alerts.codec import checksum, write_ocf
from apstream.errors import BadSettings, StorageUnavailable
from apstream.model.products import Alert
from apstream.ports import Message, SinkStatus, SourceStatus
from apstream.transports.lanes import Lanes
from apstream.transports.settings import FilesSettings

__all__ = ["FilesSink", "FilesSource"]


class FilesSource:
    """An `EventSource` of a directory (one event per file, in order of name) or a JSON-lines file.

    Files of a directory are worked off one after the other, because a name does not say which belong to one
    detector; lines of a JSON-lines file in parallel for different instruments and detectors.
    """

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._lanes: Lanes[int, Message] = Lanes()
        self._sizes: dict[str, int] = {}
        self._taken: set[str] = set()
        self._count = 0
        self._watcher: asyncio.Task[None] | None = None
        self._error: BadSettings | None = None
        self.status = SourceStatus()

    async def start(self) -> None:
        """Look for events in the background."""
        self.status.problem = ""
        self.status.assigned = (str(self._settings.events),)
        self._watcher = asyncio.create_task(self._watch(), name="files-source")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield events until all are taken, or, when watching, until `stop_intake`."""
        if self._watcher is None:
            await self.start()
        while (message := await self._lanes.take()) is not None:
            yield message
        if self._error is not None:
            raise self._error

    async def done(self, message: Message) -> None:
        """Finish an event."""
        self._lanes.free(message.partition)

    def stop_intake(self) -> None:
        """Take no further events."""
        self._lanes.clear()
        self._lanes.close()

    @property
    def idle(self) -> bool:
        """Whether all that was found is finished."""
        return self._lanes.idle

    async def close(self) -> None:
        """Stop looking."""
        self.stop_intake()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def _watch(self) -> None:
        try:
            while True:
                for message in await asyncio.to_thread(self._look):
                    self._lanes.put(message.partition, [message])
                if self._settings.watch_s is None:
                    break
                await asyncio.sleep(self._settings.watch_s)
        except OSError as error:
            where = str(self._settings.events)
            self._error = BadSettings(f"cannot read events: {error.strerror}", where=where)
        self._lanes.finish()

    def _look(self) -> list[Message]:
        events = self._settings.events
        found = _files(events, self._settings.pattern) if events.is_dir() else _lines(events)
        return [self._message(payload, lane) for name, size, payload, lane in found if self._is_new(name, size)]

    def _is_new(self, name: str, size: int) -> bool:
        """Whether to take it now: when watching, a file must have kept its size since the last look."""
        if name in self._taken:
            return False
        settled = self._settings.watch_s is None or size < 0 or self._sizes.get(name) == size
        self._sizes[name] = size
        if settled:
            self._taken.add(name)
        return settled

    def _message(self, payload: bytes, lane: int) -> Message:
        self._count += 1
        return Message(payload, topic=str(self._settings.events), partition=lane, offset=self._count - 1)


class FilesSink:
    """An `AlertSink` that writes one Avro object container file per publication, named by content."""

    def __init__(self, settings: FilesSettings) -> None:
        self._alerts = settings.alerts
        self._dead = settings.dead_letters or settings.alerts / "dead"
        self.status = SinkStatus()

    async def start(self) -> None:
        """Nothing to connect to."""

    def check(self, alerts: Sequence[Alert]) -> None:
        """Every alert fits into a file."""

    async def publish(self, alerts: Sequence[Alert]) -> None:
        """Write the file; StorageUnavailable if the disk is full or away."""
        if not alerts:
            return
        data = await asyncio.to_thread(write_ocf, alerts)
        name = f"{alerts[0].id}-{checksum(data)[:16]}.avro"
        await asyncio.to_thread(_write, self._alerts / name, data)
        self.status.sent += len(alerts)
        self.status.acknowledged += len(alerts)

    async def dead_letter(self, message: Message, *, reason: str, error_class: str) -> None:
        """Write the refused event, as base64, with the reason."""
        record = {
            "reason": reason,
            "error_class": error_class,
            "origin": f"{message.topic}[{message.partition}]@{message.offset}",
            "payload_base64": base64.b64encode(message.value).decode(),
        }
        data = json.dumps(record, indent=1).encode()
        await asyncio.to_thread(_write, self._dead / f"{hashlib.sha256(data).hexdigest()[:16]}.json", data)

    async def close(self) -> None:
        """Nothing to close."""


_Found = tuple[str, int, bytes, int]  # name, size (-1: whole by nature), payload, lane


def _files(folder: Path, pattern: str) -> Iterator[_Found]:
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and not path.name.startswith("."):
            yield str(path), path.stat().st_size, json.dumps({"uri": str(path.absolute())}).encode(), 0


def _lines(path: Path) -> Iterator[_Found]:
    for number, line in enumerate(path.read_bytes().splitlines()):
        if line.strip():
            yield f"{number}", -1, line, _lane(line)


def _lane(line: bytes) -> int:
    key = ""
    with suppress(ValueError, AttributeError):
        event = json.loads(line)
        key = f"{event.get('instrument', '')}/{event.get('detector', '')}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; the same content again is no work."""
    if path.exists():
        return
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageUnavailable(f"cannot write: {error.strerror}", where=str(path)) from error
