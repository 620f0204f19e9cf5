"""The exception tree; each class says what happens to the event that met it.

::

    ApstreamError
    ├── InvalidEvent            DEAD_LETTER  the event itself is wrong
    │   ├── MalformedEvent                   cannot be parsed
    │   ├── UnknownEvent                     no such instrument, detector or schema
    │   ├── OversizedEvent                   larger than the configured limit
    │   └── ForbiddenUri                     points outside the configured roots
    ├── MissingInput            SKIP         something the event needs is not there
    │   ├── DatasetNotFound                  no location for TYPE with ID
    │   ├── FileMissing                      the file named does not exist
    │   ├── MissingPsf                       a supplied PSF is wanted, and none came with the image
    │   ├── NoTemplateOverlap                template does not cover the exposure
    │   ├── TooFewFrames                     calibration frames are too few or unusable
    │   └── BadValidity                      calibrations leave a gap or overlap at its time
    ├── UnfitImage              RECORD       the pixels cannot be used
    │   ├── BadFile                          truncated, empty or not FITS
    │   ├── BadHeader                        a required keyword is missing or wrong
    │   ├── WrongSize                        array shape differs from the camera
    │   ├── MixedFrames                      frames that do not belong in one product
    │   ├── NoGoodPixels                     all NaN, all saturated, all masked
    │   ├── TooFewStars                      PSF, registration or matching impossible
    │   ├── CalibrationFailed                no astrometric or photometric solution
    │   └── SubtractionFailed                no acceptable matching kernel
    ├── TransientFailure        RETRY        may work when tried again
    │   ├── DatabaseUnavailable              down or locked
    │   ├── BrokerUnavailable                Kafka does not answer
    │   ├── StorageUnavailable               disk full, object store away
    │   └── WorkerDied                       child process killed or out of time
    └── FatalError              STOP         the service cannot go on
        ├── BadSettings                      settings file, environment or -c
        ├── BadCamera                        camera description refused
        ├── BadCatalog                       a catalogue file given by the user
        ├── SchemaMismatch                   database or registry not as expected
        └── Conflict                         an existing product differs from the new one
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "ApstreamError",
    "BadCamera",
    "BadCatalog",
    "BadFile",
    "BadHeader",
    "BadSettings",
    "BadValidity",
    "BrokerUnavailable",
    "CalibrationFailed",
    "Conflict",
    "DatabaseUnavailable",
    "DatasetNotFound",
    "Disposition",
    "FatalError",
    "FileMissing",
    "ForbiddenUri",
    "InvalidEvent",
    "MalformedEvent",
    "MissingInput",
    "MissingPsf",
    "MixedFrames",
    "NoGoodPixels",
    "NoTemplateOverlap",
    "OversizedEvent",
    "SchemaMismatch",
    "StorageUnavailable",
    "SubtractionFailed",
    "TooFewFrames",
    "TooFewStars",
    "TransientFailure",
    "UnfitImage",
    "UnknownEvent",
    "WorkerDied",
    "WrongSize",
    "naming",
]


class Disposition(enum.Enum):
    """What happens to an event that met an error."""

    DEAD_LETTER = "dead-letter"
    SKIP = "skip"
    RECORD = "record"
    RETRY = "retry"
    STOP = "stop"


class ApstreamError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message
        What went wrong, in one sentence.
    where
        The file, event or data id concerned.
    remedy
        What the user can do about it.
    """

    disposition = Disposition.STOP

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message, where, remedy)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head} ({self.remedy})" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.remedy))

    def at(self, where: str) -> ApstreamError:
        """Return the same error naming `where`, unless it already names a place."""
        if self.where:
            return self
        return _rebuild(type(self), self.message, where, self.remedy)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Make errors of ours name `where`, unless they already name a place."""
    try:
        yield
    except ApstreamError as error:
        raise error.at(where) from error


def _rebuild(cls: type[ApstreamError], message: str, where: str, remedy: str) -> ApstreamError:
    return cls(message, where=where, remedy=remedy)


class InvalidEvent(ApstreamError):
    """The event itself is wrong; it goes to the dead-letter topic."""

    disposition = Disposition.DEAD_LETTER


class MalformedEvent(InvalidEvent):
    """The event cannot be parsed."""


class UnknownEvent(InvalidEvent):
    """The event names an instrument, detector or schema that is not known."""


class OversizedEvent(InvalidEvent):
    """The event is larger than the configured limit."""


class ForbiddenUri(InvalidEvent):
    """The event points outside the configured roots."""


class MissingInput(ApstreamError):
    """An input of the event does not exist; the event is skipped and recorded."""

    disposition = Disposition.SKIP


class DatasetNotFound(MissingInput):
    """The repository has no location for a dataset type with a data id."""


class FileMissing(MissingInput):
    """A file that was named does not exist."""


class MissingPsf(MissingInput):
    """A supplied PSF is wanted, and none came with the image."""


class NoTemplateOverlap(MissingInput):
    """No template covers the exposure."""


class TooFewFrames(MissingInput):
    """Too few frames are left for a calibration product."""


class BadValidity(MissingInput):
    """The spans of calibrations leave a gap, or overlap, at the time of the exposure."""


class UnfitImage(ApstreamError):
    """The pixels cannot be used; the event is recorded and skipped."""

    disposition = Disposition.RECORD


class BadFile(UnfitImage):
    """A file is truncated, empty or not of its format."""


class BadHeader(UnfitImage):
    """A required header keyword is missing or has an impossible value."""


class WrongSize(UnfitImage):
    """The array shape differs from what the camera or the partner image says."""


class MixedFrames(UnfitImage):
    """Frames of different filters, detectors or kinds do not belong in one calibration product."""


class NoGoodPixels(UnfitImage):
    """Every pixel is NaN, saturated or masked."""


class TooFewStars(UnfitImage):
    """Too few stars for a PSF, a registration or a match."""


class CalibrationFailed(UnfitImage):
    """No astrometric or photometric solution was found."""


class SubtractionFailed(UnfitImage):
    """No acceptable matching kernel was found."""


class TransientFailure(ApstreamError):
    """The same work may succeed when tried again."""

    disposition = Disposition.RETRY


class DatabaseUnavailable(TransientFailure):
    """The database is down or locked."""


class BrokerUnavailable(TransientFailure):
    """The Kafka broker does not answer."""


class StorageUnavailable(TransientFailure):
    """The disk is full or the object store is away."""


class WorkerDied(TransientFailure):
    """A child process was killed or ran out of time or memory."""


class FatalError(ApstreamError):
    """The process cannot go on."""

    disposition = Disposition.STOP


class BadSettings(FatalError):
    """A settings file, environment variable or override is wrong."""


class BadCamera(FatalError):
    """A camera description is wrong."""


class BadCatalog(FatalError):
    """A catalogue file given by the user cannot be used."""


class SchemaMismatch(FatalError):
    """A database or registry is not of the expected version."""


class Conflict(FatalError):
    """An existing product differs from the new one."""
