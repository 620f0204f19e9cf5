"""Find, read and validate camera files."""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from apstream.cameras.camera import Camera
from apstream.errors import BadCamera
from apstream.yaml_text import parse_yaml

__all__ = ["camera_names", "load_camera"]


def camera_names() -> tuple[str, ...]:
    """Return the names of the cameras that come with the package."""
    files = resources.files("apstream.cameras") / "data"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in files.iterdir() if item.name.endswith(".yaml")))


def load_camera(name_or_path: str | Path) -> Camera:
    """Load a camera by the name of a shipped one or by the path of a file.

    Raises
    ------
    BadCamera
        If there is no such camera, or the file is no valid description; names file, field and remedy.
    """
    return _load(str(name_or_path))


@lru_cache(maxsize=32)
def _load(name_or_path: str) -> Camera:
    words, where = _read(name_or_path)
    content = _with_folder(_parse(words, where), name_or_path)
    content = _merge_parents(content, where)
    try:
        return Camera.model_validate(content)
    except ValidationError as error:
        raise BadCamera(_explain(error), where=where, remedy="see docs/cameras.md for the fields") from None


def _read(name_or_path: str) -> tuple[str, str]:
    shipped = resources.files("apstream.cameras") / "data" / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if "/" not in name_or_path and path.suffix not in (".yaml", ".yml") and shipped.is_file():
        return shipped.read_text(), f"camera {name_or_path}"
    if path.is_file():
        try:
            return path.read_text(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise BadCamera(f"cannot be read: {error}", where=str(path)) from None
    near = difflib.get_close_matches(path.stem, camera_names(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise BadCamera(
        f"no camera or file named {name_or_path!r}",
        remedy=f"{hint}known cameras: {', '.join(camera_names())}; or give the path of a YAML file",
    )


def _with_folder(content: dict[str, Any], name_or_path: str) -> dict[str, Any]:
    """Make `curated` a full path; a shipped camera has its own folder if there is one."""
    shipped = Path(str(resources.files("apstream.cameras"))) / "curated"
    beside = Path(name_or_path).resolve().parent
    if content.get("curated") is not None:
        content["curated"] = (shipped if name_or_path in camera_names() else beside) / str(content["curated"])
    elif "curated" not in content and name_or_path in camera_names() and (shipped / name_or_path).is_dir():
        content["curated"] = shipped / name_or_path
    return content


def _parse(words: str, where: str) -> dict[str, Any]:
    try:
        content = parse_yaml(words)
    except yaml.YAMLError as error:
        raise BadCamera(f"not YAML: {' '.join(str(error).split())}", where=where) from None
    if not isinstance(content, dict):
        raise BadCamera("not a mapping of fields", where=where, remedy="start from a shipped camera file")
    return content


def _merge_parents(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Lay the file over the one it `extends`; mappings merge, everything else replaces."""
    parent = content.pop("extends", None)
    if parent is None:
        return content
    words, parent_where = _read(str(parent))
    base = _with_folder(_parse(words, parent_where), str(parent))
    if "extends" in base:
        raise BadCamera(f"extends {parent}, which itself extends another", where=where, remedy="extend one level")
    return _merge(base, content)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _explain(error: ValidationError) -> str:
    known = _field_names(Camera)
    parts = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "(file)"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            message = "unknown field" + (f", did you mean {near[0]}?" if near else "")
        parts.append(f"field {field}: {message}")
    return "; ".join(parts)


def _field_names(model: Any) -> set[str]:
    """Collect the field names of a model and of the models inside it."""
    from apstream.cameras import companions, schema

    names = set(model.model_fields) | {"curated"}
    for module in (schema, companions):
        for item in module.__all__:
            names |= set(getattr(module, item).model_fields)
    return names
