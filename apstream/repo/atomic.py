"""Files appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apstream.errors import ApstreamError, StorageUnavailable

__all__ = ["TEMPORARY", "atomic_path", "require_regular", "storage_error", "sync"]

TEMPORARY = ".tmp-"  # how the names of unfinished files begin
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SAY_FULL = ("Not enough space on disk", "requested and")  # astropy and numpy, which give no number


def storage_error(error: OSError, path: Path | str, action: str = "write") -> ApstreamError:
    """Translate an operating-system error on `path` into ours; `action` is what was tried, `write` or `read`."""
    full = error.errno in _FULL or any(words in str(error) for words in _SAY_FULL)
    remedy = "free disk space, then try again" if full else "check the path, its rights and the disk"
    return StorageUnavailable(f"cannot {action}: {error.strerror or error}", where=str(path), remedy=remedy)


def require_regular(path: Path) -> None:
    """Refuse a folder or a device as the name of a file to write: StorageUnavailable; what is not there yet is fine."""
    try:
        odd, folder = path.exists() and not path.is_file(), path.is_dir()
    except OSError as error:
        raise storage_error(error, path) from error
    if odd:
        what = "a folder" if folder else "a device, pipe or socket"
        raise StorageUnavailable(f"cannot write: it is {what}", where=str(path), remedy="give the name of a file")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that is renamed to it on success.

    Raises
    ------
    StorageUnavailable
        If the disk is full, the path cannot be written, or it exists and is no regular file (a device would become
        one); nothing is left behind.
    """
    temporary = None
    try:
        require_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.name[:60]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    except StorageUnavailable as error:
        if error.where != str(temporary):
            raise
        raise StorageUnavailable(error.message, where=str(path), remedy=error.remedy) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
