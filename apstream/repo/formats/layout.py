"""The files of our own FITS layout: one HDU read where it lies, all of them written in one go.

Headers are parsed and made by astropy. Finding HDUs and moving pixels is done here, because through astropy a
header costs three times as much and a box of pixels the whole image.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from astropy.io import fits

from apstream.arrays.types import Records
from apstream.errors import BadFile
from apstream.model.cards import exact_header
from apstream.repo.formats.hdus import file_name, open_binary, readable

__all__ = ["FORMAT_VERSION", "Hdu", "OurFits", "RecordsHdu", "open_ours", "records_hdu", "write_ours"]

#: Version of the layout; readers refuse a newer one. 2: exact floats, PSF in float64, APSBYTES, information as JSON.
FORMAT_VERSION = 2

_BLOCK = 2880
_CHUNK = 1 << 18
_LETTERS = {"L": "?", "I": "i2", "J": "i4", "K": "i8", "E": "f4", "D": "f8"}
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True, slots=True)
class Hdu:
    """Header of an HDU, where its data begin in the file, how many bytes they are, and their shape in numpy's order."""

    header: fits.Header
    start: int
    size: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RecordsHdu:
    """A table to be written."""

    header: fits.Header
    data: Records


def records_hdu(name: str, rows: Records) -> RecordsHdu:
    """Return the table HDU of a structured array."""
    return RecordsHdu(fits.BinTableHDU(rows, name=name).header, rows)


