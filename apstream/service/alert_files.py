"""Alert files: written before the commit, read again whenever alerts have to be sent once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apstream.alerts.codec import checksum, read_ocf, write_ocf
from apstream.errors import BadFile, StorageUnavailable
from apstream.model.ids import VisitDetector
from apstream.model.products import Alert
from apstream.ports import OutboxEntry
from apstream.repo.atomic import atomic_path, storage_error

__all__ = ["AlertFiles"]


class AlertFiles:
    """A folder of Avro object container files, named by content.

    Parameters
    ----------
    root
        The folder. It must outlive the process, and all replicas must see it: alerts that were committed but
        not yet acknowledged exist only there.
    schema_id
        Schema number of the framing on the topic.
    """

    def __init__(self, root: Path, schema_id: int) -> None:
        self._root = root
        self._schema_id = schema_id

    def write(self, id: VisitDetector, alerts: Sequence[Alert]) -> OutboxEntry:
        """Store the alerts of one unit of work, whole or not at all.

        Raises
        ------
        StorageUnavailable
            If the disk is full or away.
        """
        data = write_ocf(alerts)
        digest = checksum(data)
        relative = f"{id.instrument}/{id.visit}/{id.detector:03d}-{digest[:16]}.avro"
        path = self._root / relative
        try:
            if not path.exists():
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
        except OSError as error:
            raise storage_error(error, path) from error
        return OutboxEntry(id=id, path=relative, checksum=digest, n_alerts=len(alerts))

    def read(self, entry: OutboxEntry) -> tuple[Alert, ...]:
        """Return the alerts exactly as they were committed.

        Raises
        ------
        StorageUnavailable
            If the file is missing or not what was committed.
        """
        path = self._root / entry.path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageUnavailable(
                f"committed alerts cannot be read: {error.strerror}",
                where=str(path),
                remedy="restore the file",
            ) from error
        if checksum(data) != entry.checksum:
            raise StorageUnavailable(
                "committed alerts have changed on disk", where=str(path), remedy="restore the file"
            )
        try:
            return read_ocf(data, self._schema_id)
        except BadFile as error:
            raise StorageUnavailable(error.message, where=str(path), remedy="restore the file") from error
