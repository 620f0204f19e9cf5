"""Event URIs become paths, inside the configured roots and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from apstream.errors import FileMissing, ForbiddenUri

__all__ = ["find_file", "resolve_uri"]


def find_file(uris: Sequence[str], roots: Sequence[Path]) -> Path:
    """Return the first of the files that is there.

    Raises
    ------
    ForbiddenUri
        If any of them is outside the roots, whether it exists or not.
    FileMissing
        If none is there, or what is there is no plain file.
    """
    paths = [resolve_uri(uri, roots) for uri in uris]
    for path in paths:
        if path.is_file():
            return path
    raise FileMissing("no such file", where=uris[0], remedy="send the event after the file has landed")


def resolve_uri(uri: str, roots: Sequence[Path]) -> Path:
    """Return the real path of ``file://`` or a plain absolute path, with symlinks and ``..`` resolved.

    Raises
    ------
    ForbiddenUri
        If the scheme is another, the path is relative, or it leaves the roots.
    """
    path = _local_path(uri)
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ForbiddenUri(f"cannot be resolved: {error}", where=uri) from error
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise ForbiddenUri("outside the configured roots", where=uri, remedy="add its folder to service.roots")
    return real


def _local_path(uri: str) -> Path:
    if "://" not in uri and not uri.startswith("file:"):
        path = Path(uri)
    else:
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise ForbiddenUri(f"not a URI: {error}", where=uri) from None
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise ForbiddenUri("only file:// and absolute paths are read", where=uri)
        path = Path(unquote(parts.path))
    if not path.is_absolute():
        raise ForbiddenUri("the path is not absolute", where=uri)
    return path