class OurFits:
    """An open file of our layout; reads the headers and pixels that are asked for and no others.

    Parameters
    ----------
    file
        Seekable, open for reading; it is neither closed nor wrapped.

    Raises
    ------
    BadFile
        If it is no file of ours, of a newer layout, or shorter than it was written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.where = file, file_name(file)
        self._end = file.seek(0, os.SEEK_END)
        self._next = 0
        self._known: dict[str, Hdu] = {}
        self.header = self._advance().header
        self._check()

    def hdu(self, name: str) -> Hdu:
        """Return an HDU by name; LookupError if the file has none."""
        while name not in self._known:
            if self._next >= self._end:
                raise LookupError(f"no HDU {name}")
            self._advance()
        return self._known[name]

    def array(self, name: str, rows: tuple[int, int] | None = None, columns: slice = slice(None)) -> Any:
        """Return the array of an image HDU in native bytes, or its rows [rows[0], rows[1]) and `columns` alone."""
        hdu = self.hdu(name)
        first, last = rows or (0, hdu.shape[0])
        return self._rows(hdu, range(first, last), columns)

    def thinned(self, name: str, step: int) -> Any:
        """Return every `step`-th pixel of an image HDU along both axes, of which no other rows are read."""
        hdu = self.hdu(name)
        return self._rows(hdu, range(0, hdu.shape[0], step), slice(None, None, step))

    def _rows(self, hdu: Hdu, rows: range, columns: slice) -> Any:
        # bytes are turned while they are still in the processor's cache
        stored = np.dtype(_TYPES[hdu.header["BITPIX"]])
        width = range(*columns.indices(hdu.shape[1])) if len(hdu.shape) == 2 else None
        shape = hdu.shape[1:] if width is None else (len(width),)
        values = np.empty((len(rows), *shape), stored.newbyteorder("="))
        stride = hdu.size // hdu.shape[0] if hdu.shape[0] else 0
        together = max(1, _CHUNK // max(stride, 1)) if rows.step == 1 else 1
        chunk = np.empty((min(together, len(rows)), *hdu.shape[1:]), stored)
        for done in range(0, len(rows), together):
            part = chunk[: len(rows) - done]
            self._fill(hdu.start + rows[done] * stride, part)
            values[done : done + len(part)] = part if width is None else part[:, columns]
        return values

    def has(self, name: str) -> bool:
        """Tell whether the file has an HDU of that name."""
        try:
            self.hdu(name)
        except LookupError:
            return False
        return True

    def records(self, name: str, dtype: np.dtype[np.void] | None = None) -> Records:
        """Return the rows of a table HDU; with `dtype`, only if its columns are those."""
        hdu = self.hdu(name)
        columns = range(1, hdu.header["TFIELDS"] + 1)
        names = [hdu.header[f"TTYPE{number}"] for number in columns]
        if dtype is None:
            letters = [hdu.header[f"TFORM{number}"] for number in columns]
            dtype = np.dtype([(n, _LETTERS[form.lstrip("1")]) for n, form in zip(names, letters, strict=True)])
        if names != list(dtype.names or ()) or hdu.header["NAXIS1"] != dtype.itemsize:
            raise ValueError(f"table {name} has other columns")
        stored = np.empty(hdu.header["NAXIS2"], [(n, _column_type(dtype[n])) for n in names])
        self._fill(hdu.start, stored)
        rows = np.empty(len(stored), dtype)
        for column in names:
            rows[column] = stored[column] == ord("T") if dtype[column].kind == "b" else stored[column]
        return rows

    def _advance(self) -> Hdu:
        self._file.seek(self._next)
        header = fits.Header.fromfile(self._file)
        start = self._file.tell()
        size = _data_bytes(header)
        hdu = Hdu(header, start, size, tuple(header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1)))
        self._next = start + -(-size // _BLOCK) * _BLOCK
        if size < 0 or self._next > self._end:
            raise self._truncated(self._next)
        self._known[str(header.get("EXTNAME", ""))] = hdu
        return hdu

    def _check(self) -> None:
        version = self.header.get("APSVERS")
        if not isinstance(version, int):
            raise BadFile("not a file of ours", where=self.where, remedy="use a file written by apstream")
        if version > FORMAT_VERSION:
            message = f"layout {version} is newer than {FORMAT_VERSION}"
            raise BadFile(message, where=self.where, remedy="upgrade apstream")
        written = self.header.get("APSBYTES", self._end)
        if written != self._end:
            raise self._truncated(written)

    def _truncated(self, expected: int) -> BadFile:
        message = f"truncated or damaged: {self._end} bytes where {expected} were written"
        return BadFile(message, where=self.where, remedy="copy or reduce it again")

    def _fill(self, start: int, values: Any) -> None:
        if values.size == 0:
            return
        self._file.seek(start)
        rest = memoryview(values).cast("B")
        while rest:
            count = self._file.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise self._truncated(start + values.nbytes)
            rest = rest[count:]


@contextmanager
def open_ours(source: Path | str | BinaryIO) -> Iterator[OurFits]:
    """Open a file of our layout by path, or take one that is open already (which stays open).

    Raises
    ------
    FileMissing
        If there is no such file.
    BadFile
        If it is not ours, newer, truncated or damaged, also where that shows only inside the block.
    """
    with open_binary(source) as file, readable(file_name(file)):
        packed = isinstance(source, Path | str) and str(source).endswith(".gz")
        yield OurFits(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file)


def write_ours(path: Path, header: fits.Header, hdus: Sequence[Any]) -> None:
    """Write a file of our layout, plainly, at `path`.

    Parameters
    ----------
    header
        Cards of the primary HDU; layout version and size of the file are added.
    hdus
        Image HDUs of astropy, whose arrays are not changed, and tables made by `records_hdu`.
    """
    primary = fits.PrimaryHDU(header=header).header
    primary.set("APSVERS", FORMAT_VERSION, "version of the layout", after="APSTYPE")
    primary.set("APSBYTES", 0, "[byte] size of the whole file", after="APSVERS")
    texts = [_text(primary), *(_text(hdu.header) for hdu in hdus)]
    payloads = [_payload(hdu.data) for hdu in hdus]
    primary["APSBYTES"] = sum(map(len, texts)) + sum(-(-p.nbytes // _BLOCK) * _BLOCK for p in payloads)
    texts[0] = _text(primary)
    with path.open("wb", buffering=0) as file:
        file.write(texts[0])
        for text, payload in zip(texts[1:], payloads, strict=True):
            file.write(text)
            _write_array(file, payload)


def _text(header: fits.Header) -> bytes:
    return bytes(exact_header(header).tostring().encode("ascii"))


def _payload(values: Any) -> Any:
    """Return an array whose bytes, turned to big-endian, are those of the file."""
    names = values.dtype.names
    if names is None:
        return np.atleast_1d(values)
    stored = np.empty(len(values), [(n, _column_type(values.dtype[n])) for n in names])
    for name in names:
        column = values[name]
        stored[name] = np.where(column, ord("T"), ord("F")) if column.dtype.kind == "b" else column
    return stored.view(np.uint8)


def _write_array(file: Any, values: Any) -> None:
    flat = values.reshape(-1)
    step = _CHUNK // flat.itemsize
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        file.write(part.astype(part.dtype.newbyteorder(">")))
    file.write(bytes(-flat.nbytes % _BLOCK))


def _column_type(kind: np.dtype[Any]) -> np.dtype[Any]:
    # FITS writes logical values as the letters T and F
    return np.dtype("u1") if kind.kind == "b" else kind.newbyteorder(">")


def _data_bytes(header: fits.Header) -> int:
    axes = [header[f"NAXIS{axis}"] for axis in range(1, header["NAXIS"] + 1)]
    if not axes:
        return 0
    count = header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + int(np.prod(axes, dtype=object)))
    return abs(int(header["BITPIX"])) // 8 * int(count)
