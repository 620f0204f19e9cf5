"""Dataset types: a name, a path template with data-id fields, a storage format."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apstream.errors import BadSettings, DatasetNotFound

__all__ = ["DatasetType", "Policy", "data_id_text"]


class DatasetType(BaseModel):
    """How one type of dataset is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    template: str = Field(description="Path below the repository, data-id keys in braces")
    format: str = Field(description="Name of the storage format")
    description: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Data-id keys of the template, ``suffix`` excluded, in their order."""
        fields = [field for _, field, _, _ in string.Formatter().parse(self.template) if field]
        return tuple(dict.fromkeys(f for f in fields if f != "suffix"))

    def path(self, data_id: Mapping[str, Any]) -> str:
        """Return the path below the repository; DatasetNotFound names the keys that are missing."""
        missing = [key for key in self.keys if key not in data_id]
        if missing:
            raise DatasetNotFound(
                f"no location for {self.name} with {data_id_text(data_id)}",
                remedy=f"give {', '.join(missing)} too",
            )
        return self.template.format(**{"suffix": ".fits", **data_id})


@dataclass(frozen=True, slots=True)
class Policy:
    """The dataset types of a repository by name."""

    types: Mapping[str, DatasetType]

    @classmethod
    def load(cls, path: Path | None = None) -> Policy:
        """Load the policy that ships, and the types of another file over it.

        Raises
        ------
        BadSettings
            If the file is not YAML or an entry is wrong; names the entry and the field.
        """
        shipped = files("apstream.repo").joinpath("policy/default.yaml")
        types: dict[str, DatasetType] = {}
        for source in (shipped, path) if path else (shipped,):
            types |= _read_types(source)
        return cls(types)

    def __getitem__(self, name: str) -> DatasetType:
        if name in self.types:
            return self.types[name]
        near = difflib.get_close_matches(name, self.types, n=3) or sorted(self.types)
        raise DatasetNotFound(f"no dataset type {name!r}", remedy=f"did you mean {', '.join(near)}?")


def _read_types(source: Path | Traversable) -> dict[str, DatasetType]:
    try:
        entries = yaml.safe_load(source.read_text())
        return {name: DatasetType(name=name, **entry) for name, entry in entries.items()}
    except (OSError, yaml.YAMLError, ValidationError, AttributeError, TypeError) as error:
        raise BadSettings(f"bad policy: {error}", where=str(source), remedy="mend the policy file") from error


def data_id_text(data_id: Mapping[str, Any]) -> str:
    """Return ``key=value key=value``, as users type it."""
    return " ".join(f"{key}={value}" for key, value in data_id.items() if key != "suffix")
