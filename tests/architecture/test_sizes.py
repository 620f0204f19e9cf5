"""Small verbs, plain nouns: functions, modules and parameter lists keep the sizes of the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 60
FUNCTION_LINES_P90 = 30
MODULE_LINES = 400
PARAMETERS = 7
SERVICE_MAIN_LINES = 60

# module -> why it may be longer
LONG_MODULES: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(source: str) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return int(body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameter_names(function: Function) -> list[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def label(path: Path, function: Function) -> str:
    return f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"


def test_no_function_is_too_long() -> None:
    long = [
        f"{label(path, function)}: {body_lines(function)} lines"
        for path in sources("apstream", "services", "benchmarks", "tests")
        for function in functions(path.read_text())
        if body_lines(function) > FUNCTION_LINES
    ]
    assert not long


def test_most_functions_are_short() -> None:
    texts = [path.read_text() for path in sources("apstream")]
    lengths = sorted(body_lines(function) for text in texts for function in functions(text))
    assert lengths[int(0.9 * len(lengths))] < FUNCTION_LINES_P90


def test_no_module_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in sources("apstream", "services", "benchmarks")
    }
    long = {name: count for name, count in lengths.items() if count > MODULE_LINES}
    assert set(long) - set(LONG_MODULES) == set(), long
    assert set(LONG_MODULES) <= set(long), "an allowance nobody needs any more"
    assert all(reason.strip() for reason in LONG_MODULES.values())


def test_no_parameter_list_is_too_long() -> None:
    many = [
        f"{label(path, function)}: {len(parameter_names(function))}"
        for path in sources("apstream", "services")
        if "cli" not in path.relative_to(ROOT).parts
        for function in functions(path.read_text())
        if len(parameter_names(function)) > PARAMETERS
    ]
    assert not many


def test_service_mains_only_wire_things_together() -> None:
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in sorted((ROOT / "services").glob("*/main.py"))
        if len(path.read_text().splitlines()) > SERVICE_MAIN_LINES
    }
    assert not long


@pytest.mark.parametrize(
    ("source", "lines", "names"),
    [
        ('def f(self, a, *, b):\n    """Doc\n\n    more."""\n    x = 1\n    return x\n', 2, ["a", "b"]),
        ("async def f(a, /, *rest, **named):\n    return (\n        1\n    )\n", 3, ["a"]),
        ('def f():\n    """Only a docstring."""\n', 0, []),
    ],
)
def test_sizes_are_counted_right(source: str, lines: int, names: list[str]) -> None:
    (function,) = functions(source)
    assert body_lines(function) == lines
    assert parameter_names(function) == names
