"""Stages are functions put together, each with the input and output types of the house plan; nothing inherits."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

from apstream.model.exposures import CalExp, CharacterizedExposure, DifferenceImage, Exposure, RawExposure, Template
from apstream.pipeline.stages import Stages

ROOT = Path(__file__).parents[2]
PURE = sorted(path for room in ("arrays", "tasks", "pipeline") for path in (ROOT / "apstream" / room).glob("*.py"))
#: What a class of the pure rooms may derive from: the frozen settings, and nothing of ours but settings of settings.
BASES = {"BaseModel", "Protocol", "NamedTuple", "Enum", "IntEnum", "StrEnum", "IntFlag"}


def odd_bases(source: str) -> list[str]:
    """Name the classes that derive from something else than `BASES` or another class of settings."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [
        f"{node.name}({ast.unparse(base)})"
        for node in classes
        for base in node.bases
        if ast.unparse(base).split(".")[-1].split("[")[0] not in BASES and not ast.unparse(base).endswith("Config")
        and not ast.unparse(base).startswith("_")
    ]  # fmt: skip


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_stage_inherits_from_another(path: Path) -> None:
    assert odd_bases(path.read_text()) == []


def test_a_task_class_and_a_subclass_of_one_would_be_found() -> None:
    assert odd_bases("class Isr(Task): pass\nclass Mine(CharacterizeStage): pass") == [
        "Isr(Task)",
        "Mine(CharacterizeStage)",
    ]


@pytest.mark.parametrize(
    ("stage", "takes", "gives"),
    [
        ("isr", RawExposure, Exposure),
        ("characterize", Exposure, CharacterizedExposure),
        ("calibrate", CharacterizedExposure, CalExp),
        ("template", None, Template),
        ("subtract", None, DifferenceImage),
        ("cutouts", DifferenceImage, None),
    ],
)
def test_stages_have_the_boundaries_of_the_plan(stage: str, takes: type | None, gives: type | None) -> None:
    function = getattr(Stages(), stage)
    hints = get_type_hints(function)
    first = next(iter(inspect.signature(function).parameters))
    assert takes is None or hints[first] is takes
    assert gives is None or hints["return"] is gives


def test_what_a_stage_gives_can_only_be_made_by_it() -> None:
    needed = {kind: {p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty}
              for kind in (Exposure, CharacterizedExposure, CalExp)}  # fmt: skip
    assert {"psf", "background", "stars"} <= needed[CharacterizedExposure]
    assert {"psf", "wcs", "photo_calib", "stars"} <= needed[CalExp]
    assert not {"psf", "photo_calib"} & needed[Exposure]


def test_stages_see_one_detector_at_a_time() -> None:
    for stage in ("isr", "characterize", "calibrate"):
        hints = get_type_hints(getattr(Stages(), stage))
        exposures = [kind for kind in hints.values() if kind in (RawExposure, Exposure, CharacterizedExposure, CalExp)]
        assert len(exposures) == 2, stage  # one in, one out
