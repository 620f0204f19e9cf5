from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apstream.errors import BadSettings, DatasetNotFound
from apstream.repo.dataset_types import ComponentType, CompositeType, StoredType
from apstream.repo.policy import Policy, PolicyFile
from apstream.repo.repository import Repository

MINE = """
weather:
  description: All-sky camera, once per visit
  template: weather/{visit}/{band}.fits
  format: array
"""


def load(text: str) -> Policy:
    return Policy.load([PolicyFile(text, "my.yaml")])


def test_a_user_adds_a_dataset_type_by_a_few_lines(tmp_path: Path) -> None:
    Repository.create(tmp_path, camera="simcam").close()
    (tmp_path / "policy.yaml").write_text(MINE)
    sky = np.arange(12, dtype=np.float32).reshape(3, 4)
    Repository(tmp_path).put(sky, "weather", visit=5, band="r")
    again = Repository(tmp_path)
    np.testing.assert_array_equal(again.get("weather", visit=5, band="r"), sky)
    assert (tmp_path / "weather" / "5" / "r.fits").is_file()
    assert again.locate("weather", visit=6, band="r") is None
    assert again.locate("calexp", visit=5, detector=0) is None  # the types that ship are still there


def test_what_ships_has_all_kinds_and_says_what_they_are() -> None:
    policy = Policy.load()
    assert isinstance(policy["calexp"], StoredType)
    assert isinstance(policy["calexp_wcs"], ComponentType)
    assert isinstance(policy["jointcalexp"], CompositeType)
    for name, kind in policy.types.items():
        assert kind.description or isinstance(kind, ComponentType), name


def test_level_follows_from_the_keys_or_is_checked_against_them() -> None:
    files = "a: {template: 'a/{visit}/{detector}.txt', format: text}\nb: {template: 'b/{visit}.txt', format: text}"
    policy = load(files)
    assert [policy[name].level for name in ("a", "b", "skymap")] == ["detector", "visit", "repository"]
    with pytest.raises(BadSettings, match=r"my\.yaml:1: a.*level patch needs the key 'patch'"):
        load("a: {template: 'a/{visit}.txt', format: text, level: patch}")


def test_a_python_type_narrower_than_the_formats_is_checked() -> None:
    load("a: {template: 'a/{visit}.txt', format: text, python: builtins.str}")
    with pytest.raises(BadSettings, match=r"my\.yaml:1: a\.python: format text does not store builtins\.int"):
        load("a: {template: 'a/{visit}.txt', format: text, python: builtins.int}")


TEXT = "note: {template: 'note/{visit}.txt', format: text}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raw: [", r"my\.yaml:\d+: not YAML"),
        ("- a list", r"my\.yaml:1: not a mapping"),
        ("raw: 3", r"my\.yaml:1: raw: an entry is a mapping"),
        ("raw: {template: x}", r"my\.yaml:1: raw: give 'template' and 'format'"),
        ("raw:\n  template: x\n  format: raw\n  colour: 1", r"my\.yaml:4: raw\.colour: no such field"),
        ("raw:\n  template: x\n  format: rew", r"my\.yaml:3: raw\.format.*raw"),
        ("raw:\n  format: text\n  template: ../{visit}", r"my\.yaml:3: raw\.template: the template must stay below"),
        ("raw:\n  format: text\n  template: 'a/{visit'", r"my\.yaml:3"),
        ("x:\n  component: wcs\n  of: calexpp", r"my\.yaml:3: x\.of: no dataset type 'calexpp'; did you mean calexp"),
        ("x:\n  component: wsc\n  of: calexp", r"my\.yaml:2: x\.component: calexp has no component 'wsc'; did"),
        ("x:\n  components:\n    a: nothing", r"my\.yaml:3: x\.components\.a: no dataset type 'nothing'"),
        (TEXT + "x:\n  components: {a: note}\n  assembler: nowhere:f", r"my\.yaml:4: x\.assembler: .*nowhere"),
        (TEXT + "x:\n  components: {a: note}\n  disassembler: math:f", r"my\.yaml:4: x\.disassembler: .*math:f"),
        (TEXT + "x:\n  components: {a: note}\n  class: math:Pi", r"my\.yaml:4: x\.class: .*math:Pi"),
        (TEXT + "x:\n  class: fractions:Fraction\n  components: {numerater: note}", r"my\.yaml:4: x\.comp.*numerator"),
        (TEXT + "x:\n  assembler: apstream.repo.assembly:exposure\n  components: {calexp: calexp, wsc: note}", "wcs"),
        (TEXT + "x:\n  components: {a: note}\n  stage: later", r"my\.yaml:4: x\.stage: no stage 'later'; there are"),
        (TEXT + "x:\n  components:\n    a: {type: {latr: note}}", r"my\.yaml:\d: x\.components\.a: no stage 'latr'"),
        (TEXT + "x:\n  stage: isr\n  components:\n    a: {type: {jointcal: note}}", "no version up to stage isr"),
        ("x:\n  components: {a: y}\ny:\n  components: {b: x}", "goes round in a circle: x -> y -> x"),
        ("x:\n  disassembler: apstream.repo.assembly:attributes\n  components: {wcs: calexp_wcs}", "set input_only"),
        ("x:\n  aggregate: calexpp", r"my\.yaml:2: x\.aggregate: no dataset type 'calexpp'"),
        ("x:\n  aggregate: src\n  template: 'x/{bnd}'\n  format: table", r"x\.template: src has no key 'bnd'"),
        ("x:\n  aggregate: src\n  combine: math:nothing", r"my\.yaml:3: x\.combine"),
        ("x:\n  aggregate: src\n  template: a", "template and format belong together"),
        ("x: {template: 'x/{detector}', format: text, validity: true}", "needs {since}"),
        ("stages: [a, a]", r"my\.yaml:1: stages: stages is a list of different names"),
    ],
)
def test_a_bad_policy_is_refused_by_line_and_field(text: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        load(text)


def test_an_unreadable_policy_file_of_a_repository_is_named(tmp_path: Path) -> None:
    Repository.create(tmp_path, camera="simcam").close()
    (tmp_path / "policy.yaml").write_text("raw:\n  templat: x\n  format: raw\n")
    with pytest.raises(BadSettings, match=r"policy\.yaml:2: raw\.templat: no such field; did you mean template"):
        Repository(tmp_path)


def test_an_unknown_type_names_its_neighbours() -> None:
    with pytest.raises(DatasetNotFound, match="calexp"):
        Policy.load()["calexps"]
