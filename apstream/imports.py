"""Objects named by import path: in policies, and in settings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from apstream.errors import BadSettings

__all__ = ["load_object"]


def load_object(path: str, what: str) -> Any:
    """Import ``module:attribute`` (or ``module.attribute``).

    Raises
    ------
    BadSettings
        If module or attribute do not exist or fail to import; the message begins with `what`.
    """
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "write MODULE:NAME of something that can be imported; its folder must be on PYTHONPATH"
        raise BadSettings(f"{what}: cannot import {path!r}: {error}", remedy=remedy) from error
    return found
