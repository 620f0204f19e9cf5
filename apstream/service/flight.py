"""One event on its way, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, nan

from apstream.errors import ApstreamError
from apstream.model.events import ExposureEvent
from apstream.model.ids import VisitDetector
from apstream.model.products import PixelProducts
from apstream.ports import Message

__all__ = ["QUALITY", "Flight", "Outcome"]

#: What an outcome says of the image.
QUALITY = (
    "characterize.fwhm_pixel",
    "characterize.psf_size_residual",
    "characterize.psf_e1_residual",
    "characterize.psf_e2_residual",
    "characterize.sky",
    "characterize.sky_rms",
    "calibrate.sky_mag_arcsec2",
    "calibrate.zero_point",
    "calibrate.zero_point_error",
    "calibrate.depth_mag",
    "calibrate.astrometry_rms_arcsec",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The one record that says how an event ended.

    `name` is ``processed``, ``repeated`` (its work had been done before), ``dead-letter``, ``skipped``,
    ``unfit`` or ``failed``. Times are seconds. `quality` has the numbers by which an image is judged: seeing, PSF
    residuals, sky, zero point, depth and scatter, those that were measured, under their names in the metrics. `notes`
    say what is to be known of its inputs.
    """

    name: str
    id: VisitDetector | None = None
    event_id: str = ""
    origin: str = ""
    reason: str = ""
    error_class: str = ""
    n_sources: int = 0
    n_alerts: int = 0
    attempts: int = 1
    timings_s: dict[str, float] = field(default_factory=dict)
    total_s: float = 0.0
    shutter_to_alert_s: float | None = None
    quality: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Flight:
    """The state of one event in work; `stage` and `since` are what /status shows."""

    message: Message
    event: ExposureEvent | None = None
    id: VisitDetector | None = None
    products: PixelProducts | None = None
    verdict: ApstreamError | None = None
    attempts: int = 1
    deaths: int = 0
    stage: str = "received"
    since: float = field(default_factory=time.monotonic)
    received: float = field(default_factory=time.monotonic)
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where the event came from."""
        return f"{self.message.topic}[{self.message.partition}]@{self.message.offset}"

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Spend the time of a stage; attempts add up."""
        self.stage, self.since = stage, time.monotonic()
        try:
            yield
        finally:
            self.timings_s[stage] = self.timings_s.get(stage, 0.0) + time.monotonic() - self.since

    def outcome(self, name: str, *, reason: str = "", error_class: str = "", n_alerts: int = 0) -> Outcome:
        """Close the flight."""
        pixels = self.products
        return Outcome(
            name=name,
            id=self.id,
            event_id="" if self.event is None else self.event.event_id,
            origin=self.origin,
            reason=reason,
            error_class=error_class,
            n_sources=0 if pixels is None else len(pixels.dia_sources),
            n_alerts=n_alerts,
            attempts=self.attempts,
            timings_s={**self.timings_s, **({} if pixels is None else _dotted(pixels.timings_s))},
            total_s=time.monotonic() - self.received,
            quality={} if pixels is None else _quality(pixels.metrics),
            notes=() if pixels is None else pixels.notes,
        )


def _dotted(timings_s: dict[str, float]) -> dict[str, float]:
    return {f"pixels.{name}": seconds for name, seconds in timings_s.items()}


def _quality(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in QUALITY if isfinite(metrics.get(name, nan))}
