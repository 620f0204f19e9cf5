"""The four kinds of dataset types, as a policy file declares them."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apstream.errors import DatasetNotFound
from apstream.repo.formats.registry import Format, get_format

__all__ = ["AggregateType", "AnyType", "ComponentSpec", "ComponentType", "CompositeType", "StoredType", "data_id_text"]

Level = Literal["repository", "night", "visit", "detector", "tract", "patch"]
_LEVEL_KEY = {"night": "day", "visit": "visit", "detector": "detector", "tract": "tract", "patch": "patch"}


class _Type(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    description: str = Field("", description="What it is, in one line.")


class StoredType(_Type):
    """Type 1: a file of its own."""

    template: str = Field(min_length=1, description="Path below the repository, data-id keys in braces")
    format: str = Field(description="Name of a storage format, or MODULE:NAME of one's own")
    keys: tuple[str, ...] = Field((), description="Keys that identify a dataset; default: the template's fields")
    python: str | None = Field(None, description="Import path of the class, if narrower than the format's")
    level: Level | None = Field(None, description="What one dataset stands for; default: from the keys")
    validity: bool = Field(False, description="Holds for a span of time and is found by it, as calibrations are")
    shared: bool = Field(False, description="Written once: an equal second write is recognised, another refused")

    @field_validator("template")
    @classmethod
    def _fields_are_names(cls, template: str) -> str:
        if template.startswith("/") or ".." in template.split("/"):
            raise ValueError("the template must stay below the repository")
        for field in _fields(template):
            if not field.isidentifier():
                raise ValueError(f"{{{field}}} is not the name of a key")
        return template

    @model_validator(mode="after")
    def _consistent(self) -> StoredType:
        derived = tuple(f for f in _fields(self.template) if f != "suffix")
        if not self.keys:
            object.__setattr__(self, "keys", derived)
        if self.validity and "since" not in self.keys:
            object.__setattr__(self, "keys", (*self.keys, "since"))
        if self.validity and "since" not in derived:
            raise ValueError("a type with validity needs {since} in its template")
        implied = _level(self.keys)
        if self.level is None:
            object.__setattr__(self, "level", implied)
        elif self.level != "repository" and _LEVEL_KEY[self.level] not in self.keys:
            raise ValueError(f"level {self.level} needs the key {_LEVEL_KEY[self.level]!r}")
        return self

    @property
    def storage(self) -> Format:
        """How its files are read and written."""
        return get_format(self.format)

    @property
    def identity_keys(self) -> tuple[str, ...]:
        """The keys without ``since``, which the time of an exposure stands for."""
        return tuple(key for key in self.keys if key != "since")

    def path(self, data_id: Mapping[str, Any]) -> str:
        """Return the path below the repository; DatasetNotFound names the keys that are missing.

        Fields of the template that are no keys may be unknown.
        """
        missing = [key for key in self.keys if key not in data_id]
        if missing:
            raise DatasetNotFound(
                f"no location for {self.name} with {data_id_text(data_id)}", remedy=f"give {', '.join(missing)} too"
            )
        others = dict.fromkeys(_fields(self.template), "unknown") | {"suffix": ".fits"}
        values = {key: _path_word(value) for key, value in {**others, **data_id}.items()}
        return self.template.format(**values)


class ComponentType(_Type):
    """Type 2: a part of another type, read out of its file without the rest."""

    component: str = Field(description="Which part")
    of: str = Field(description="The type it is part of")


class ComponentSpec(BaseModel):
    """One component of a composite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str | dict[str, str] = Field(description="Dataset type; or one for each stage, the latest that exists counts")
    input_only: bool = Field(False, description="Read, never written")
    optional: bool = Field(False, description="None where the repository has none")

    @property
    def types(self) -> tuple[str, ...]:
        """All types it may be."""
        return (self.type,) if isinstance(self.type, str) else tuple(self.type.values())


class CompositeType(_Type):
    """Type 3: an object put together from other types; it has no file of its own."""

    components: dict[str, ComponentSpec] = Field(min_length=1, description="Component name to dataset type")
    cls: str | None = Field(None, alias="class", description="Import path of the class to make")
    assembler: str = Field("apstream.repo.assembly:construct", description="Import path of the assembler")
    disassembler: str | None = Field(None, description="Import path of the disassembler; without one, read only")
    missing: Literal["raise", "ignore"] = Field("raise", description="If the disassembler leaves a component out")
    stage: str | None = Field(None, description="Stage whose versions of the components are wanted; default: the last")

    @field_validator("components", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"type": spec} if isinstance(spec, str) else spec for name, spec in value.items()}


class AggregateType(_Type):
    """All datasets of another type that agree with a partial data id, combined into one object."""

    aggregate: str = Field(description="The type that is combined")
    combine: str = Field("apstream.repo.assembly:concatenate", description="Import path of the function that combines")
    template: str | None = Field(None, description="Where it lies when it is stored; default: it is never stored")
    format: str | None = Field(None, description="Storage format, with a template")

    @model_validator(mode="after")
    def _both(self) -> AggregateType:
        if (self.template is None) != (self.format is None):
            raise ValueError("template and format belong together")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the stored object."""
        return _fields(self.template or "")

    @property
    def stored(self) -> StoredType | None:
        """The type of its file, if it may have one."""
        if self.template is None or self.format is None:
            return None
        return StoredType(name=self.name, template=self.template, format=self.format)


AnyType = StoredType | ComponentType | CompositeType | AggregateType


def data_id_text(data_id: Mapping[str, Any]) -> str:
    """Return ``key=value key=value``, as users type it."""
    return " ".join(f"{key}={value}" for key, value in data_id.items() if key != "suffix") or "any id"


def _fields(template: str) -> tuple[str, ...]:
    try:
        found = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"{template!r}: {error}") from None
    return tuple(dict.fromkeys(found))


def _level(keys: tuple[str, ...]) -> Level:
    order: tuple[Level, ...] = ("patch", "tract", "detector", "visit", "night")
    return next((level for level in order if _LEVEL_KEY[level] in keys), "repository")


def _path_word(value: Any) -> Any:
    """Make a text safe as one part of a path; numbers keep their format fields."""
    return re.sub(r"[^\w.+=@-]", "_", value) if isinstance(value, str) and not value.startswith(".") else value
