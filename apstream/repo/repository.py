"""A repository: a folder of typed datasets with a registry."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from apstream.errors import BadSettings, Conflict, DatasetNotFound, FileMissing
from apstream.model.products import SkyCircle
from apstream.repo.atomic import atomic_path, storage_error
from apstream.repo.formats.registry import FORMATS
from apstream.repo.registry import Entry, Registry
from apstream.repo.types import Policy, data_id_text

__all__ = ["FileRepository", "is_repository"]

_CONFIG = "repository.yaml"


def is_repository(folder: Path) -> bool:
    """Whether a folder is a repository."""
    return (folder / _CONFIG).is_file()


class FileRepository:
    """A repository in a local folder.

    Parameters
    ----------
    root
        The folder.

    Raises
    ------
    FileMissing
        If the folder is not a repository.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        config = self.root / _CONFIG
        if not config.is_file():
            raise FileMissing(
                "not a repository", where=str(root), remedy=f"apstream repo create {root} --camera NAME"
            )
        settings = yaml.safe_load(config.read_text()) or {}
        if not isinstance(settings, dict) or "camera" not in settings:
            raise BadSettings("no camera named", where=str(config), remedy="add a line 'camera: NAME'")
        self.camera = str(settings["camera"])
        policy = self.root / "policy.yaml"
        self.policy = Policy.load(policy if policy.is_file() else None)
        self.registry = Registry(self.root / "registry.sqlite3")

    @classmethod
    def create(cls, root: Path | str, *, camera: str) -> FileRepository:
        """Create an empty repository for a camera; an existing one of the same camera is opened."""
        root = Path(root)
        config = root / _CONFIG
        if config.is_file():
            repository = cls(root)
            if repository.camera != camera:
                raise Conflict(
                    f"the repository belongs to camera {repository.camera}",
                    where=str(root),
                    remedy="use another folder",
                )
            return repository
        with atomic_path(config) as temporary:
            temporary.write_text(yaml.safe_dump({"camera": camera}))
        return cls(root)

    def get(self, dataset_type: str, /, **data_id: Any) -> Any:
        """Return the dataset; DatasetNotFound names what to ingest if there is none."""
        location = self.locate(dataset_type, **data_id)
        if location is None:
            raise DatasetNotFound(
                f"no location for {dataset_type} with {data_id_text(data_id)}",
                where=str(self.root),
                remedy=f"ingest or make {dataset_type}",
            )
        return FORMATS[self.policy[dataset_type].format].read(Path(location))

    def put(self, value: Any, dataset_type: str, /, **data_id: Any) -> str:
        """Store a dataset atomically, the file first, then its registry row; return its location."""
        kind = self.policy[dataset_type]
        relative = kind.path(data_id)
        path = self.root / relative
        chosen = FORMATS[kind.format]
        try:
            with atomic_path(path) as temporary:
                chosen.write(temporary, value)
        except OSError as error:
            raise storage_error(error, path) from error
        self.registry.add(Entry(dataset_type, _public(data_id), relative, chosen.region(value)))
        return str(path)

    def locate(self, dataset_type: str, /, **data_id: Any) -> str | None:
        """Return the location of a dataset or None."""
        kind = self.policy[dataset_type]
        wanted = {key: data_id[key] for key in kind.keys if key in data_id} or data_id
        for entry in self.registry.find(dataset_type, **wanted):
            path = self.root / entry.path
            if path.exists():
                return str(path)
        return None

    def find(self, dataset_type: str, **known: Any) -> list[Entry]:
        """Return the registry's entries of a type."""
        self.policy[dataset_type]
        return self.registry.find(dataset_type, **known)

    def overlapping(self, dataset_type: str, region: SkyCircle, **known: Any) -> list[Entry]:
        """Return the entries of a type that meet a circle on the sky."""
        return self.registry.overlapping(dataset_type, region, **known)

    def ingest(self, source: Path, dataset_type: str, /, *, copy: bool = False, **data_id: Any) -> str:
        """Take a file in by link (or copy); a different file under the same id is refused.

        Raises
        ------
        Conflict
            If the id has another file already.
        """
        suffix = "".join(source.suffixes[-2:]) if source.suffix in {".gz", ".fz"} else source.suffix
        relative = self.policy[dataset_type].path({**data_id, "suffix": suffix})
        present = self.locate(dataset_type, **data_id)
        if present and not _same_file(Path(present), source):
            raise Conflict(
                f"another file stands for {dataset_type} {data_id_text(data_id)}: {present}",
                where=str(source),
                remedy="remove one of the two",
            )
        target = self.root / relative
        try:
            _link(source.absolute(), target, copy=copy)
        except OSError as error:
            raise storage_error(error, target) from error
        self.registry.add(Entry(dataset_type, _public(data_id), relative))
        return str(target)

    def close(self) -> None:
        """Close the registry."""
        self.registry.close()


def _public(data_id: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data_id.items() if key != "suffix"}


def _same_file(present: Path, source: Path) -> bool:
    if present.resolve() == source.resolve():
        return True
    same_size = present.stat().st_size == source.stat().st_size
    return same_size and present.read_bytes() == source.read_bytes()


def _link(source: Path, target: Path, *, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and _same_file(target, source):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    if copy:
        shutil.copyfile(source, temporary)
    else:
        temporary.symlink_to(source)
    temporary.replace(target)
