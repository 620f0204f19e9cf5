"""Cross-checks of a whole policy: every name that an entry uses must mean something."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from apstream.errors import BadSettings
from apstream.imports import load_object
from apstream.repo.assembly import check_names
from apstream.repo.dataset_types import AggregateType, AnyType, ComponentType, CompositeType, StoredType

if TYPE_CHECKING:
    from apstream.repo.policy import Policy

__all__ = ["check_policy"]

#: Makes an error out of type name, field and message.
Complain = Callable[[str, str, str], BadSettings]


def check_policy(policy: Policy, complain: Complain) -> None:
    """Check all types of a policy against each other.

    Raises
    ------
    BadSettings
        Made by `complain`: unknown types, formats, stages, components, wrong import paths, cycles.
    """
    for kind in policy.types.values():
        match kind:
            case StoredType():
                _check_stored(kind, complain)
            case ComponentType():
                _known(policy, kind, "of", kind.of, complain)
            case CompositeType():
                _check_composite(policy, kind, complain)
            case AggregateType():
                _check_aggregate(policy, kind, complain)
    for name in policy.types:
        _refuse_cycles(policy, name, (), complain)
    for kind in policy.types.values():
        if isinstance(kind, ComponentType):
            _check_component(policy, kind, complain)
    _refuse_unused_stages(policy, complain)


def _check_stored(kind: StoredType, complain: Complain) -> None:
    storage = _loading(kind, "format", complain, lambda: kind.storage)
    if kind.python is not None:
        wanted = kind.python
        narrower = _loading(kind, "python", complain, lambda: load_object(wanted, kind.name))
        if not (isinstance(narrower, type) and issubclass(narrower, storage.type)):
            raise complain(kind.name, "python", f"format {kind.format} does not store {kind.python}")


def _check_aggregate(policy: Policy, kind: AggregateType, complain: Complain) -> None:
    _known(policy, kind, "aggregate", kind.aggregate, complain)
    if isinstance(policy.types[kind.aggregate], AggregateType):
        raise complain(kind.name, "aggregate", f"{kind.aggregate} is an aggregate itself")
    _loading(kind, "combine", complain, lambda: load_object(kind.combine, kind.name))
    if kind.stored is not None:
        _check_stored(kind.stored, complain)
        known = policy.keys(kind.aggregate)
        for key in kind.keys:
            if key not in known:
                raise complain(kind.name, "template", f"{kind.aggregate} has no key {key!r}; {_nearest(key, known)}")


def _check_composite(policy: Policy, kind: CompositeType, complain: Complain) -> None:
    for name, spec in kind.components.items():
        field = f"components.{name}"
        for wanted in spec.types:
            _known(policy, kind, field, wanted, complain)
            fileless = isinstance(policy.types[wanted], ComponentType | AggregateType)
            if fileless and kind.disassembler and not spec.input_only:
                message = f"{wanted} cannot be written on its own: set input_only, or give it a type with a file"
                raise complain(kind.name, field, message)
        for stage in spec.type if isinstance(spec.type, dict) else ():
            _known_stage(policy, kind, field, stage, complain)
    if kind.stage is not None:
        _known_stage(policy, kind, "stage", kind.stage, complain)
    cls = None
    if kind.cls is not None:
        path = kind.cls
        cls = _loading(kind, "class", complain, lambda: load_object(path, kind.name))
    assembler = _loading(kind, "assembler", complain, lambda: load_object(kind.assembler, kind.name))
    if kind.disassembler is not None:
        other = kind.disassembler
        _loading(kind, "disassembler", complain, lambda: load_object(other, kind.name))
    if message := check_names(assembler, cls, tuple(kind.components)):
        raise complain(kind.name, "components", message)


def _check_component(policy: Policy, kind: ComponentType, complain: Complain) -> None:
    known = policy.components(policy.types[kind.of])
    if kind.component not in known:
        message = f"{kind.of} has no component {kind.component!r}; {_nearest(kind.component, known)}"
        raise complain(kind.name, "component", message)


def _refuse_cycles(policy: Policy, name: str, above: tuple[str, ...], complain: Complain) -> None:
    if name in above:
        raise complain(above[0], "components", f"goes round in a circle: {' -> '.join((*above, name))}")
    for below in _uses(policy.types[name]):
        _refuse_cycles(policy, below, (*above, name), complain)


def _uses(kind: AnyType) -> Iterable[str]:
    match kind:
        case ComponentType():
            return (kind.of,)
        case CompositeType():
            return [name for spec in kind.components.values() for name in spec.types]
        case AggregateType():
            return (kind.aggregate,)
        case StoredType():
            return ()


def _refuse_unused_stages(policy: Policy, complain: Complain) -> None:
    """A composite's stage before every version of its components would never find one."""
    for kind in policy.types.values():
        if not (isinstance(kind, CompositeType) and kind.stage):
            continue
        limit = policy.stage_order[kind.stage]
        for name, spec in kind.components.items():
            if isinstance(spec.type, dict) and all(policy.stage_order[stage] > limit for stage in spec.type):
                raise complain(kind.name, f"components.{name}", f"no version up to stage {kind.stage}")


def _known(policy: Policy, kind: AnyType, field: str, wanted: str, complain: Complain) -> None:
    if wanted not in policy.types:
        raise complain(kind.name, field, f"no dataset type {wanted!r}; {_nearest(wanted, policy.types)}")


def _known_stage(policy: Policy, kind: AnyType, field: str, stage: str, complain: Complain) -> None:
    if stage not in policy.stages:
        raise complain(kind.name, field, f"no stage {stage!r}; there are {', '.join(policy.stages) or 'none'}")


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names) or 'none'}"


def _loading(kind: AnyType, field: str, complain: Complain, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except BadSettings as error:
        raise complain(kind.name, field, "; ".join(filter(None, (error.message, error.remedy)))) from error
