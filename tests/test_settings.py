from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from apstream.errors import BadSettings
from apstream.pipeline.config import PixelConfig
from apstream.settings import (
    Source,
    build_settings,
    camera_source,
    environment_sources,
    file_source,
    load_settings,
    override_sources,
    parse_overrides,
    personal_sources,
    preset_names,
)


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


def sources(tmp_path: Path) -> dict[str, Source]:
    (tmp_path / "config" / "apstream").mkdir(parents=True)
    (tmp_path / "config" / "apstream" / "settings.yaml").write_text("detect: {threshold: 2}\n")
    (tmp_path / "my.yaml").write_text("detect: {threshold: 3}\n")
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "APSTREAM__PIXELS__STAGES__DETECT__THRESHOLD": "4"}
    return {
        "camera": camera_source({"detect": {"threshold": 1}}, "simcam"),
        "personal": personal_sources({"detect"}, environment)[0],
        "file": file_source(tmp_path / "my.yaml"),
        "environment": environment_sources(environment, {"pixels.stages": ""})[0],
        "override": override_sources(["detect.threshold=5"])[0],
    }


def test_every_source_wins_over_those_before_it(tmp_path: Path):
    known = list(sources(tmp_path).values())
    found = [build_settings(Tree, known[:count]).detect.threshold for count in range(6)]
    assert found == [5.0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("personal", r"settings\.yaml:1: detect\.threshold"),
        ("file", r"my\.yaml:1: detect\.threshold"),
        ("environment", r"variable APSTREAM__PIXELS__STAGES__DETECT__THRESHOLD: detect\.threshold"),
        ("override", r"-c detect\.threshold: detect\.threshold"),
        ("camera", r"camera simcam, settings: detect\.threshold"),
    ],
)
def test_an_error_names_the_source_that_set_the_value(tmp_path: Path, bad: str, told: str):
    known = sources(tmp_path)
    last = known[bad]
    wrong = Source({"detect": {"threshold": -1}}, last.where, last.text)
    with pytest.raises(BadSettings, match=told):
        build_settings(Tree, [known["file"], wrong, Source({"names": ["a"]}, "-c names")])


def test_an_error_in_a_file_names_its_line(tmp_path: Path):
    (tmp_path / "my.yaml").write_text("# mine\nnames: [a]\ndetect:\n  treshold: 6\n")
    with pytest.raises(BadSettings, match=r"my\.yaml:4: no setting 'detect\.treshold' \(did you mean detect\.thresh"):
        load_settings(Tree, files=[tmp_path / "my.yaml"])
    (tmp_path / "my.yaml").write_text("names: [a]\ndetect: {threshold: 6\n")
    with pytest.raises(BadSettings, match=r"my\.yaml:3: not YAML"):
        load_settings(Tree, files=[tmp_path / "my.yaml"])


def test_a_personal_file_serves_commands_that_know_different_branches(tmp_path: Path):
    home = {"HOME": str(tmp_path)}
    assert personal_sources({"detect"}, home) == []
    path = tmp_path / ".config" / "apstream" / "settings.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("detect: {threshold: 2}\nassemble: {clip: 3}\n")
    assert personal_sources({"detect", "names"}, home)[0].values == {"detect": {"threshold": 2}}
    path.write_text("detct: {threshold: 2}\n")
    with pytest.raises(BadSettings, match=r"settings\.yaml:1: no setting 'detct' \(did you mean detect"):
        personal_sources({"detect"}, home)


def test_a_settings_file_that_ships_is_named_by_an_at_sign():
    assert "calexp-template" in preset_names()
    for name in preset_names():
        assert load_settings(PixelConfig, files=[Path(f"@{name}")]) != PixelConfig()
    with pytest.raises(BadSettings, match=r"no settings file @calexp.*@calexp-template"):
        load_settings(PixelConfig, files=[Path("@calexp")])
