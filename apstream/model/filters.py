"""Which filter an exposure was taken through."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FilterLabel"]


@dataclass(frozen=True, slots=True)
class FilterLabel:
    """The glass and the band it stands for, as ``FilterLabel("N708", "r")``."""

    physical: str
    band: str
