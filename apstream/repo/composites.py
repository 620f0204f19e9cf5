"""Composites: objects put together from other datasets, taken apart again, and aggregates over many."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from apstream.errors import BadSettings, DatasetNotFound
from apstream.imports import load_object
from apstream.model.geometry import Box
from apstream.repo.dataset_types import (
    AggregateType,
    ComponentSpec,
    ComponentType,
    CompositeType,
    StoredType,
)
from apstream.repo.writing import Pending

if TYPE_CHECKING:
    from apstream.repo.repository import Repository

__all__ = ["aggregate", "assemble", "disassemble", "type_of"]


def assemble(repository: Repository, kind: CompositeType, data_id: Mapping[str, Any], box: Box | None = None) -> Any:
    """Get all components, each by its own type, and let the policy's assembler put them together.

    With a `box`, components that are images are cut to it.

    Raises
    ------
    DatasetNotFound
        If a component that is not optional is missing; names composite and component.
    """
    components = {
        name: _get(repository, kind, name, spec, data_id, box) for name, spec in kind.components.items()
    }
    assembler = load_object(kind.assembler, kind.name)
    cls = None if kind.cls is None else load_object(kind.cls, kind.name)
    return assembler(dict(data_id), components, cls)


def disassemble(
    repository: Repository, temporaries: ExitStack, kind: CompositeType, value: Any, data_id: Mapping[str, Any]
) -> list[Pending]:
    """Take an object apart and prepare those components that are to be written and have changed.

    Raises
    ------
    BadSettings
        If the policy names no disassembler, or the disassembler returns too few or unknown components.
    """
    if kind.disassembler is None:
        raise BadSettings(
            f"{kind.name} is read only: its policy names no disassembler",
            remedy="add 'disassembler: MODULE:NAME', or put its components",
        )
    names = tuple(kind.components)
    parts = load_object(kind.disassembler, kind.name)(value, dict(data_id), names)
    _check_parts(kind, parts)
    pending: list[Pending] = []
    for name, spec in kind.components.items():
        part = parts.get(name)
        if spec.input_only or part is None:
            continue
        target = repository.policy[_written_type(repository, kind, spec)]
        if isinstance(target, CompositeType):
            pending += disassemble(repository, temporaries, target, part, data_id)
        elif isinstance(target, StoredType):
            prepared = repository.prepare(temporaries, target, part, data_id)
            if not _unchanged(repository, prepared):
                pending.append(prepared)
    return pending


def type_of(repository: Repository, kind: CompositeType, component: str, data_id: Mapping[str, Any]) -> str:
    """Return the dataset type that a component has for a data id.

    Of a component with versions by stage it is the latest up to the composite's stage that exists; where none
    exists, the earliest, whose absence is then reported.
    """
    return _read_type(repository, kind, kind.components[component], data_id)


def aggregate(repository: Repository, kind: AggregateType, data_id: Mapping[str, Any]) -> Any:
    """Combine all datasets that agree with a partial data id; a stored aggregate of just this id is returned as it is.

    Raises
    ------
    DatasetNotFound
        If there are none.
    """
    stored = kind.stored
    if stored is not None and all(key in data_id for key in stored.keys):
        entry = repository.entry(kind.name, **data_id)
        if entry is not None and set(data_id) <= set(entry.data_id):
            return repository.get_entry(entry)
    entries = repository.find(kind.aggregate, **data_id)
    if not entries:
        raise repository.chain.missing(kind.aggregate, data_id)
    values = [repository.get(kind.aggregate, **entry.identity) for entry in entries]
    return load_object(kind.combine, kind.name)([dict(entry.identity) for entry in entries], values)


def _get(
    repository: Repository,
    kind: CompositeType,
    name: str,
    spec: ComponentSpec,
    data_id: Mapping[str, Any],
    box: Box | None,
) -> Any:
    wanted = _read_type(repository, kind, spec, data_id)
    known = _restricted(repository, wanted, data_id)
    try:
        return repository.get(wanted, box=box if _has_boxes(repository, wanted) else None, **known)
    except DatasetNotFound as error:
        if spec.optional:
            return None
        raise DatasetNotFound(
            f"{kind.name} lacks its component {name}: {error.message}", where=error.where, remedy=error.remedy
        ) from error


def _read_type(
    repository: Repository, kind: CompositeType, spec: ComponentSpec, data_id: Mapping[str, Any]
) -> str:
    if isinstance(spec.type, str):
        return spec.type
    order = repository.policy.stage_order
    limit = order[kind.stage] if kind.stage else len(order)
    versions = sorted((stage for stage in spec.type if order[stage] <= limit), key=lambda s: order[s], reverse=True)
    for stage in versions:
        if _exists(repository, spec.type[stage], data_id):
            return spec.type[stage]
    return spec.type[versions[-1]]


def _written_type(repository: Repository, kind: CompositeType, spec: ComponentSpec) -> str:
    """The version of the composite's own stage is written, or the latest before it."""
    if isinstance(spec.type, str):
        return spec.type
    order = repository.policy.stage_order
    limit = order[kind.stage] if kind.stage else len(order)
    return spec.type[max((stage for stage in spec.type if order[stage] <= limit), key=lambda s: order[s])]


def _exists(repository: Repository, name: str, data_id: Mapping[str, Any]) -> bool:
    kind = repository.policy[name]
    if isinstance(kind, ComponentType):
        return _exists(repository, kind.of, data_id)
    if isinstance(kind, CompositeType):
        required = [spec for spec in kind.components.values() if not spec.optional]
        return all(_exists(repository, _read_type(repository, kind, spec, data_id), data_id) for spec in required)
    return repository.entry(name, **_restricted(repository, name, data_id)) is not None


def _restricted(repository: Repository, name: str, data_id: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a composite's data id that concerns one component."""
    keys = repository.policy.keys(name)
    return {key: value for key, value in data_id.items() if key in keys or key == "mjd"}


def _has_boxes(repository: Repository, name: str) -> bool:
    kind = repository.policy[name]
    return isinstance(kind, CompositeType) or (isinstance(kind, StoredType) and kind.storage.read_box is not None)


def _check_parts(kind: CompositeType, parts: Mapping[str, Any]) -> None:
    unknown = sorted(parts.keys() - kind.components.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], kind.components, n=3) or sorted(kind.components)
        raise BadSettings(
            f"the disassembler of {kind.name} returns {unknown[0]!r}, which its policy does not name",
            remedy=f"did you mean {', '.join(near)}?",
        )
    missing = [name for name, spec in kind.components.items() if name not in parts and not spec.input_only]
    if missing and kind.missing == "raise":
        raise BadSettings(
            f"the disassembler of {kind.name} leaves out {', '.join(missing)}",
            remedy="return None for what is not to be written, or set 'missing: ignore' in the policy",
        )


def _unchanged(repository: Repository, prepared: Pending) -> bool:
    """Whether the chain holds the same content already, here or in a parent."""
    entry = repository.entry(prepared.entry.type, **prepared.entry.identity)
    return entry is not None and entry.checksum == prepared.entry.checksum
