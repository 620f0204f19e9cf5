"""What a command of plain files may write to, and what it may be given, said before any work is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from apstream.errors import BadSettings, StorageUnavailable
from apstream.repo.atomic import require_regular

if TYPE_CHECKING:
    from apstream.repo.entries import Input
    from apstream.repo.formats.external import ExternalOptions
    from apstream.repo.repository import Repository

__all__ = ["files_of", "require_distinct", "require_ending", "spare_inputs", "spare_inputs_in", "spare_repository"]

_Key = tuple[int, int]
_IMAGES = ("variance_file", "weight_file", "mask_file")


def spare_inputs(targets: Iterable[Path], inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Refuse to write over what is read, by whatever name either goes.

    Parameters
    ----------
    inputs
        None is passed over.
    option
        What names the files to write.

    Raises
    ------
    BadSettings
        If a file to write is one of the inputs.
    StorageUnavailable
        If one of them exists and is no regular file.
    """
    read = {_key(path): path for path in inputs if path is not None}
    read.pop(None, None)
    for target in targets:
        other = read.get(_key(target))
        if other is not None:
            by = "" if str(other) == str(target) else f" ({other})"
            message = f"is an input{by} and would be written over"
            raise BadSettings(message, where=str(target), remedy=f"give {option} another name")
        require_regular(target)


def require_distinct(paths: Iterable[Path]) -> None:
    """Refuse a frame that is given twice: it is no second measurement; BadSettings names it."""
    seen: dict[_Key, Path] = {}
    for path in paths:
        key = _key(path)
        other = path if key is None else seen.setdefault(key, path)
        if other is not path:
            same = "" if str(other) == str(path) else f", as {other} too"
            raise BadSettings(f"given twice{same}", where=str(path), remedy="give each frame once")


def spare_inputs_in(folder: Path, products: Iterable[str], inputs: Iterable[Path | None]) -> None:
    """Refuse a folder of products, by their names, that is a file, or where they would be written over what is read.

    Raises
    ------
    BadSettings, StorageUnavailable
        As from `spare_inputs`; StorageUnavailable also names a file that stands where the folder belongs.
    """
    if _key(folder) is not None and not folder.is_dir():
        message = "cannot write: it is a file, and --out names a folder here"
        raise StorageUnavailable(message, where=str(folder), remedy="give --out another name")
    spare_inputs((folder / name for name in products), inputs)


def spare_repository(out: Path, repository: Repository, read: Iterable[Input]) -> None:
    """Refuse to write over what was read of a repository, also where it is linked to, or any file that lies in it.

    Raises
    ------
    BadSettings, StorageUnavailable
        As from `spare_inputs`.
    """
    entries = (repository.entry(one.type, **one.data_id) for one in read)
    spare_inputs([out], [Path(repository.location(entry)) for entry in entries if entry is not None])
    roots = [Path(place.store.url).resolve() for place in repository.chain.places]
    real = out.resolve()
    if out.exists() and any(real.is_relative_to(root) for root in roots):
        message = "is a file of the repository and would be written over"
        raise BadSettings(message, where=str(out), remedy="give --out another name")


def require_ending(out: Path, endings: tuple[str, ...], what: str) -> None:
    """Refuse a name that ends like another kind of file; BadSettings names it and the endings."""
    if not out.name.lower().endswith(endings):
        remedy = f"end its name in {', '.join(endings[:-1])} or {endings[-1]}"
        raise BadSettings(f"{what} is written as {endings[0][1:].upper()}", where=str(out), remedy=remedy)


def files_of(*options: ExternalOptions) -> list[Path]:
    """Return the files that the options of external images name."""
    found = (getattr(one, name) for one in options for name in _IMAGES)
    return [path for path in found if path is not None]


def _key(path: Path) -> _Key | None:
    """Return what is the same for all names of a file; None: there is none, or it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
