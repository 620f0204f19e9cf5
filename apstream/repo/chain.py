"""Look-ups through a chain of repositories: which dataset a type and a data id name, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from apstream.cameras import load_camera
from apstream.errors import BadSettings, DatasetNotFound
from apstream.model.products import SkyCircle
from apstream.repo import validity
from apstream.repo.data_ids import NOT_KEPT, check_keys, normal_data_id
from apstream.repo.dataset_types import (
    AggregateType,
    AnyType,
    ComponentType,
    CompositeType,
    StoredType,
    data_id_text,
)
from apstream.repo.entries import Entry, order_of
from apstream.repo.place import CONFIG, Place, open_places
from apstream.repo.policy import Policy
from apstream.repo.registry import nearest_first
from apstream.repo.selection import Selection

__all__ = ["Chain"]


class Chain:
    """A repository with its parents, nearest first, and the policy that they share.

    Parameters
    ----------
    places
        The repositories.
    """

    def __init__(self, places: list[Place]) -> None:
        self.places = places
        self.own = places[0]
        self.root = self.own.store.url
        self.camera = next((place.config.camera for place in places if place.config.camera), "")
        if not self.camera:
            raise BadSettings("no camera named", where=self.own.store.location(CONFIG), remedy="add 'camera: NAME'")
        self.policy = Policy.load([place.policy for place in reversed(places) if place.policy])

    @classmethod
    def open(cls, root: Any) -> Chain:
        """Open a repository and its parents."""
        return cls(open_places(root))

    @cached_property
    def aliases(self) -> dict[str, str]:
        """The camera's own words for our keys."""
        return dict(load_camera(self.camera).keys)

    def data_id(self, dataset_type: str, words: Mapping[str, Any]) -> dict[str, Any]:
        """Return a data id in our words; DatasetNotFound for keys that the type cannot have."""
        normal = normal_data_id(words, self.aliases)
        check_keys(normal, self.policy.keys(dataset_type), dataset_type)
        return normal

    def place_of(self, entry: Entry) -> Place:
        """Return the repository that an entry is in."""
        return next(place for place in self.places if place.store.url == entry.root)

    def find(self, dataset_type: str, selection: Selection | None, known: Mapping[str, Any]) -> list[Entry]:
        """Return the entries that agree with a selection and known keys; a child's hide its parents'."""
        kind = self.base(self.policy[dataset_type])
        given = {key: value for key, value in known.items() if key not in NOT_KEPT}
        found = self._merged(lambda place: place.registry.find(kind.name, selection, **given))
        return found if len(self.places) == 1 else sorted(found, key=order_of)

    def overlapping(self, dataset_type: str, region: SkyCircle, known: Mapping[str, Any]) -> list[Entry]:
        """Return the entries that meet a circle on the sky, nearest first; a child's hide its parents'."""
        kind = self.base(self.policy[dataset_type])
        found = self._merged(lambda place: place.registry.overlapping(kind.name, region, **known))
        return found if len(self.places) == 1 else nearest_first(found, region)

    def entry(self, kind: StoredType, data_id: Mapping[str, Any]) -> Entry | None:
        """Return the entry of a stored type from the nearest repository, None if there is none.

        Raises
        ------
        DatasetNotFound
            If the data id fits several, or contradicts what is known of the dataset.
        BadValidity
            If calibrations leave a gap or overlap.
        """
        if kind.validity and "since" not in data_id:
            found = validity.find_valid(self, kind, data_id)
        elif all(key in data_id for key in kind.keys):
            identity = {key: data_id[key] for key in kind.keys}
            entries = (place.get(kind.name, identity) for place in self.places)
            found = next((entry for entry in entries if entry is not None), None)
        else:
            found = self._only(kind, data_id)
        if found is not None:
            self._refuse_contradiction(found, data_id)
        return found

    def required(self, kind: StoredType, data_id: Mapping[str, Any]) -> Entry:
        """Return the entry of a stored type; DatasetNotFound names what to ingest."""
        entry = self.entry(kind, data_id)
        if entry is None:
            raise self.missing(kind.name, data_id)
        return entry

    def missing(self, dataset_type: str, data_id: Mapping[str, Any]) -> DatasetNotFound:
        """Return the error that says that there is no such dataset."""
        return DatasetNotFound(
            f"no location for {dataset_type} with {data_id_text(data_id)}",
            where=self.root,
            remedy=f"ingest or make {dataset_type}",
        )

    def stored(self, kind: AnyType) -> StoredType:
        """Return the type of the file that a dataset is or is part of; DatasetNotFound if it has none."""
        match kind:
            case StoredType():
                return kind
            case ComponentType():
                return self.stored(self.policy[kind.of])
            case AggregateType() if kind.stored is not None:
                return kind.stored
            case _:
                raise DatasetNotFound(f"{kind.name} has no file of its own", remedy="name a component of it")

    def base(self, kind: AnyType) -> StoredType:
        """Return the stored type whose entries stand for those of any type."""
        match kind:
            case StoredType():
                return kind
            case ComponentType():
                return self.base(self.policy[kind.of])
            case AggregateType():
                return self.base(self.policy[kind.aggregate])
            case CompositeType():
                return self.base(self.policy[next(iter(kind.components.values())).types[0]])

    def _only(self, kind: StoredType, data_id: Mapping[str, Any]) -> Entry | None:
        entries = self.find(kind.name, None, data_id)
        if len(entries) > 1:
            missing = ", ".join(key for key in kind.keys if key not in data_id)
            raise DatasetNotFound(
                f"{kind.name} with {data_id_text(data_id)} fits {len(entries)} datasets",
                where=self.root,
                remedy=f"give {missing} too",
            )
        return entries[0] if entries else None

    def _refuse_contradiction(self, entry: Entry, data_id: Mapping[str, Any]) -> None:
        for key, value in data_id.items():
            if key in entry.extra and entry.extra[key] != value:
                raise DatasetNotFound(
                    f"conflicting data id: {entry.type} {data_id_text(entry.identity)} has "
                    f"{key}={entry.extra[key]}, not {value}",
                    where=self.root,
                    remedy=f"leave {key} out",
                )

    def _merged(self, search: Callable[[Place], list[Entry]]) -> list[Entry]:
        if len(self.places) == 1:
            return [self.own.rooted(entry) for entry in search(self.own)]
        seen: dict[str, Entry] = {}
        for place in self.places:
            for entry in search(place):
                seen.setdefault(repr(sorted(entry.identity.items())), place.rooted(entry))
        return list(seen.values())
