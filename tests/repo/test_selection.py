from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.errors import BadSettings
from apstream.repo.selection import Selection, Span, as_number


def selects(words: str, **data_id: object) -> bool:
    return Selection.parse([words]).matches(data_id)


def test_alternatives_and_ranges_select_what_they_name():
    selection = Selection.parse(["visit=123456^123457 ccdnum=3^6..12", "filter=g"])
    assert selection.matches({"visit": 123457, "detector": 9, "band": "g", "day": 20260101})
    assert not selection.matches({"visit": 123458, "detector": 9, "band": "g"})
    assert not selection.matches({"visit": 123456, "detector": 4, "band": "g"})
    assert not selection.matches({"visit": 123456, "detector": 3, "band": "r"})
    assert str(selection) == "visit=123456^123457 detector=3^6..12 band=g"


def test_an_empty_selection_allows_everything():
    assert not Selection.parse([])
    assert Selection.parse([]).matches({"visit": 1})


def test_a_key_the_data_id_lacks_does_not_match():
    assert not selects("detector=1", visit=1)
    assert not selects("detector=None", detector=None)


def test_a_key_named_twice_adds_alternatives():
    assert Selection.parse(["visit=1 visit=3..4", "visit=1"]).choices == {"visit": ("1", Span(3, 4))}


def test_a_long_range_is_not_expanded():
    selection = Selection.parse(["visit=0..999999999999:7"])
    assert selection.choices["visit"] == (Span(0, 999999999999, 7),)
    assert selection.matches({"visit": 7 * 10**9})
    assert not selection.matches({"visit": 7 * 10**9 + 1})


def test_a_camera_may_bring_its_own_words():
    selection = Selection.parse(["frame=5 filter=g"], {"frame": "visit"})
    assert selection.choices == {"visit": ("5",), "filter": ("g",)}


def test_numbers_compare_as_numbers_and_names_as_text():
    assert selects("visit=007", visit=7)
    assert selects("visit=7", visit="007")
    assert selects("seq=007", seq=7)
    assert not selects("seq=7", seq="007")
    assert not selects("name=7", name="007")
    assert selects("band=007", band="007")
    assert selects("patch=3,4", patch="3,4")
    assert not selects("patch=3", patch="3,4")


def test_a_night_is_a_date_or_a_number():
    for night in (20260131, "20260131", "2026-01-31"):
        assert selects("day=2026-01-30..2026-02-01", day=night)
        assert selects("day=20260131^5", day=night)
        assert not selects("day=2026-02-01", day=night)


@given(st.integers(-500, 500), st.integers(0, 200), st.integers(1, 20))
def test_a_range_holds_exactly_its_members(first: int, length: int, step: int):
    selection = Selection.parse([f"visit={first}..{first + length}:{step}"])
    for visit in range(first - 2, first + length + 3):
        inside = first <= visit <= first + length and (visit - first) % step == 0
        assert selection.matches({"visit": visit}) == inside
        assert selection.matches({"visit": str(visit)}) == inside


def test_numbers_have_64_bits():
    assert as_number("visit", 2**63 - 1) == 2**63 - 1
    assert as_number("visit", 2**63) is None
    assert as_number("visit", str(-(2**63) - 1)) is None
    assert as_number("visit", True) is None
    assert selects(f"visit={2**64}", visit=2**64)


@pytest.mark.parametrize(
    "words",
    [
        "visit",
        "visit=",
        "=3",
        "visit=9..3",
        "visit=1..5:0",
        "visit=1..",
        "visit=1^",
        "visit=^1",
        "visit=a..b",
        "visit=1..99999999999999999999",
        "day=2026-01-01..2026-02-01:7",
        "name=\udcff",
    ],
)
def test_what_is_not_a_selection_is_refused(words: str):
    with pytest.raises(BadSettings) as refused:
        Selection.parse([words])
    assert "--id" in str(refused.value)
    assert refused.value.remedy
