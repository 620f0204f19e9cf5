"""Where a repository's files lie: a local folder, or an object store behind fsspec.

A file appears whole or not at all, once, and is never changed afterwards: `create` refuses a path that is taken.
Paths are relative to the root, with `/` between their parts; a path of which a part begins with a dot is for
housekeeping and is never listed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from apstream.errors import BadFile, BadSettings, FileMissing
from apstream.repo.atomic import TEMPORARY, atomic_path, storage_error, sync

__all__ = ["LocalStore", "Store", "decode", "open_store", "relative"]

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_LOCK = ".store-lock"


class Store(Protocol):
    """The files of one repository.

    Every method takes a path below the root and raises `BadSettings` for one that leaves it, `FileMissing` where
    a file to be read is not there, and `StorageUnavailable` where disk, network or server fail.
    """

    @property
    def url(self) -> str:
        """The root, as `open_store` takes it."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; it can be sought in, and only what is read (and a little more) is transferred."""

    def fetch(self, path: str) -> AbstractContextManager[Path]:
        """Give a local file with the whole content, for the time of a `with` block; it must not be changed."""

    def create(self, path: str, source: Path) -> bool:
        """Make a file out of a closed local one, which may be consumed.

        Returns
        -------
        bool
            False, and nothing done, if there is something at `path` already. After True the content is durable.
        """

    def link(self, path: str, source: Path) -> bool:
        """Like `create`, but the source stays where it is; a local folder holds a symbolic link to it."""

    def exists(self, path: str) -> bool:
        """Tell whether there is a file (not a folder) at `path`."""

    def size(self, path: str) -> int:
        """Size of a file in bytes."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""

    def walk(self, prefix: str = "") -> Iterator[str]:
        """Paths of all files below the folder `prefix`, in a fixed order, without hidden ones."""

    def leftovers(self, before: float) -> Iterator[str]:
        """Paths of unfinished files last written before a POSIX time, as killed writers leave them; never listed.

        An object store names none: let a rule of the bucket end incomplete uploads.
        """

    def location(self, path: str) -> str:
        """Absolute local path, or URL, of a file that need not exist."""

    def temporary(self, suffix: str = "") -> AbstractContextManager[Path]:
        """Give an empty local file to fill for `create`; it is gone at the end of the `with` block."""

    def read_text(self, path: str) -> str | None:
        """Content of a UTF-8 file; None if it is not there."""

    def write_text(self, path: str, text: str, *, exclusive: bool) -> bool:
        """Write a small UTF-8 file whole.

        With `exclusive` an existing file is kept and the answer is False; without, it is replaced.
        """


def open_store(root: str | Path) -> Store:
    """Open the store at a local folder, a `file://` URL or any URL that fsspec knows, e.g. `s3://bucket/prefix`.

    Nothing is read or written yet. An object store takes its options from the environment, for S3
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for servers other than Amazon's, `AWS_ENDPOINT_URL`.

    Raises
    ------
    BadSettings
        For a URL that names no bucket or a scheme for which nothing is installed.
    """
    text = os.fspath(root)
    if isinstance(root, Path) or "://" not in text:
        return LocalStore(Path(text))
    if urlsplit(text).scheme in {"file", "local"}:
        return LocalStore(Path(unquote(text.partition("://")[2])))
    from apstream.repo.object_store import ObjectStore  # fsspec costs time that a local repository need not spend

    return ObjectStore(text)


def relative(path: str, url: str) -> str:
    """Return `path` in its plain form.

    Raises
    ------
    BadSettings
        If it is empty, absolute or leads out of the root `url`.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\0" in path:
        remedy = "templates and data ids must give a relative path without `..`"
        raise BadSettings(f"{path!r} is no path inside the repository", where=url, remedy=remedy)
    return str(pure)


