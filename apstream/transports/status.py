"""What a transport says of itself, for readiness and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["SinkStatus", "SourceStatus"]


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
    """The state of an alert sink."""

    problem: str = ""
    sent: int = 0
    acknowledged: int = 0
    failures: int = 0
