"""Each deployable is a thin main, default settings that load, and a README that names its variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apstream.service.settings import load_daemon

SERVICES = Path(__file__).parents[2] / "services"
FOLDERS = sorted(path.parent for path in SERVICES.glob("*/main.py"))
LOADERS: dict[str, Callable[[list[str], dict[str, str]], object]] = {"alert_producer": load_daemon}


def test_there_are_services() -> None:
    assert FOLDERS
    assert {folder.name for folder in FOLDERS} == set(LOADERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_default_settings_load(folder: Path) -> None:
    LOADERS[folder.name]([str(folder / "settings.yaml")], {})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readme_names_probes_and_variables(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert not [word for word in ("/livez", "/readyz", "/startupz", "/metrics", "APSTREAM__") if word not in text]
