"""`docs/capabilities.md` answers every row, one line each, and cites only tests and files that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "capabilities.md"
LAST_ROW = {"B": 30, "G": 26, "K": 24, "C": 34, "F": 33, "S": 8, "D": 6, "P": 6, "A": 4, "O": 4}
NO_SUCH_ROW = {"C32", "C33"}
TWO_DIGITS = "BGKCF"
OPEN = "not yet"


def wanted_rows() -> list[str]:
    every = [
        f"{letter}{number:02d}" if letter in TWO_DIGITS else f"{letter}{number}"
        for letter, last in LAST_ROW.items()
        for number in range(1, last + 1)
    ]
    return [row for row in every if row not in NO_SUCH_ROW]


def rows(text: str) -> list[tuple[str, str]]:
    """Row ids with their lines, in order; a heading or a separator is not a row."""
    found = []
    for line in text.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") and line.count("|") > 2 else ""
        if first and first != "row" and not set(first) <= set("-: "):
            found.append((first, line))
    return found


def cited_tests(line: str) -> list[tuple[str, list[str]]]:
    found = re.findall(r"(tests/[\w/.-]+\.py)::([\w:]+)", line)
    return [(path, names.split("::")) for path, names in found]


def test_exists(path: str, names: list[str], root: Path) -> bool:
    file = root / path
    if not file.exists():
        return False
    scope: ast.AST = ast.parse(file.read_text())
    for name in names:
        inside = [node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == name]
        if not inside:
            return False
        scope = inside[0]
    return True


test_exists.__test__ = False  # type: ignore[attr-defined]


def lines() -> list[tuple[str, str]]:
    return rows(TABLE.read_text())


def test_one_line_per_row() -> None:
    assert [row for row, _ in lines()] == wanted_rows()


def test_no_two_rows_say_the_same() -> None:
    said = [line.split("|")[2].strip() for _, line in lines()]
    assert all(said)
    assert not {text for text in said if said.count(text) > 1}


def test_cited_tests_exist() -> None:
    cited = [(row, path, names) for row, line in lines() for path, names in cited_tests(line)]
    wrong = [(row, path, names) for row, path, names in cited if not test_exists(path, names, ROOT)]
    assert not wrong


def test_every_row_cites_a_test_or_is_open() -> None:
    assert not [row for row, line in lines() if bool(cited_tests(line)) == (OPEN in line.lower())]


def test_cited_files_exist() -> None:
    file = re.compile(r"`((?:apstream|services|helm)/[\w/.-]+)")
    cited = [(row, name) for row, line in lines() for name in file.findall(line)]
    assert not [f"{row}: {name}" for row, name in cited if not (ROOT / name).exists()]


def test_table_lines_are_read_right() -> None:
    text = "| row | gives |\n|---|---|\n| B01 | a | `tests/a.py::test_b` |\n| B02-B03 | both | c |\n"
    assert [row for row, _ in rows(text)] == ["B01", "B02-B03"]
    assert cited_tests(text.splitlines()[2]) == [("tests/a.py", ["test_b"])]


@pytest.mark.parametrize(
    ("path", "names", "there"),
    [
        ("a.py", ["test_one"], True),
        ("a.py", ["TestIt", "test_two"], True),
        ("a.py", ["test_two"], False),
        ("b.py", ["test_one"], False),
    ],
)
def test_tests_are_looked_up(tmp_path: Path, path: str, names: list[str], there: bool) -> None:
    (tmp_path / "a.py").write_text("def test_one(): ...\nclass TestIt:\n    async def test_two(self): ...\n")
    assert test_exists(path, names, tmp_path) is there
