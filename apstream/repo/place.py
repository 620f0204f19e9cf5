"""One repository of a chain: its store, its registry, its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from apstream.errors import ApstreamError, BadFile, BadSettings, FileMissing
from apstream.repo.checksums import checksum_of
from apstream.repo.entries import Entry
from apstream.repo.policy import PolicyFile
from apstream.repo.registry import Registry
from apstream.repo.store import Store, open_store
from apstream.repo.yaml_lines import read_mapping

__all__ = ["CONFIG", "Config", "Place", "open_places", "read_config"]

CONFIG = "repository.yaml"
_REGISTRY = "registry.sqlite3"


@dataclass(frozen=True, slots=True)
class Config:
    """What ``repository.yaml`` says."""

    camera: str
    id: str
    parents: tuple[str, ...]
    registry: str


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One repository of a chain."""

    store: Store
    registry: Registry
    config: Config
    policy: PolicyFile | None

    def rooted(self, entry: Entry) -> Entry:
        """Return an entry that says which repository it is in."""
        return replace(entry, root=self.store.url)

    def get(self, dataset_type: str, identity: dict[str, Any]) -> Entry | None:
        """Return the entry with an identity."""
        found = self.registry.get(dataset_type, identity)
        return None if found is None else self.rooted(found)

    def open(self, entry: Entry) -> BinaryIO:
        """Open an entry's file for partial reads; a file of another size is refused."""
        self._check_size(entry, self.store.size(entry.path))
        return self.store.open(entry.path)

    @contextmanager
    def fetch(self, entry: Entry) -> Iterator[Path]:
        """Yield the whole file of an entry, verified.

        Raises
        ------
        BadFile
            If size or checksum differ from the registry's.
        """
        with self.store.fetch(entry.path) as path:
            if not path.is_dir():
                self._check_size(entry, path.stat().st_size)
                if entry.checksum and checksum_of(path) != entry.checksum:
                    raise BadFile("the content has changed", where=str(path), remedy="make or ingest it again")
            yield path

    def diagnose(self, entry: Entry, reason: str) -> str:
        """Add to a reason what the checksums say of the file."""
        if not entry.checksum:
            return reason
        try:
            with self.store.fetch(entry.path) as path:
                actual = checksum_of(path)
        except ApstreamError as error:
            return f"{reason}; {error.message}"
        if actual == entry.checksum:
            return f"{reason}; its sha256 is the one that was stored, {actual[:16]}..."
        return f"{reason}: sha256 is {actual[:16]}..., stored was {entry.checksum[:16]}..."

    def _check_size(self, entry: Entry, size: int) -> None:
        if entry.size >= 0 and size != entry.size:
            raise BadFile(
                f"{size} bytes, stored were {entry.size}", where=entry.path, remedy="make or ingest it again"
            )


def open_places(root: Path | str) -> list[Place]:
    """Open a repository and its parents, nearest first, each once.

    Raises
    ------
    FileMissing
        If one of them is no repository.
    BadSettings
        If they go round in a circle.
    """
    places: dict[str, Place] = {}
    _open_into(places, open_store(root), ())
    return list(places.values())


def read_config(store: Store) -> Config:
    """Read ``repository.yaml``."""
    text = store.read_text(CONFIG)
    if text is None:
        raise FileMissing(
            "not a repository", where=store.url, remedy=f"apstream repo create {store.url} --camera NAME"
        )
    where = store.location(CONFIG)
    words = read_mapping(text, where, remedy="write camera: NAME, and parents: [...] where there are any")
    unknown = sorted(words.keys() - {"camera", "id", "parents", "registry"})
    parents = words.get("parents", [])
    if unknown or not isinstance(parents, list):
        what = f"unknown {', '.join(unknown)}" if unknown else "parents is a list"
        raise BadSettings(what, where=where, remedy="use camera, id, parents and registry")
    return Config(
        camera=str(words.get("camera", "")),
        id=str(words.get("id", "")),
        parents=tuple(_absolute(store, str(parent)) for parent in parents),
        registry=str(words.get("registry", "")),
    )


def _open_into(places: dict[str, Place], store: Store, above: tuple[str, ...]) -> None:
    if store.url in above:
        chain = " -> ".join((*above, store.url))
        raise BadSettings(f"parents go round in a circle: {chain}", where=above[0], remedy="mend repository.yaml")
    config = read_config(store)
    if store.url not in places:
        places[store.url] = Place(store, _registry(store, config), config, _policy(store))
    for parent in config.parents:
        _open_into(places, open_store(parent), (*above, store.url))


def _registry(store: Store, config: Config) -> Registry:
    if config.registry:
        return Registry(config.registry, config.id)
    folder = Path(store.location(_REGISTRY))
    if "://" in store.location(_REGISTRY):
        raise BadSettings(
            "a repository in an object store needs a registry in PostgreSQL or in a local file",
            where=store.location(CONFIG),
            remedy="create it with --registry postgresql://... or --registry sqlite:////path/registry.sqlite3",
        )
    return Registry(f"sqlite:///{folder}", config.id)


def _policy(store: Store) -> PolicyFile | None:
    text = store.read_text("policy.yaml")
    return None if text is None else PolicyFile(text, store.location("policy.yaml"))


def _absolute(store: Store, parent: str) -> str:
    if "://" in parent or Path(parent).is_absolute():
        return parent
    return str((Path(store.url) / parent).resolve())
