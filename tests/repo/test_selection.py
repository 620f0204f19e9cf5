from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.errors import BadSettings
from apstream.repo.selection import matches, parse_selection


def test_alternatives_and_ranges_select_what_they_name():
    allowed = parse_selection(["visit=123456^123457 detector=3^6..12", "filter=g"])
    assert matches({"visit": 123457, "detector": 9, "band": "g"}, allowed)
    assert not matches({"visit": 123458, "detector": 9, "band": "g"}, allowed)
    assert not matches({"visit": 123456, "detector": 4, "band": "g"}, allowed)
    assert not matches({"visit": 123456, "detector": 3, "band": "r"}, allowed)


def test_an_empty_selection_allows_everything():
    assert matches({"visit": 1}, parse_selection([]))


def test_a_key_the_data_id_lacks_does_not_match():
    assert not matches({"visit": 1}, parse_selection(["detector=1"]))


@given(st.integers(0, 500), st.integers(0, 200), st.integers(1, 20))
def test_a_range_holds_exactly_its_members(first: int, length: int, step: int):
    allowed = parse_selection([f"visit={first}..{first + length}:{step}"])
    for visit in range(first - 2, first + length + 3):
        inside = first <= visit <= first + length and (visit - first) % step == 0
        assert matches({"visit": visit}, allowed) == inside


@pytest.mark.parametrize("words", ["visit", "visit=", "=3", "visit=9..3", "visit=1..5:0"])
def test_what_is_not_a_selection_is_refused(words: str):
    with pytest.raises(BadSettings) as refused:
        parse_selection([words])
    assert "--id" in str(refused.value)