def decode(content: bytes, where: str) -> str:
    """Decode UTF-8, or raise `BadFile`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadFile(f"not UTF-8 text: {error.reason} at byte {error.start}", where=where) from error


class LocalStore:
    """Files in a local (or mounted) folder.

    A new file is written under a hidden temporary name, flushed to disk, and given its name by link(2), which
    refuses a name that is taken; then the folder is flushed. So a killed process leaves at worst a hidden file.

    Parameters
    ----------
    root
        The folder; made when the first file is written.
    hard_links
        False avoids link(2), as is done by itself where the file system lacks it: a lock (flock) on a hidden file in
        the root then makes looking and renaming one step.
    """

    def __init__(self, root: Path, *, hard_links: bool = True) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))
        self.url = str(self.root)
        self._hard_links = hard_links

    def open(self, path: str) -> BinaryIO:
        """See `Store.open`."""
        with _reading(self._at(path)) as file:
            return file.open("rb")

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """See `Store.fetch`: the file itself."""
        self.size(path)
        yield self._at(path)

    def create(self, path: str, source: Path) -> bool:
        """See `Store.create`."""
        target = self._at(path)
        with _writing(target):
            _make_folder(target.parent)
            source.chmod(0o644)
            sync(source)
            made = self._name(source, target)
            if made:
                source.unlink(missing_ok=True)
                sync(target.parent)
            return made

    def link(self, path: str, source: Path) -> bool:
        """See `Store.link`."""
        target = self._at(path)
        with _reading(source):
            source.stat()
        with _writing(target):
            _make_folder(target.parent)
            try:
                target.symlink_to(os.path.abspath(source))
            except FileExistsError:
                return False
            sync(target.parent)
            return True

    def exists(self, path: str) -> bool:
        """See `Store.exists`."""
        return self._at(path).is_file()

    def size(self, path: str) -> int:
        """See `Store.size`."""
        with _reading(self._at(path)) as file:
            if file.is_dir():
                raise FileMissing("is a folder, not a file", where=str(file))
            return file.stat().st_size

    def remove(self, path: str) -> None:
        """See `Store.remove`."""
        with _writing(self._at(path)) as file:
            file.unlink(missing_ok=True)

    def walk(self, prefix: str = "") -> Iterator[str]:
        """See `Store.walk`."""
        top = f"{relative(prefix, self.url)}/" if prefix else ""
        return (path for path in _files(self.root / top, top) if not PurePosixPath(path).name.startswith("."))

    def leftovers(self, before: float) -> Iterator[str]:
        """See `Store.leftovers`."""
        for path in _files(self.root, ""):
            if PurePosixPath(path).name.startswith(TEMPORARY):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if (self.root / path).lstat().st_mtime < before:
                        yield path

    def location(self, path: str) -> str:
        """See `Store.location`."""
        return str(self._at(path))

    @contextmanager
    def temporary(self, suffix: str = "") -> Iterator[Path]:
        """See `Store.temporary`: a hidden file in the root."""
        with _writing(self.root):
            _make_folder(self.root)
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=suffix, dir=self.root)
            os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def read_text(self, path: str) -> str | None:
        """See `Store.read_text`."""
        try:
            with _reading(self._at(path)) as file:
                return decode(file.read_bytes(), str(file))
        except FileMissing:
            return None

    def write_text(self, path: str, text: str, *, exclusive: bool) -> bool:
        """See `Store.write_text`."""
        if not exclusive:
            with atomic_path(self._at(path)) as temporary:
                temporary.write_bytes(text.encode())
            return True
        with self.temporary() as temporary:
            with _writing(self._at(path)):
                temporary.write_bytes(text.encode())
            return self.create(path, temporary)

    def _at(self, path: str) -> Path:
        return self.root / relative(path, self.url)

    def _name(self, source: Path, target: Path) -> bool:
        """Give `source` the name `target` unless that is taken."""
        if not self._hard_links:
            return self._rename(source, target)
        names = source.stat().st_nlink
        try:
            os.link(source, target)
        except FileExistsError:
            return source.stat().st_nlink > names  # NFS may repeat a request whose answer was lost
        except OSError as error:
            if error.errno == errno.EXDEV:
                return self._copy(source, target)
            if error.errno not in _NO_LINKS:
                raise
            return self._rename(source, target)
        return True

    def _rename(self, source: Path, target: Path) -> bool:
        with (self.root / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, should this process die
            if os.path.lexists(target):
                return False
            try:
                source.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with atomic_path(target) as temporary:
                    shutil.copyfile(source, temporary)
        return True

    def _copy(self, source: Path, target: Path) -> bool:
        """Create `target` from another file system's file, by way of a hidden copy beside it."""
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=target.parent)
        os.close(handle)
        copy = Path(name)
        try:
            shutil.copyfile(source, copy)
            copy.chmod(0o644)
            sync(copy)
            return self._name(copy, target)
        finally:
            copy.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durably entered in its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """Yield the files below a folder, but not in hidden folders, by path as a string, as object stores do."""
    try:
        with _reading(folder), os.scandir(folder) as entries:
            found = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False)) for entry in entries)
    except FileMissing:
        return
    for name in found:
        if not name.endswith("/"):
            yield prefix + name
        elif not name.startswith("."):
            yield from _files(folder / name, prefix + name)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing("no such file", where=str(path)) from error
    except OSError as error:
        raise storage_error(error, path, "read") from error


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        yield path
    except OSError as error:
        raise storage_error(error, path) from error
