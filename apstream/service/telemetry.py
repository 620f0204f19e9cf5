"""Metrics and logs: one outcome record per event."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from apstream import __version__
from apstream.ports import SinkStatus, SourceStatus
from apstream.service.flight import Outcome
from apstream.service.pool import SlotStatus

__all__ = ["Telemetry", "configure_logging"]

_log = structlog.get_logger("apstream.outcome")
_STAGE_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300)
_LATENCY_S = (1, 3, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800)


class Telemetry:
    """The metrics of one process, in a registry of their own; `listener` is told how each event ended."""

    def __init__(self, listener: Callable[[Outcome], None] = lambda outcome: None) -> None:
        self._listener = listener
        self.registry = CollectorRegistry()
        self._add_event_metrics()
        self._add_state_metrics()
        Gauge("apstream_build_info", "Version.", ["version"], registry=self.registry).labels(__version__).set(1)

    def _add_event_metrics(self) -> None:
        registry = self.registry
        self.received = Counter("apstream_events_received", "Events taken in.", registry=registry)
        self._outcomes = Counter(
            "apstream_visit_outcome",
            "Events ended.",
            ["outcome", "error_class", "instrument"],
            registry=registry,
        )
        self._stages = Histogram(
            "apstream_stage_duration_seconds",
            "Time per stage.",
            ["stage"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self._latency = Histogram(
            "apstream_shutter_to_alert_seconds",
            "From shutter close to the last acknowledgement.",
            ["instrument"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._total = Histogram(
            "apstream_arrival_to_ack_seconds", "From event to end.", buckets=_LATENCY_S, registry=registry
        )
        self._sources = Counter("apstream_diasources", "DIA sources stored.", registry=registry)
        self._alerts = Counter("apstream_alerts_published", "Alerts acknowledged.", registry=registry)
        self._retries = Counter("apstream_retries", "Attempts beyond the first.", registry=registry)
        self._dead = Counter("apstream_dlq", "Events sent to the dead letters.", ["reason"], registry=registry)
        self.relayed = Counter("apstream_alerts_relayed", "Alerts sent by the relay.", registry=registry)
        self._restarts = Counter("apstream_worker_restarts", "Children lost.", ["reason"], registry=registry)

    def _add_state_metrics(self) -> None:
        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"apstream_{name}", text, list(labels), registry=self.registry)

        self.in_flight = gauge("visits_inflight", "Events in work.")
        self.loop_lag = gauge("loop_lag_seconds", "Delay of the event loop.")
        self.outbox_pending = gauge("outbox_pending", "Committed exposures whose alerts are not acknowledged.")
        self.outbox_oldest = gauge("outbox_oldest_seconds", "How long the oldest of them has been seen unsent.")
        self._lag = gauge("kafka_lag", "Events behind the end.", ["partition"])
        self._assigned = gauge("kafka_assigned_partitions", "Partitions of this process.")
        self._rebalances = gauge("kafka_rebalances_total", "Assignments received.")
        self._commit_failures = gauge("kafka_commit_failures_total", "Offset commits that failed.")
        self._sink_failures = gauge("publish_failures_total", "Publications that failed.")
        self._rss = gauge("worker_rss_bytes", "Memory of a child.", ["slot"])

    def lost_child(self, reason: str) -> None:
        """Count a child that had to be replaced."""
        for word in ("no result", "memory", "signal", "ended"):
            if word in reason:
                self._restarts.labels(word.replace("no result", "timeout")).inc()
                return
        self._restarts.labels("other").inc()

    def ended(self, outcome: Outcome) -> None:
        """Record how an event ended: the log's outcome record and the metrics."""
        instrument = "" if outcome.id is None else outcome.id.instrument
        self._outcomes.labels(outcome.name, outcome.error_class, instrument).inc()
        for stage, seconds in outcome.timings_s.items():
            self._stages.labels(stage).observe(seconds)
        self._total.observe(outcome.total_s)
        self._retries.inc(outcome.attempts - 1)
        self._alerts.inc(outcome.n_alerts)
        if outcome.name == "processed":
            self._sources.inc(outcome.n_sources)
        if outcome.name == "dead-letter":
            self._dead.labels(outcome.error_class).inc()
        if outcome.shutter_to_alert_s is not None:
            self._latency.labels(instrument).observe(outcome.shutter_to_alert_s)
        _log.info("event.ended", **_plain(outcome))
        self._listener(outcome)

    def observe(self, source: SourceStatus, sink: SinkStatus, slots: Iterable[SlotStatus]) -> None:
        """Take over what transports and pool say of themselves."""
        self._lag.clear()
        for partition, lag in source.lag.items():
            self._lag.labels(partition).set(lag)
        self._assigned.set(len(source.assigned))
        self._rebalances.set(source.rebalances)
        self._commit_failures.set(source.commit_failures)
        self._sink_failures.set(sink.failures)
        for slot in slots:
            self._rss.labels(str(slot.slot)).set(slot.rss_bytes)

    def page(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


def _plain(outcome: Outcome) -> dict[str, Any]:
    record = {key: value for key, value in asdict(outcome).items() if value not in ("", None, ())}
    record.pop("id", None)
    if outcome.id is not None:
        record |= {
            "instrument": outcome.id.instrument,
            "visit": outcome.id.visit,
            "detector": outcome.id.detector,
        }
    record["outcome"] = record.pop("name")
    record["timings_s"] = {stage: round(seconds, 4) for stage, seconds in outcome.timings_s.items()}
    return record


def configure_logging(level: str = "info", form: str = "json") -> None:
    """Send all logs, ours and the libraries', to stderr: one JSON object a line, or text for people."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Any = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL if level != "debug" else logging.WARNING)
