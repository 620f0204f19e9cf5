"""LSST's sharded reference catalogues: a folder or a tar of FITS tables, one per HTM trixel."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from apstream.errors import ApstreamError, BadCatalog, FileMissing
from apstream.repo.formats.startables import read_schema

__all__ = ["htm_shards", "is_htm_shards", "is_tar", "is_trixel"]

_SHARD = re.compile(r"(?:.*[_-])?(\d+)(?:_refcats?\w*)?\.fits(?:\.gz)?", re.IGNORECASE)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error)


def is_trixel(number: int) -> bool:
    """Tell whether a number is an HTM trixel: 8 to 15 at level 0, four times as many at each further one."""
    return number >= 8 and number.bit_length() % 2 == 0


def is_htm_shards(path: Path | str) -> bool:
    """Tell whether a path is a folder or a tar with star tables named by trixel; one of them is looked into."""
    path = Path(path)
    try:
        with htm_shards(path, first=True) as shards:
            return bool(shards) and read_schema(shards[0]).lsst
    except ApstreamError:
        return False


def is_tar(path: Path) -> bool:
    """Tell whether a path is called like a tar, compressed or not."""
    return path.name.lower().endswith(_TAR)


@contextmanager
def htm_shards(path: Path, *, first: bool = False, scratch: Path | None = None) -> Iterator[list[Path]]:
    """Give the shards of a folder or a tar as files, in the order of their trixels.

    Parameters
    ----------
    path
        The folder or the tar.
    first
        Only one of them.
    scratch
        Where a tar is unpacked for the time being; the system's temporary folder without one.

    Raises
    ------
    FileMissing
        If there is no such path.
    BadCatalog
        If the tar is broken.
    """
    if path.is_dir():
        shards = _ordered(p for p in path.iterdir() if p.is_file())
        yield shards[:1] if first else shards
    elif not path.is_file():
        raise FileMissing("no such file or folder", where=str(path), remedy="check the path")
    elif is_tar(path):
        with TemporaryDirectory(dir=scratch, prefix="shards-") as folder:
            _unpack(path, Path(folder), first=first)
            yield _ordered(Path(folder).iterdir())
    else:
        yield []


def _unpack(path: Path, folder: Path, *, first: bool) -> None:
    """Take the shards out of a tar, whatever folders they lie in; nothing else is written."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if not member.isfile() or _trixel(name) is None:
                    continue
                member.name = name
                archive.extract(member, folder, filter="data")
                if first:
                    break
    except _TAR_ERRORS as error:
        raise BadCatalog(f"not a readable tar: {error}", where=str(path), remedy="copy it again") from error


def _trixel(name: str) -> int | None:
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match and is_trixel(int(match[1])) else None


def _ordered(paths: Iterable[Path]) -> list[Path]:
    return sorted((p for p in paths if _trixel(p.name) is not None), key=lambda p: (_trixel(p.name) or 0, p.name))
