"""YAML files whose faults are named by line and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from apstream.errors import BadSettings
from apstream.yaml_text import parse_yaml

__all__ = ["field_line", "read_mapping"]


def read_mapping(text: str, where: str, *, remedy: str) -> dict[str, Any]:
    """Parse a YAML mapping.

    Raises
    ------
    BadSettings
        If the text is no YAML or no mapping; names the line.
    """
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadSettings(f"not YAML: {reason}", where=place, remedy=remedy) from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise BadSettings("not a mapping of names to entries", where=f"{where}:1", remedy=remedy)
    return {str(key): value for key, value in content.items()}


def field_line(text: str, path: Sequence[Any]) -> int:
    """Return the line, counted from one, of the deepest part of `path` that stands in a YAML text."""
    node, line = yaml.compose(text, yaml.SafeLoader), 1
    for key in path:
        match node:
            case yaml.MappingNode():
                found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            case yaml.SequenceNode() if isinstance(key, int) and key < len(node.value):
                found = (node.value[key], node.value[key])
            case _:
                found = None
        if found is None:
            continue  # parts such as the branch of a union stand in no file
        line, node = found[0].start_mark.line + 1, found[1]
    return line
