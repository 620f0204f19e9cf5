from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apstream.cameras.sections import format_section, parse_section
from apstream.model.geometry import Box

EDGE = st.integers(0, 20_000)


@given(EDGE, EDGE, st.integers(1, 5000), st.integers(1, 5000))
def test_a_box_survives_its_section(y0: int, x0: int, ny: int, nx: int) -> None:
    box = Box(y0, x0, y0 + ny, x0 + nx)
    section = parse_section(format_section(box))
    assert (section.box, section.flip_x, section.flip_y) == (box, False, False)


def test_fits_counts_from_one_and_includes_the_end() -> None:
    assert parse_section("[ 17: 528,   1: 520]").box == Box(0, 16, 520, 528)


def test_a_backward_range_means_mirrored() -> None:
    section = parse_section("[2048:1025,4096:1]")
    assert section.box == Box(0, 1024, 4096, 2048)
    assert (section.flip_x, section.flip_y) == (True, True)


@pytest.mark.parametrize("text", ["", "1:2,3:4", "[1:2]", "[0:5,1:5]", "[a:b,c:d]", "[1:2,3:4,5:6]"])
def test_what_is_no_section_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="section"):
        parse_section(text)
