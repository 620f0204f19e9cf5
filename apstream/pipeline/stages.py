"""The stages by name: ours, or what the settings put in their place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from apstream.errors import BadSettings
from apstream.imports import load_object
from apstream.model.cutouts import Cutouts
from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Exposure, Template
from apstream.pipeline.report import counts
from apstream.tasks.calibrate import calibrate
from apstream.tasks.characterize import characterize
from apstream.tasks.cutouts import cut
from apstream.tasks.detect import Detections, detect
from apstream.tasks.forced import forced_photometry
from apstream.tasks.isr import isr
from apstream.tasks.measure import measure
from apstream.tasks.subtract import subtract
from apstream.tasks.template import make_template

__all__ = ["StageName", "Stages", "check_replacement", "stages_of"]

StageName = Literal[
    "isr", "characterize", "calibrate", "template", "subtract", "detect", "measure", "forced", "cutouts"
]


@dataclass(frozen=True, slots=True)
class Stages:
    """The functions that the pixel half calls, each under its stage's name, with its arguments and its result."""

    isr: Callable[..., Exposure] = isr
    characterize: Callable[..., CharacterizedExposure] = characterize
    calibrate: Callable[..., CalExp] = calibrate
    template: Callable[..., Template] = make_template
    subtract: Callable[..., DifferenceImage] = subtract
    detect: Callable[..., Detections] = detect
    measure: Callable[..., Any] = measure
    forced: Callable[..., Any] = forced_photometry
    cutouts: Callable[..., Cutouts] = cut


_RESULTS: dict[str, type] = {
    "isr": Exposure,
    "characterize": CharacterizedExposure,
    "calibrate": CalExp,
    "template": Template,
    "subtract": DifferenceImage,
    "detect": Detections,
    "measure": np.ndarray,
    "forced": np.ndarray,
    "cutouts": Cutouts,
}


def stages_of(replacements: Mapping[StageName, str]) -> Stages:
    """Return the stages, with ``module:function`` in place of ours where the settings name one.

    Each adds its counts to the metrics of its result, where that has metrics.

    Raises
    ------
    BadSettings
        If a function cannot be imported.
    """
    ours, other = Stages(), {str(name): path for name, path in replacements.items()}
    return Stages(**{name: _stage(name, getattr(ours, name), other.get(name)) for name in _RESULTS})


def check_replacement(stage: str, path: str) -> Callable[..., Any]:
    """Import what replaces a stage.

    Raises
    ------
    ValueError
        If there is no such function, or it cannot take the stage's arguments.
    """
    try:
        function = load_object(path, f"stage {stage}")
    except BadSettings as error:
        raise ValueError(str(error)) from None
    if not callable(function):
        raise ValueError(f"stage {stage}: {path!r} is no function")
    needed = len(inspect.signature(getattr(Stages(), stage)).parameters)
    try:
        inspect.signature(function).bind(*range(needed))
    except TypeError as error:
        raise ValueError(
            f"stage {stage}: {path!r} cannot be called with the {needed} arguments of {stage}: {error}"
        ) from None
    return cast(Callable[..., Any], function)


def _stage(name: str, ours: Callable[..., Any], path: str | None) -> Callable[..., Any]:
    function, wanted = ours if path is None else check_replacement(name, path), _RESULTS[name]

    def run(*arguments: Any) -> Any:
        result = function(*arguments)
        if not isinstance(result, wanted):
            raise BadSettings(
                f"{path} returned a {type(result).__name__} where {name} returns a {wanted.__name__}",
                where=f"replace.{name}",
                remedy="mend the function, or take it out of the settings",
            )
        return _counted(name, result)

    return run


def _counted(name: str, result: Any) -> Any:
    """Add a stage's counts to the metrics that its result carries, if it carries any."""
    match result:
        case Detections():
            return replace(result, difference=_with(result.difference, counts(name, result)))
        case Exposure() | CharacterizedExposure() | CalExp() | DifferenceImage():
            return _with(result, counts(name, result))
        case _:
            return result


def _with(image: Any, found: Mapping[str, float]) -> Any:
    return replace(image, metrics={**found, **image.metrics})
