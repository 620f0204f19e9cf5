"""Opening FITS files: every way a file can be broken becomes one typed error."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from apstream.arrays.types import F32, IntArray
from apstream.errors import BadFile, FileMissing

__all__ = ["file_name", "float_image", "int_image", "open_binary", "open_fits", "readable"]


_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AstropyWarning,
    fits.VerifyError,
    zlib.error,
)
#: What astropy tells programmers to try, which no user of ours can.
_ADVICE = re.compile(r"[.,]? *(If this is really a FITS file, *)?try with ignore_missing_simple=True.*")


@contextmanager
def open_fits(source: Path | str | BinaryIO, *, memmap: bool = False) -> Iterator[fits.HDUList]:
    """Open a FITS file (compressed or not) for reading, by path or as an open file, which stays open.

    Mapped, the pieces of a long table are read when they are asked for.

    Raises
    ------
    FileMissing
        If there is no such file.
    BadFile
        If it is empty, truncated or not FITS, also where that shows only while reading inside the block.
    """
    with open_binary(source) as file, readable(file_name(file)):
        hdus = fits.open(file, memmap=memmap)
        try:
            yield hdus
        finally:
            hdus.close(closed=False)


@contextmanager
def open_binary(source: Path | str | BinaryIO) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; one that is open already is passed on and stays open.

    Raises
    ------
    FileMissing, BadFile
        If there is no such file, or it is empty.
    """
    if not isinstance(source, Path | str):
        yield source
        return
    path = Path(source)
    if not path.is_file():
        reason = "not a plain file" if path.exists() else "no such file"
        raise FileMissing(reason, where=str(path), remedy="check the path")
    if path.stat().st_size == 0:
        raise BadFile("the file is empty", where=str(path), remedy="copy it again")
    with path.open("rb") as file:
        yield file


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Make one typed error of every way in which a FITS file can be broken.

    Raises
    ------
    BadFile
        Naming `where`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*", category=AstropyWarning)
        try:
            yield
        except _FAULTS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = _ADVICE.sub("", reason)[:160]
            remedy = "copy or reduce it again"
            raise BadFile(f"not a readable FITS file: {reason}", where=where, remedy=remedy) from error


def file_name(file: Any) -> str:
    """Return what an open file calls itself: a path, a URL, or what kind of file it is."""
    for attribute in ("full_name", "name", "path"):
        if isinstance(name := getattr(file, attribute, None), str | Path):
            return str(name)
    return f"<{type(file).__name__}>"


def float_image(hdu: Any) -> F32:
    """Return an HDU's pixels as native float32."""
    return np.ascontiguousarray(hdu.data, dtype=np.float32)


def int_image(hdu: Any) -> IntArray:
    """Return an HDU's pixels as native int32."""
    return np.ascontiguousarray(hdu.data, dtype=np.int32)
