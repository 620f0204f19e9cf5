"""Event URIs become files, inside the configured roots and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from apstream.cameras import Camera
from apstream.errors import FileMissing, ForbiddenUri
from apstream.model.exposures import RawExposure
from apstream.repo.formats.raw import read_raw
from apstream.repo.store import open_store

__all__ = ["find_file", "local_file", "read_raw_at", "resolve_uri"]

Root = str | Path


def find_file(uris: Sequence[str], roots: Sequence[Root]) -> str:
    """Return the location of the first of the files that is there: a real path, or a URL of an object store.

    Raises
    ------
    ForbiddenUri
        If any of them is outside the roots, whether it exists or not.
    FileMissing
        If none is there, or what is there is no plain file.
    """
    locations = [resolve_uri(uri, roots) for uri in uris]
    for location in locations:
        if _is_there(location):
            return location
    raise FileMissing("no such file", where=uris[0], remedy="send the event after the file has landed")


def resolve_uri(uri: str, roots: Sequence[Root]) -> str:
    """Return the real path of ``file://`` or a plain absolute path, or the URL of an object below a root.

    Symlinks and ``..`` are resolved in paths and refused in URLs.

    Raises
    ------
    ForbiddenUri
        If the scheme is no root's, the path is relative, or it leaves the roots.
    """
    stores = [str(root).rstrip("/") + "/" for root in roots if "://" in str(root)]
    if any(uri.startswith(store) for store in stores) and ".." not in uri.split("/"):
        return uri
    path = _local_path(uri)
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ForbiddenUri(f"cannot be resolved: {error}", where=uri) from error
    folders = [Path(root) for root in roots if "://" not in str(root)]
    if not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise ForbiddenUri("outside the configured roots", where=uri, remedy="add its folder to service.roots")
    return str(real)


@contextmanager
def local_file(location: str | Path) -> Iterator[Path]:
    """Yield a local file with the content of a location: itself, or a copy of an object while the block lasts."""
    folder, _, name = str(location).rpartition("/")
    if "://" not in folder:
        yield Path(location)
        return
    with open_store(folder).fetch(name) as path:
        yield path


def read_raw_at(location: str | Path, camera: Camera, *, detector: int | None) -> RawExposure:
    """Read the raw frame at a location; its origin is the location, wherever it was copied to be read."""
    with local_file(location) as path:
        raw = read_raw(path, camera, detector=detector)
    return replace(raw, info=replace(raw.info, origin=str(location)))


def _is_there(location: str) -> bool:
    folder, _, name = location.rpartition("/")
    return open_store(folder).exists(name) if "://" in folder else Path(location).is_file()


def _local_path(uri: str) -> Path:
    if "://" not in uri and not uri.startswith("file:"):
        path = Path(uri)
    else:
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise ForbiddenUri(f"not a URI: {error}", where=uri) from None
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise ForbiddenUri("only file://, absolute paths and the configured roots are read", where=uri)
        path = Path(unquote(parts.path))
    if not path.is_absolute():
        raise ForbiddenUri("the path is not absolute", where=uri)
    return path
