"""The daemon's branch of the settings tree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from apstream.pipeline.catalogs import CatalogsConfig
from apstream.ports import IsolationLevel
from apstream.service.pixel_settings import PixelSettings
from apstream.settings import Source, build_settings, environment_sources, file_source, override_sources
from apstream.transports.settings import EmbeddedSettings, TransportSettings

__all__ = [
    "ApdbSettings",
    "DaemonSettings",
    "HealthSettings",
    "RetrySettings",
    "ServiceSettings",
    "WorkersSettings",
    "load_daemon",
]

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class ApdbSettings(BaseModel):
    """The Alert Production Database."""

    model_config = _FROZEN

    url: str = Field("sqlite:///apdb.sqlite", min_length=1, description="sqlite:///FILE or postgresql://...")
    history_days: float = Field(365.0, gt=0, description="Sources older than this are not read back.")
    lock_timeout_s: float = Field(60.0, gt=0, description="Patience with other work on the same sky.")
    isolation_level: IsolationLevel | None = Field(
        None, description="Of transactions; none: as the APDB was created, else as safe as its kind allows."
    )


class WorkersSettings(BaseModel):
    """The child processes that do the pixel work."""

    model_config = _FROZEN

    count: int = Field(1, ge=1, le=256, description="Child processes.")
    job_timeout_s: float = Field(300.0, gt=0, description="A job that takes longer is killed.")
    start_timeout_s: float = Field(600.0, gt=0, description="Patience with a child's start; kernels may compile.")
    memory_mib: int = Field(0, ge=0, description="A child that grows larger is killed; 0 for no limit.")
    jobs_per_child: int = Field(200, ge=0, description="A child is replaced after so many jobs; 0 for never.")
    threads: int = Field(1, ge=1, description="Threads of the numerical libraries in a child.")


class RetrySettings(BaseModel):
    """What happens to work that failed for a passing reason."""

    model_config = _FROZEN

    first_s: float = Field(1.0, gt=0, description="Pause before the second attempt; doubled each time.")
    longest_s: float = Field(60.0, gt=0, description="Longest pause.")
    limit: int | None = Field(None, ge=0, description="Retries of database, broker and disk; none: for ever.")
    deaths: int = Field(3, ge=1, description="Children that one event may kill before it is recorded as failed.")


class ServiceSettings(BaseModel):
    """How events are worked off."""

    model_config = _FROZEN

    roots: tuple[str | Path, ...] = Field((), description="Folders, or URLs of stores, that events may point into.")
    instruments: tuple[str, ...] = Field((), description="Instruments accepted; all when empty.")
    max_event_bytes: int = Field(1 << 16, ge=256, description="Largest event accepted.")
    alert_dir: Path = Field(Path("alerts"), description="Alert files; on storage that outlives the process.")
    in_flight: int = Field(0, ge=0, description="Events in work at once; 0: one more than workers.")
    pixel_job: str = Field("apstream.service.pixel_job:pixel_job", description="MODULE:FUNCTION of the pixel work.")
    identify_job: str = Field(
        "apstream.service.identify:identify",
        description="MODULE:FUNCTION that reads a header; empty for none.",
    )
    warm_up: str = Field(
        "apstream.service.warm:warm_up", description="MODULE:FUNCTION that a new child calls first; empty for none."
    )
    search_radius_deg: float = Field(1.5, gt=0, description="Around the event's pointing, without a header's.")
    relay_s: float = Field(15.0, gt=0, description="Interval at which alerts left unsent are sent again.")
    drain_s: float = Field(120.0, ge=0, description="Time that work may take to end after SIGTERM.")
    retry: RetrySettings = RetrySettings()


class HealthSettings(BaseModel):
    """The HTTP server with probes and metrics."""

    model_config = _FROZEN

    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port; 0 takes a free one and logs it.")
    cache_s: float = Field(3.0, ge=0, description="How long the result of a readiness check is used.")
    loop_lag_s: float = Field(10.0, gt=0, description="Lag of the event loop that makes the process unfit to live.")
    check_timeout_s: float = Field(3.0, gt=0, description="Patience with one readiness check.")


class DaemonSettings(BaseModel):
    """Everything `apstream serve` needs."""

    model_config = _FROZEN

    transport: TransportSettings = EmbeddedSettings()
    apdb: ApdbSettings = ApdbSettings()
    pixels: PixelSettings = PixelSettings()
    catalogs: CatalogsConfig = CatalogsConfig()
    service: ServiceSettings = ServiceSettings()
    workers: WorkersSettings = WorkersSettings()
    health: HealthSettings | None = HealthSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"


def load_daemon(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> DaemonSettings:
    """Build the settings from files, then environment, then ``key=value`` words.

    Parameters
    ----------
    words
        Files (words without ``=``) and overrides, in any order.
    environment
        Variables such as ``APSTREAM__TRANSPORT__SECURITY__PASSWORD``; double underscores separate the keys.

    Raises
    ------
    BadSettings
        If a file, key or value is refused.
    """
    files = [file_source(Path(word)) for word in words if "=" not in word]
    given = override_sources([word for word in words if "=" in word])
    sources: list[Source] = [*files, *environment_sources(environment), *given]
    return build_settings(DaemonSettings, sources)
