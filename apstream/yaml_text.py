"""YAML read by libyaml where it is there: every repository and camera that is opened waits for its files."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["parse_yaml"]

_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str | bytes) -> Any:
    """Return what a YAML text says.

    Raises
    ------
    yaml.YAMLError
        If it is none. PyYAML's own parser is then asked for the reason: its words are plainer.
    """
    try:
        return yaml.load(text, _FAST)
    except yaml.YAMLError:
        return yaml.safe_load(text)
