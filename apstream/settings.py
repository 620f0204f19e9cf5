"""The one settings tree: its sources in order of precedence, and errors that name the source.

Defaults < camera < personal file < settings files (``-C``) < environment < overrides (``-c``).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from apstream.errors import BadSettings
from apstream.repo.yaml_lines import field_line, read_mapping
from apstream.yaml_text import parse_yaml

__all__ = [
    "Source",
    "build_settings",
    "camera_source",
    "environment_sources",
    "file_source",
    "load_settings",
    "merge",
    "override_sources",
    "parse_overrides",
    "personal_path",
    "personal_sources",
    "preset_names",
]

M = TypeVar("M", bound=BaseModel)
_PREFIX = "APSTREAM__"
_REMEDY = "apstream run --show config lists settings; those of other commands stand in their pages"
_FILE_REMEDY = "give a YAML file with lines such as detect: {threshold_sigma: 5.5}"


@dataclass(frozen=True, slots=True)
class Source:
    """One source of settings.

    Parameters
    ----------
    values
        A nested mapping.
    where
        What errors call it: a file, a variable, an option.
    text
        The file's text, from which errors take the line; empty for other sources.
    """

    values: Mapping[str, Any]
    where: str
    text: str = ""


def load_settings(
    model: type[M], *, files: Sequence[Path] = (), overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> M:
    """Build a settings model: its defaults, then `base`, then each file, then ``key.sub=value`` overrides.

    Raises
    ------
    BadSettings
        If a file cannot be read or a key or value is refused; names source, line and the nearest known key.
    """
    sources = [Source(base or {}, "settings"), *map(file_source, files), *override_sources(overrides)]
    return build_settings(model, sources)


def build_settings(model: type[M], sources: Sequence[Source]) -> M:
    """Build a settings model from its sources, later ones over earlier ones.

    Raises
    ------
    BadSettings
        If a key or value is refused; names the source that it came from, and the nearest known key.
    """
    data: dict[str, Any] = {}
    for source in sources:
        data = merge(data, source.values)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(dict(error.errors()[0]), model, sources) from error


def camera_source(settings: Mapping[str, Any], camera: str) -> Source:
    """Return the settings that a camera's description holds."""
    return Source(settings, f"camera {camera}, settings")


def file_source(path: Path) -> Source:
    """Read a settings file; ``@NAME`` is one that ships with the package.

    Raises
    ------
    BadSettings
        If it cannot be read or is no mapping; names file and line.
    """
    where = str(path)
    try:
        text = _preset(where[1:]) if where.startswith("@") else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadSettings(f"cannot read the settings: {reason}", where=where, remedy="give a YAML file") from error
    return Source(read_mapping(text, where, remedy=_FILE_REMEDY), where, text)


def preset_names() -> tuple[str, ...]:
    """Return the names of the settings files that ship, without ``@``."""
    items = (resources.files("apstream.pipeline") / "presets").iterdir()
    return tuple(sorted(item.name.removesuffix(".yaml") for item in items if item.name.endswith(".yaml")))


def _preset(name: str) -> str:
    if name not in preset_names():
        known = ", ".join(f"@{known}" for known in preset_names())
        raise BadSettings(f"no settings file @{name} ships with apstream", where="-C", remedy=f"there is {known}")
    return (resources.files("apstream.pipeline") / "presets" / f"{name}.yaml").read_text()


def personal_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's own settings file lies: ``$XDG_CONFIG_HOME/apstream/settings.yaml``."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if os.path.isabs(folder) else Path(environment.get("HOME", "~")).expanduser() / ".config"
    return base / "apstream" / "settings.yaml"


