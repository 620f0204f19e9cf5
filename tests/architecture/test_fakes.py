"""Fakes go in at the seams: no test patches our own code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATCHERS = {"patch", "object", "dict", "multiple", "setattr", "setitem", "delattr"}


def ours(tree: ast.Module) -> set[str]:
    """Names a module binds by importing from apstream or from services."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("apstream", "services"):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            aliases = [alias for alias in node.names if alias.name.split(".")[0] == "apstream"]
            names |= {alias.asname or "apstream" for alias in aliases}
    return names


def root_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def is_patcher(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "patch"
    if not isinstance(function, ast.Attribute) or function.attr not in PATCHERS:
        return False
    return root_name(function) in ("mock", "patch", "monkeypatch", "mocker", "unittest")


def patches(source: str) -> list[int]:
    """Lines at which our own code is patched."""
    tree = ast.parse(source)
    names = ours(tree)
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not is_patcher(node.func) or not node.args:
            continue
        target = node.args[0]
        by_path = isinstance(target, ast.Constant) and str(target.value).startswith(("apstream", "services"))
        if by_path or root_name(target) in names:
            lines.append(node.lineno)
    return lines


def test_no_test_patches_our_own_code() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in patches(path.read_text())
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("mock.patch('apstream.repo.open')", [1]),
        ("import apstream.repo\nmonkeypatch.setattr(apstream.repo, 'open', 1)", [2]),
        ("from apstream import repo\nwith mock.patch.object(repo.formats, 'x'): pass", [2]),
        ("monkeypatch.setenv('APSTREAM_X', '1')\nmonkeypatch.setattr(os, 'fsync', f)", []),
    ],
)
def test_patches_are_noticed(source: str, lines: list[int]) -> None:
    assert patches(source) == lines
