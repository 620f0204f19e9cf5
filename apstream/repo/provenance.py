"""What a dataset was made from, down to the raw files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apstream.errors import ApstreamError, DatasetNotFound
from apstream.repo.dataset_types import CompositeType, data_id_text
from apstream.repo.entries import Entry, Input
from apstream.repo.repository import Repository

__all__ = ["Node", "why"]


@dataclass(frozen=True, slots=True)
class Node:
    """One dataset in the tree of what was made from what.

    `state` is empty if the dataset is still what it was, ``replaced`` if another content stands there now, and
    ``gone`` if there is none. `made_from` is empty for files that came from outside.
    """

    used: Input
    location: str
    state: str
    run: str
    record: Mapping[str, Any] | None
    made_from: tuple[Node, ...]

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield the tree as text, one dataset a line."""
        words = [self.used.type, data_id_text(self.used.data_id), f"sha256 {self.used.checksum[:12] or 'unknown'}"]
        words += [f"run {self.run[:12]}"] if self.run else []
        words += [f"[{self.state}]"] if self.state else []
        yield f"{indent}{'  '.join(words)}  {self.location}".rstrip()
        for node in self.made_from:
            yield from node.lines(indent + "  ")

    def leaves(self) -> Iterator[Node]:
        """Yield the datasets that were made from nothing known: raws, calibrations, catalogues."""
        if not self.made_from:
            yield self
        for node in self.made_from:
            yield from node.leaves()


def why(repository: Repository, dataset_type: str, /, **data_id: Any) -> Node:
    """Return the tree of what a dataset was made from.

    Raises
    ------
    DatasetNotFound
        If there is no such dataset, or it is a composite, whose components have trees of their own.
    """
    if isinstance(repository.policy[dataset_type], CompositeType):
        kind = repository.policy.components(repository.policy[dataset_type])
        raise DatasetNotFound(
            f"{dataset_type} is put together when it is read", remedy=f"ask for a component: {', '.join(kind[:-1])}"
        )
    entry = repository.entry(dataset_type, **data_id)
    if entry is None:
        raise DatasetNotFound(
            f"no location for {dataset_type} with {data_id_text(data_id)}", where=repository.root, remedy="repo ls"
        )
    return _Walk({repository.root: repository}).node(repository.input(entry), ())


class _Walk:
    """Follows inputs from repository to repository, each opened once."""

    def __init__(self, opened: dict[str, Repository | None]) -> None:
        self._opened = opened

    def node(self, used: Input, above: tuple[tuple[str, str, str], ...]) -> Node:
        here = (used.root, used.type, data_id_text(used.data_id))
        if here in above:
            return Node(used, "", "replaced", "", None, ())  # by what was made from it
        found = self._find(used)
        if found is None:
            return Node(used, "", "" if used.root == "" else "gone", "", None, ())
        repository, entry = found
        registry = repository.chain.place_of(entry).registry
        state = "" if entry.checksum == used.checksum else "replaced"
        inputs = () if state else registry.inputs(entry.type, entry.identity)
        below = tuple(self.node(one, (*above, here)) for one in inputs)
        location = repository.location(entry)
        return Node(used, location, state, entry.run, registry.run(entry.run) if entry.run else None, below)

    def _find(self, used: Input) -> tuple[Repository, Entry] | None:
        if not used.root:
            return None
        if used.root not in self._opened:
            self._opened[used.root] = _open(used.root)
        repository = self._opened[used.root]
        if repository is None:
            return None
        try:
            keys = repository.policy.keys(used.type)
            known = {key: value for key, value in used.data_id.items() if key in keys}
            entry = repository.entry(used.type, **known)
        except ApstreamError:
            return None
        return None if entry is None else (repository, entry)


def _open(root: str) -> Repository | None:
    try:
        return Repository(root)
    except ApstreamError:
        return None
