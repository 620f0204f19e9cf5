"""A repository's files in an object store, through fsspec: `s3://`, `gs://`, `abfs://`, `memory://` ..."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from apstream.errors import ApstreamError, BadSettings, FileMissing, StorageUnavailable
from apstream.repo.store import decode, relative

__all__ = ["BLOCK", "ObjectStore"]

BLOCK = 32768  # bytes read at a time by small reads: a FITS header or two; larger reads are one request

_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"}
_LIBRARIES = {
    "aiohttp": "ClientError",
    "azure.core.exceptions": "AzureError",
    "botocore.exceptions": "BotoCoreError",
    "gcsfs.retry": "HttpError",
    "google.auth.exceptions": "GoogleAuthError",
}
_NOT_ALLOWED = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError"}
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for servers other than Amazon's, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_SAME = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs"}
_REFUSED = {"PreconditionFailed", "412"}


class ObjectStore:
    """Files below a URL of any file system that fsspec knows.

    `create` is one conditional request (`If-None-Match: *` on S3, generation 0 on Google) that the server
    refuses when the key is taken, for large files on the request that completes the upload; an object is visible
    only when it is complete. The server must honour the condition: Amazon, Google, Azure, MinIO, Ceph and Garage
    do in current versions. On file systems that have no such request (`memory://`, `sftp://` ...) `create`
    looks first and writes then, which is right for one writer at a time only. Where the server's answer is lost,
    the repeated request may be told that the key is taken; then the answer is False and the content is our own.

    Parameters
    ----------
    url
        Bucket and prefix, e.g. `s3://bucket/night`. Options and credentials come from the environment.

    Raises
    ------
    BadSettings
        If the URL names no bucket, or nothing is installed for its scheme.
    """

    def __init__(self, url: str) -> None:
        self._scheme, _, rest = url.partition("://")
        self.url = f"{self._scheme}://{rest.rstrip('/')}"
        self._root = self._connect()[1].rstrip("/")
        if not self._root and self._scheme in _CONDITIONAL:
            raise BadSettings("names no bucket", where=url, remedy=f"write {self._scheme}://BUCKET/PREFIX")

    @property
    def _fs(self) -> Any:
        return self._connect()[0]

    def _connect(self) -> tuple[Any, str]:
        """Give file system and root; fsspec keeps one per process and thread, so forks and pickles of this are safe."""
        try:
            return url_to_fs(self.url, use_listings_cache=False)  # type: ignore[no-any-return]
        except ImportError as error:
            name = _SAME.get(self._scheme, self._scheme)
            remedy = 'pip install "apstream[s3]"' if name == "s3" else str(error)
            raise BadSettings(f"{self._scheme}:// needs a package more", where=self.url, remedy=remedy) from error
        except ValueError as error:
            remedy = "give a local folder, or a URL such as s3://bucket/prefix"
            raise BadSettings(f"unknown kind of URL: {error}", where=self.url, remedy=remedy) from error

    def open(self, path: str) -> BinaryIO:
        """See `Store.open`: reads of few bytes transfer `BLOCK`, larger ones what they ask for."""
        return io.BufferedReader(_Ranges(self, path, self.size(path)), BLOCK)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """See `Store.fetch`: a download into the system's temporary folder."""
        with self.temporary(Path(path).suffix) as local:
            with self._translated(path):
                self._fs.get_file(self._key(path), str(local))
            yield local

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Read bytes `start` to `stop` (exclusive) of a file in one request."""
        with self._translated(path):
            return bytes(self._fs.cat_file(self._key(path), start=start, end=stop))

    def create(self, path: str, source: Path) -> bool:
        """See `Store.create`: a conditional upload; the source stays."""
        if self._scheme not in _CONDITIONAL and self.exists(path):
            return False
        with self._translated(path, writing=True):
            try:
                self._fs.put_file(str(source), self._key(path), mode="create")
            except OSError as error:
                if not _refused(error):
                    raise
                return False
        return True

    def link(self, path: str, source: Path) -> bool:
        """See `Store.link`: an upload."""
        if not source.is_file():
            raise FileMissing("no such file", where=str(source))
        return self.create(path, source)

    def exists(self, path: str) -> bool:
        """See `Store.exists`."""
        try:
            self.size(path)
        except FileMissing:
            return False
        return True

    def size(self, path: str) -> int:
        """See `Store.size`."""
        with self._translated(path):
            known = self._fs.info(self._key(path))
        if known["type"] != "file":
            raise FileMissing("is a folder, not a file", where=self.location(path))
        return int(known["size"])

    def remove(self, path: str) -> None:
        """See `Store.remove`."""
        try:
            with self._translated(path):
                self._fs.rm_file(self._key(path))
        except FileMissing:
            return

    def walk(self, prefix: str = "") -> Iterator[str]:
        """See `Store.walk`."""
        try:
            with self._translated(prefix):
                keys = self._fs.find(self._key(prefix) if prefix else self._root)
        except FileMissing:
            return
        for path in sorted(key[len(self._root) + 1 :] for key in keys):
            if not any(part.startswith(".") for part in path.split("/")):
                yield path

    def leftovers(self, before: float) -> Iterator[str]:
        """See `Store.leftovers`: none."""
        return iter(())

    def location(self, path: str) -> str:
        """See `Store.location`."""
        return f"{self.url}/{relative(path, self.url)}"

    @contextmanager
    def temporary(self, suffix: str = "") -> Iterator[Path]:
        """See `Store.temporary`: a file in the system's temporary folder."""
        with tempfile.TemporaryDirectory(prefix="apstream-") as folder:
            path = Path(folder, f"file{suffix}")
            path.touch()
            yield path

    def read_text(self, path: str) -> str | None:
        """See `Store.read_text`."""
        try:
            with self._translated(path):
                content = bytes(self._fs.cat_file(self._key(path)))
        except FileMissing:
            return None
        return decode(content, self.location(path))

    def write_text(self, path: str, text: str, *, exclusive: bool) -> bool:
        """See `Store.write_text`."""
        if not exclusive:
            with self._translated(path, writing=True):
                self._fs.pipe_file(self._key(path), text.encode())
            return True
        with self.temporary() as local:
            local.write_bytes(text.encode())
            return self.create(path, local)

    def _key(self, path: str) -> str:
        return f"{self._root}/{relative(path, self.url)}"

    @contextmanager
    def _translated(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Turn the errors of fsspec and of the libraries below it into ours."""
        try:
            yield
        except _foreign() as error:
            where = self.location(path) if path else self.url
            raise self._translate(error, where, writing) from error

    def _translate(self, error: Exception, where: str, writing: bool) -> ApstreamError:
        if isinstance(error, FileNotFoundError):
            if writing:
                remedy = "create the bucket, or correct the URL"
                return BadSettings(f"cannot write: {error}", where=where, remedy=remedy)
            return FileMissing("no such file", where=where)
        if isinstance(error, PermissionError) or type(error).__name__ in _NOT_ALLOWED:
            variables = _VARIABLES.get(_SAME.get(self._scheme, self._scheme), "the credentials fsspec asks for")
            return BadSettings(f"not allowed: {error}", where=where, remedy=f"set {variables}")
        action = "write" if writing else "read"
        return StorageUnavailable(f"cannot {action}: {error}", where=where, remedy="check the network and the server")


class _Ranges(io.RawIOBase):
    """A remote file of which every read is one range request; to be buffered."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        self._store, self._path, self._size = store, path, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._next(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._next(self._size)

    def _next(self, count: int) -> bytes:
        start, stop = self._position, min(self._position + count, self._size)
        content = self._store.read(self._path, start, stop) if start < stop else b""
        self._position += len(content)
        return content


def _foreign() -> tuple[type[Exception], ...]:
    """Return the bases of all errors that may come from below; a library not imported yet has raised none."""
    loaded = [getattr(sys.modules.get(module), name, None) for module, name in _LIBRARIES.items()]
    return (OSError, *(kind for kind in loaded if kind is not None))


def _refused(error: OSError) -> bool:
    """Tell whether a conditional upload met an object that was there; s3fs does not always say FileExistsError."""
    answer = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") in _REFUSED
