from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import apstream
from apstream.yaml_text import parse_yaml

SHIPPED = sorted(Path(apstream.__file__).parent.rglob("*.yaml"))


def test_what_ships_reads_as_with_pyyaml():
    assert len(SHIPPED) > 10
    for path in SHIPPED:
        assert parse_yaml(path.read_text()) == yaml.safe_load(path.read_text()), path


@pytest.mark.parametrize("text", ["a: b: c", "a:\n  b: [5", "\t- x", "a: !!python/object:os.system x", "x: \x01"])
def test_faults_are_told_in_the_words_and_at_the_line_of_pyyaml(text):
    with pytest.raises(yaml.YAMLError) as plain:
        yaml.safe_load(text)
    with pytest.raises(yaml.YAMLError) as told:
        parse_yaml(text)
    assert str(told.value) == str(plain.value)
