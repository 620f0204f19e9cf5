"""What modules export, import and depend on."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "apstream").rglob("*.py"))
EXPORTING = [path for path in MODULES if "cli" not in path.parts]  # commands are found by their decorator
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def exported(tree: ast.Module) -> list[str] | None:
    """Return the literal `__all__` of a module, None without one."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return list(ast.literal_eval(node.value))
    return None


def public_definitions(tree: ast.Module) -> set[str]:
    names = {node.name for node in tree.body if isinstance(node, Definition)}
    return {name for name in names if not name.startswith("_")}


def bound_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in tree.body if isinstance(node, Definition)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.TypeAlias) if sys.version_info >= (3, 12) else False:
            names.add(node.name.id)
    return names


def faults(source: str) -> list[str]:
    """Say what is wrong with the exports of a module."""
    tree = ast.parse(source)
    listed, public = exported(tree), public_definitions(tree)
    if listed is None:
        return [f"no __all__, but defines {name}" for name in sorted(public)]
    missing = [f"{name} is not in __all__" for name in sorted(public - set(listed))]
    absent = [f"__all__ names {name}, which is not there" for name in sorted(set(listed) - bound_names(tree))]
    twice = [f"{name} is twice in __all__" for name in sorted(listed) if listed.count(name) > 1]
    return missing + absent + twice


@pytest.mark.parametrize("path", EXPORTING, ids=lambda path: str(path.relative_to(ROOT)))
def test_exports_are_complete(path: Path) -> None:
    assert not faults(path.read_text())


def test_faulty_exports_are_noticed() -> None:
    assert faults("__all__ = ['f', 'g']\ndef f(): ...\nclass C: ...\n") == [
        "C is not in __all__",
        "__all__ names g, which is not there",
    ]
    assert faults("def f(): ...\n") == ["no __all__, but defines f"]
    assert not faults("__all__ = ['X', 'f']\nfrom m import f\nX = 1\ndef _g(): ...\n")


def third_party(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names) - {"apstream", "services", "__future__"}


def declared() -> set[str]:
    """Distributions a user gets, extras for development left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    optional = [word for name, words in extras.items() if name != "dev" for word in words]
    wanted = [*project["dependencies"], *optional]
    return {normal(re.split(r"[\[<>=!~; ]", word)[0]) for word in wanted}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_declared_dependency() -> None:
    owners = packages_distributions()
    known = declared()
    stray = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in third_party(path.read_text())
        if not known & {normal(owner) for owner in owners.get(name, [name])}
    }
    assert not stray


def test_dependencies_have_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    words = [*project["dependencies"], *(word for words in extras for word in words)]
    assert not [word for word in words if ">=" not in word]
