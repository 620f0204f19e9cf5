"""The tree drawn in `apstream.errors` is the tree of its classes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from apstream import errors
from apstream.errors import ApstreamError, Disposition

Tree = dict[str, tuple[str | None, str | None]]

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ApstreamError)]


def drawn(docstring: str) -> Tree:
    """Map each name in a drawing to its parent and to the disposition written beside it."""
    parents: list[tuple[int, str]] = []
    tree: Tree = {}
    for line in docstring.splitlines():
        found = re.match(r"^([\s│├└─]*)([A-Z]\w+)(?:\s+([A-Z_]{4,})\b)?", line)
        if found is None or ("─" not in found[1] and found[2] != "ApstreamError"):
            continue
        depth = len(found[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        tree[found[2]] = (parents[-1][1] if parents else None, found[3])
        parents.append((depth, found[2]))
    return tree


def test_the_drawing_is_the_tree() -> None:
    names = {name: parent for name, (parent, _) in drawn(errors.__doc__ or "").items()}
    assert names == {
        kind.__name__: None if kind is ApstreamError else kind.__mro__[1].__name__ for kind in CLASSES
    }


def test_the_drawing_names_the_dispositions() -> None:
    for name, (parent, disposition) in drawn(errors.__doc__ or "").items():
        kind = getattr(errors, name)
        if parent == "ApstreamError":
            assert kind.disposition is Disposition[disposition or ""]
        elif parent is not None:
            assert kind.disposition is kind.__mro__[1].disposition, f"{name} leaves its branch"


def test_a_drawing_is_read_right() -> None:
    picture = "ApstreamError\n├── Wrong      SKIP   text\n│   └── Worse           text\n└── Other      STOP\n"
    assert drawn(picture) == {
        "ApstreamError": (None, None),
        "Wrong": ("ApstreamError", "SKIP"),
        "Worse": ("Wrong", None),
        "Other": ("ApstreamError", "STOP"),
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_cross_process_boundaries(kind: type[ApstreamError]) -> None:
    error = kind("too bad", where="night.fits", remedy="look again")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error) == "night.fits: too bad (look again)"
    assert str(kind("too bad").at("x")) == "x: too bad"