def personal_sources(known: Collection[str], environment: Mapping[str, str] = os.environ) -> list[Source]:
    """Read the user's own file, if there is one; a command takes the branches that it knows.

    Raises
    ------
    BadSettings
        If it cannot be read, or a branch looks like a misspelt one.
    """
    path = personal_path(environment)
    if not path.is_file():
        return []
    source = file_source(path)
    for key in source.values:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if key not in known and near:
            line = field_line(source.text, [key])
            raise BadSettings(f"no setting {key!r}", where=f"{path}:{line}", remedy=f"did you mean {near[0]}?")
    taken = {key: value for key, value in source.values.items() if key in known}
    return [Source(taken, source.where, source.text)]


def environment_sources(environment: Mapping[str, str], branches: Mapping[str, str] | None = None) -> list[Source]:
    """Return the settings in variables such as ``APSTREAM__APDB__URL``, one source each, in order of name.

    Parameters
    ----------
    branches
        Which branches of the service's tree are wanted, and where they stand in the tree asked for, as in
        ``{"pixels.stages": "", "apdb": "apdb"}``; None for all as they are.
    """
    sources = []
    for variable in sorted(name for name in environment if name.startswith(_PREFIX)):
        key = _moved(variable[len(_PREFIX) :].lower().replace("__", "."), branches)
        if key is not None:
            where = f"variable {variable}"
            sources.append(Source(_parse(f"{key}={environment[variable]}", where), where))
    return sources


def _moved(key: str, branches: Mapping[str, str] | None) -> str | None:
    if branches is None:
        return key
    for branch, target in branches.items():
        if key.startswith(f"{branch}."):
            rest = key[len(branch) + 1 :]
            return f"{target}.{rest}" if target else rest
    return None


def override_sources(overrides: Sequence[str]) -> list[Source]:
    """Return the settings of ``key.sub=value`` words, values as YAML, one source each."""
    return [Source(_parse(text, "-c"), f"-c {text.partition('=')[0].strip()}") for text in overrides]


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse ``stage.field=value`` words, values as YAML, into a nested mapping."""
    tree: dict[str, Any] = {}
    for source in override_sources(overrides):
        tree = merge(tree, source.values)
    return tree


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


def _parse(text: str, where: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadSettings(f"{text!r} is not key=value", where=where, remedy="write e.g. -c subtract.whiten=null")
    try:
        leaf: Any = parse_yaml(value)
    except yaml.YAMLError as error:
        place = f"-c {name}" if where == "-c" else where
        raise BadSettings(f"cannot read the value {value!r}", where=place, remedy="write it as in YAML") from error
    for key in reversed(name.strip().split(".")):
        leaf = {key: leaf}
    return dict(leaf)


def _explain(error: Mapping[str, Any], model: type[BaseModel], sources: Sequence[Source]) -> BadSettings:
    name = ".".join(str(part) for part in error["loc"])
    where = _place(error["loc"], sources)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, _names(model), n=3, cutoff=0.5)
        remedy = f"did you mean {', '.join(near)}?" if near else _REMEDY
        return BadSettings(f"no setting {name!r}", where=where, remedy=remedy)
    message = error["msg"].removeprefix("Value error, ")
    return BadSettings(f"{name}: {message}", where=where, remedy=_REMEDY)


def _place(loc: Sequence[int | str], sources: Sequence[Source]) -> str:
    """Name the source that said most of `loc`, the later of two, with its line."""
    depths = [_depth(source.values, loc) for source in sources]
    deepest = max(depths, default=0)
    if not deepest:
        return "settings"
    source = next(s for s, depth in zip(reversed(sources), reversed(depths), strict=True) if depth == deepest)
    return f"{source.where}:{field_line(source.text, loc)}" if source.text else source.where


def _depth(values: Any, loc: Sequence[int | str]) -> int:
    depth = 0
    for part in loc:  # parts such as the branch of a union stand in no source
        if isinstance(values, Sequence) and not isinstance(values, str):
            values = dict(enumerate(values))
        if isinstance(values, Mapping) and part in values:
            values, depth = values[part], depth + 1
    return depth


def _names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, field in model.model_fields.items():
        names.append(prefix + key)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _names(kind, f"{prefix}{key}.")
    return names
