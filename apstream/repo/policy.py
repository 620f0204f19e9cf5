"""Dataset types: stored files, components read out of them, composites of other types, aggregates.

A policy file maps names to entries; the fields of an entry say which of the four it is. The files are
cross-checked when they are loaded, so that a misspelt name is an error at once and not years later.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from apstream.errors import BadSettings, DatasetNotFound
from apstream.repo.dataset_types import (
    AggregateType,
    AnyType,
    ComponentType,
    CompositeType,
    StoredType,
    data_id_text,
)
from apstream.repo.policy_checks import check_policy
from apstream.repo.yaml_lines import field_line, read_mapping

__all__ = ["Policy", "PolicyFile", "data_id_text"]

_STAGES = "stages"
_REMEDY = "mend the policy file; docs/repository.md lists the fields"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """The text of one policy file and where it came from."""

    text: str
    where: str

    @classmethod
    def shipped(cls) -> PolicyFile:
        """Return the policy that comes with the package."""
        return cls(files("apstream.repo").joinpath("policy/default.yaml").read_text(), "policy/default.yaml")

    @classmethod
    def read(cls, path: Path) -> PolicyFile:
        """Read a file; BadSettings if that fails."""
        try:
            return cls(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"the policy cannot be read: {error}", where=str(path), remedy=_REMEDY) from error


class Policy:
    """The dataset types of a repository by name, and the order of the processing stages.

    Raises
    ------
    BadSettings
        If an entry is wrong, or names a type, component, class or function that does not exist.
    """

    def __init__(self, types: Mapping[str, AnyType], stages: tuple[str, ...] = ()) -> None:
        self.types = dict(types)
        self.stages = stages

    @classmethod
    def load(cls, sources: Iterable[PolicyFile] = ()) -> Policy:
        """Load the policy that ships and other files over it, each later one replacing entries of the earlier."""
        types: dict[str, AnyType] = {}
        stages: tuple[str, ...] = ()
        places: dict[str, PolicyFile] = {}
        for source in (PolicyFile.shipped(), *sources):
            entries = read_mapping(source.text, source.where, remedy=_REMEDY)
            stages = _stages(entries.pop(_STAGES, stages), source)
            read = {name: _read_type(name, entry, source) for name, entry in entries.items()}
            types |= read
            places |= dict.fromkeys(read, source)
        policy = cls(types, stages)
        check_policy(policy, lambda name, field, message: _error(places[name], (name, *field.split(".")), message))
        return policy

    def __getitem__(self, name: str) -> AnyType:
        """Return a type; ``TYPE.COMPONENT`` is the component of a type that has one.

        Raises
        ------
        DatasetNotFound
            If there is no such type or component; names the nearest, or all components.
        """
        if name in self.types:
            return self.types[name]
        parent, dot, component = name.rpartition(".")
        if dot and parent in self.types:
            return self._component(parent, component)
        near = difflib.get_close_matches(name, self.types, n=3) or sorted(self.types)
        raise DatasetNotFound(f"no dataset type {name!r}", remedy=f"did you mean {', '.join(near)}?")

    def _component(self, parent: str, component: str) -> AnyType:
        kind = self.types[parent]
        known = self.components(kind)
        if component in known:
            return ComponentType(name=f"{parent}.{component}", component=component, of=parent)
        raise DatasetNotFound(
            f"{parent} has no component {component!r}",
            remedy=f"there are {', '.join(known)}" if known else f"{parent} has no components",
        )

    def components(self, kind: AnyType) -> tuple[str, ...]:
        """Return the names of the components that can be read out of a type."""
        match kind:
            case StoredType():
                return (*sorted(kind.storage.components), "inputs")
            case CompositeType():
                return (*kind.components, "inputs")
            case _:
                return ()

    def keys(self, name: str) -> tuple[str, ...]:
        """Return the data-id keys of a type, those of a composite's components joined."""
        match self[name]:
            case StoredType() as kind:
                return kind.keys
            case ComponentType() as kind:
                return self.keys(kind.of)
            case CompositeType() as kind:
                joined = (key for spec in kind.components.values() for kid in spec.types for key in self.keys(kid))
                return tuple(dict.fromkeys(joined))
            case AggregateType() as kind:
                return kind.keys

    @cached_property
    def stage_order(self) -> dict[str, int]:
        """Place of each stage in the processing."""
        return {stage: place for place, stage in enumerate(self.stages)}


def _stages(value: Any, source: PolicyFile) -> tuple[str, ...]:
    listed = isinstance(value, (list, tuple)) and all(isinstance(stage, str) for stage in value)
    if listed and len(set(value)) == len(value):
        return tuple(value)
    raise _error(source, (_STAGES,), "stages is a list of different names in the order of processing")


def _read_type(name: str, entry: Any, source: PolicyFile) -> AnyType:
    if not isinstance(entry, Mapping):
        raise _error(source, (name,), "an entry is a mapping of fields")
    model = _model_of(name, entry, source)
    try:
        return model(name=name, **entry)
    except (ValidationError, TypeError) as error:
        raise _explain(error, name, model, source) from error


def _model_of(name: str, entry: Mapping[str, Any], source: PolicyFile) -> Callable[..., AnyType]:
    marks: dict[str, type[AnyType]] = {
        "of": ComponentType, "components": CompositeType, "aggregate": AggregateType, "format": StoredType
    }  # fmt: skip
    for mark, model in marks.items():
        if mark in entry:
            return model
    raise _error(
        source,
        (name,),
        "give 'template' and 'format' (a file), 'component' and 'of' (a part of one), 'components' (a composite) "
        "or 'aggregate'",
    )


def _explain(error: ValidationError | TypeError, name: str, model: Any, source: PolicyFile) -> BadSettings:
    if isinstance(error, TypeError):
        return _error(source, (name,), f"field names are words: {error}")
    faults = error.errors()
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    path, message = (name, *first["loc"]), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = sorted(_field_names(model))
        near = difflib.get_close_matches(str(path[-1]), known, n=3) or known
        message = f"no such field; did you mean {', '.join(near)}?"
    return _error(source, path, message)


def _field_names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items() if name != "name"}


def _error(source: PolicyFile, path: tuple[Any, ...], message: str) -> BadSettings:
    line = field_line(source.text, path)
    field = ".".join(str(part) for part in path)
    return BadSettings(f"{field}: {message}", where=f"{source.where}:{line}", remedy=_REMEDY)
