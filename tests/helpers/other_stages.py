"""Stages of a user's own, named by the settings of tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apstream.model.exposures import CharacterizedExposure, Exposure
from apstream.tasks.characterize import CharacterizeConfig, characterize
from apstream.tasks.isr import isr


def doubled(exposure: Exposure, config: CharacterizeConfig) -> CharacterizedExposure:
    """Characterize as ever, of an image twice as bright."""
    image = exposure.image.scaled(2.0, exposure.image.unit)
    return characterize(replace(exposure, image=image), config)


def wrong_type(raw: Any, calibs: Any, config: Any) -> Any:
    """Return what is no exposure."""
    return isr(raw, calibs, config).image


def one_argument(raw: Any) -> Any:
    """Take less than a stage is given."""
    return raw


NOTHING = 3
