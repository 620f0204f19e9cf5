"""The one settings tree, its sources and its overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from apstream.errors import BadSettings

__all__ = ["load_settings", "merge", "parse_overrides"]

M = TypeVar("M", bound=BaseModel)


def load_settings(
    model: type[M], *, files: Sequence[Path] = (), overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> M:
    """Build a settings model: its defaults, then `base`, then each file, then ``key.sub=value`` overrides.

    Raises
    ------
    BadSettings
        If a file cannot be read or a key or value is refused; names the nearest known key.
    """
    data: dict[str, Any] = dict(base or {})
    for path in files:
        data = merge(data, _read(path))
    data = merge(data, parse_overrides(overrides))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(error, model) from error


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; values of the second win, and a branch of another `kind` replaces the first."""
    merged = dict(first)
    for key, value in second.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and _same_kind(before, value):
            merged[key] = merge(before, value)
        else:
            merged[key] = value
    return merged


def _same_kind(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return "kind" not in first or second.get("kind", first["kind"]) == first["kind"]


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse ``stage.field=value`` words, values as YAML, into a nested mapping."""
    tree: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise BadSettings(f"{text!r} is not key=value", where="-c", remedy="write e.g. -c subtract.whiten=null")
        try:
            leaf: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadSettings(
                f"cannot read the value {value!r}", where=f"-c {name}", remedy="write it as in YAML"
            ) from error
        for key in reversed(name.strip().split(".")):
            leaf = {key: leaf}
        tree = merge(tree, leaf)
    return tree


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise BadSettings(f"cannot read the settings: {reason}", where=str(path), remedy="give a YAML file") from error
    if not isinstance(data, Mapping):
        raise BadSettings("settings are not a mapping", where=str(path), remedy="write key: value lines")
    return data


def _explain(error: ValidationError, model: type[BaseModel]) -> BadSettings:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    remedy = "see the settings with --show config"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, _names(model), n=3, cutoff=0.5)
        remedy = f"did you mean {', '.join(near)}?" if near else remedy
        return BadSettings(f"no setting {name!r}", where="settings", remedy=remedy)
    return BadSettings(f"{name}: {first['msg']}", where="settings", remedy=remedy)


def _names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, field in model.model_fields.items():
        names.append(prefix + key)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _names(kind, f"{prefix}{key}.")
    return names
