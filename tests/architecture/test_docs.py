"""What the pages for readers name is there: files, functions, settings, links."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from apstream.errors import BadSettings
from apstream.pipeline.config import PairConfig, PixelConfig
from apstream.service.calib_settings import CalibSettings
from apstream.service.coadd_settings import CoaddSettings
from apstream.service.pair import PairSettings
from apstream.service.settings import DaemonSettings
from apstream.settings import load_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for place in ("*.md", "docs/*.md", "services/*/*.md", "helm/**/*.md") for page in ROOT.glob(place))
ROOMS = r"(?:apstream|services|tests|benchmarks|helm|docs|scripts)"
PATH = re.compile(rf"(?<![\w/.-])({ROOMS}/[\w/.-]*\w/?)(?:::(\w+))?")
LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")
STAGE = re.compile(
    r"^\| [^|]+ \| `(apstream/[\w/]+)\.py::(\w+)` \| `(\w+)` \(`([\w.]+)`\) \| ([^|]+) \| `[^`]+` \|$", re.MULTILINE
)
TREES = (PixelConfig, PairConfig, CoaddSettings, DaemonSettings, CalibSettings)
SETTING = re.compile(r"(?<![\w.])((?:[a-z_]+\.)+[a-z_]+=\w[\w.]*)")


def named_paths(text: str) -> list[tuple[str, str]]:
    """Paths from the root of the repository, with the name after `::` if there is one."""
    return [(path, name) for path, name in PATH.findall(text) if not re.search(r"[A-Z]{4,}", path)]


def defines(path: Path, name: str) -> bool:
    return any(getattr(node, "name", None) == name for node in ast.parse(path.read_text()).body)


def wrong_paths(text: str) -> list[str]:
    found = []
    for path, name in named_paths(text):
        if not (ROOT / path).exists():
            found.append(path)
        elif name and not defines(ROOT / path, name):
            found.append(f"{path}::{name}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    assert not wrong_paths(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]


def stages() -> list[tuple[str, str, str, str, str]]:
    return STAGE.findall((ROOT / "docs" / "architecture.md").read_text())


def test_the_table_of_stages_holds_every_verb() -> None:
    listed = {f"{module}.py" for module, *_ in stages()}
    public = {"apstream/alerts/pack.py"}
    for path in (ROOT / "apstream" / "tasks").glob("*.py"):
        if re.search(r"^class \w+(Config|Rules)\(BaseModel\)|^class MatchConfig", path.read_text(), re.MULTILINE):
            public.add(str(path.relative_to(ROOT)))
    assert listed == public


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: str(stage[3]))
def test_a_stage_is_where_the_table_says(stage: tuple[str, str, str, str, str]) -> None:
    path, verb, config, key, arrays = stage
    module = importlib.import_module(path.replace("/", "."))
    assert callable(getattr(module, verb))
    assert getattr(module, config) in {kind for tree in TREES for kind in field_types(tree, key)}
    source = "".join(p.read_text() for p in (ROOT / "apstream").rglob("*.py") if imported_by(module.__name__, p))
    for used in re.findall(r"apstream/arrays/(\w+)\.py", arrays):
        assert re.search(rf"apstream\.arrays\.{used} import|apstream\.arrays import {used}\b", source), used


def imported_by(module: str, path: Path) -> bool:
    """Whether a file is the module itself or a task that it stands on."""
    own = ROOT / (module.replace(".", "/") + ".py")
    below = re.findall(r"from (apstream\.(?:tasks|alerts)\.\w+) import", own.read_text())
    return path in {own, *(ROOT / (name.replace(".", "/") + ".py") for name in below)}


def field_types(tree: type[BaseModel], dotted: str) -> set[object]:
    """What a setting may be: its type, or the members of a union such as ``Config | None``."""
    scopes: set[object] = {tree}
    for name in dotted.split("."):
        models = [scope for scope in scopes if isinstance(scope, type) and issubclass(scope, BaseModel)]
        kinds = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        scopes = {kind for union in kinds for kind in (get_args(union) or (union,))}
    return scopes


def loads(*examples: str) -> bool:
    for tree in (PixelConfig, PairSettings, CoaddSettings, DaemonSettings, CalibSettings):
        with contextlib.suppress(BadSettings):
            load_settings(tree, overrides=examples)
            return True
    return False


def test_settings_in_pages_and_help_exist() -> None:
    sources = [*PAGES, *(ROOT / "apstream" / "cli").glob("*.py")]
    shown = {word for path in sources for word in SETTING.findall(path.read_text())} - {"stage.field=value"}
    together = {word for word in shown if word.startswith("transport.")}  # its fields depend on its kind
    assert len(shown) > 5
    assert not [word for word in shown - together if not loads(word)]
    assert loads(*together)


def test_paths_are_read_right() -> None:
    text = "see `apstream/nowhere.py`, apstream/errors.py::Nothing and `tests/architecture/test_docs.py::stages`."
    assert wrong_paths(text) == ["apstream/nowhere.py", "apstream/errors.py::Nothing"]
    assert LINK.findall("[a](b.md) [c](https://x.org) [d](e.md#f)") == ["b.md", "e.md"]
    assert field_types(PixelConfig, "isr.nothing") == set()
