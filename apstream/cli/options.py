"""Options that several commands have, declared once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["REQUIRED", "SettingsFile", "as_command", "show_config"]

#: The default of an option or argument that has none.
REQUIRED = Parameter.empty
SettingsFile = Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")]


def as_command(
    function: Callable[..., None], given: type[Any], options: Mapping[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """Return what typer makes a command of `function` of.

    Parameters
    ----------
    function
        Called with one object of `given`, and by name with the options that are not fields of it.
    given
        A dataclass.
    options
        Annotation and default by name, in the order of the command's help; among them the fields of `given`.
    """

    def command(**values: Any) -> None:
        function(given(**{one.name: values.pop(one.name) for one in fields(given)}), **values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=option, default=default)
        for name, (option, default) in options.items()
    ]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def show_config(chosen: Any) -> None:
    """Print all settings as YAML."""
    import yaml

    typer.echo(yaml.safe_dump(chosen.model_dump(mode="json"), sort_keys=False))
