from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from apstream.errors import BadSettings
from apstream.settings import load_settings, parse_overrides


class Detect(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: float = Field(5.0, gt=0)


class Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    detect: Detect = Detect()
    names: tuple[str, ...] = ()


def test_later_sources_win(tmp_path: Path):
    (tmp_path / "s.yaml").write_text("detect: {threshold: 6}\nnames: [a]\n")
    tree = load_settings(Tree, files=[tmp_path / "s.yaml"], overrides=["detect.threshold=7.5"])
    assert tree == Tree(detect=Detect(threshold=7.5), names=("a",))


def test_a_misspelt_setting_is_refused_with_its_neighbour():
    with pytest.raises(BadSettings, match=r"detect\.threshhold.*did you mean detect\.threshold"):
        load_settings(Tree, overrides=["detect.threshhold=5"])


def test_an_impossible_value_names_its_setting():
    with pytest.raises(BadSettings, match=r"detect\.threshold"):
        load_settings(Tree, overrides=["detect.threshold=-1"])


@pytest.mark.parametrize("text", ["threshold", "=3", "a.b={"])
def test_what_is_no_override_is_refused(text: str):
    with pytest.raises(BadSettings, match="-c"):
        parse_overrides([text])


@pytest.mark.parametrize("content", ["- a\n- list\n", "a: [", None])
def test_a_bad_settings_file_is_named(tmp_path: Path, content: str | None):
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadSettings, match=r"bad\.yaml"):
        load_settings(Tree, files=[path])
