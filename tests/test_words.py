"""Messages count and list in plain words."""

import pytest

from apstream.words import counted, listed


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("0 frames", 0, ("frame",)),
        ("1 frame", 1, ("frame",)),
        ("2 frames", 2, ("frame",)),
        ("1 galaxy", 1, ("galaxy", "galaxies")),
        ("7 galaxies", 7, ("galaxy", "galaxies")),
    ],
)
def test_one_is_singular(text: str, number: int, words: tuple[str, ...]) -> None:
    assert counted(number, *words) == text


@pytest.mark.parametrize(
    ("text", "number"), [("", 0), ("0", 1), ("0, 1, 2", 3), ("0, 1, 2, and 1 more", 4), ("0, 1, 2, and 97 more", 100)]
)
def test_a_long_list_ends_with_how_many_more_there_are(text: str, number: int) -> None:
    assert listed(range(number)) == text
