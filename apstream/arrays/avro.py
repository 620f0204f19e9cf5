"""Rows of a structured array as Avro bytes, all at once.

Avro's binary encoding: floats little-endian, integers zig-zag varints, strings with their length in front,
a nullable value (union with null first) with its branch in front. The plain equivalent is
`fastavro.schemaless_writer`, row by row; a history of 120 rows takes that 6 ms and this 0.05 ms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apstream.arrays.compiled import njit
from apstream.arrays.types import BoolArray, Records

__all__ = ["encode_rows"]

_Bytes = NDArray[np.uint8]
_Ints = NDArray[np.int64]

_FLOAT, _INTEGER, _BOOLEAN, _STRING = 0, 1, 2, 3
_CODES = {"f": _FLOAT, "i": _INTEGER, "b": _BOOLEAN, "U": _STRING}


def encode_rows(rows: Records, nullable: BoolArray) -> tuple[bytes, _Ints]:
    """Encode every row as an Avro record whose fields are the columns in order.

    Parameters
    ----------
    rows
        A structured array of floats, signed integers, booleans and strings.
    nullable : ndarray, shape (n_columns,)
        Columns that are unions with null; NaN, 0 and the empty string are written as null there.
        A boolean is never null.

    Returns
    -------
    data
        The records one after the other.
    edges : ndarray, shape (n + 1,)
        Row i is ``data[edges[i]:edges[i + 1]]``.
    """
    fields = [rows.dtype.fields[name] for name in rows.dtype.names or ()]  # type: ignore[index]
    code = np.array([_CODES[field[0].kind] for field in fields], np.int64)
    size = np.array([field[0].itemsize for field in fields], np.int64)
    start = np.array([field[1] for field in fields], np.int64)
    longest = int(np.sum(1 + np.where(code == _STRING, 10 + size, np.where(code == _INTEGER, 10, size))))
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
    out = np.empty(max(1, longest * len(rows)), np.uint8)
    edges = np.zeros(len(rows) + 1, np.int64)
    _encode(raw, code, start, size, nullable.astype(np.bool_), out, edges)
    return out[: edges[-1]].tobytes(), edges


@njit(cache=True, nogil=True)
def _encode(
    raw: _Bytes, code: _Ints, start: _Ints, size: _Ints, nullable: BoolArray, out: _Bytes, edges: _Ints
) -> None:  # pragma: no cover - compiled
    at = 0
    for i in range(raw.shape[0]):
        row = raw[i]
        for k in range(code.size):
            value = row[start[k] : start[k] + size[k]]
            if nullable[k] and code[k] != _BOOLEAN and _is_null(value, code[k]):
                out[at] = 0
                at += 1
                continue
            if nullable[k]:
                out[at] = 2
                at += 1
            if code[k] == _INTEGER:
                at = _put_varint(out, at, _integer(value))
            elif code[k] == _STRING:
                at = _put_string(out, at, value)
            else:
                for b in range(size[k]):
                    out[at + b] = value[b]
                at += size[k]
        edges[i + 1] = at


@njit(cache=True, nogil=True)
def _is_null(value: _Bytes, code: int) -> bool:  # pragma: no cover - compiled
    if code != _FLOAT:
        n = 4 if code == _STRING else value.size
        return not value[:n].any()
    n = value.size
    low = 0x80 if n == 4 else 0xF0  # exponent bits in the last byte but one
    if (value[n - 1] & 0x7F) != 0x7F or (value[n - 2] & low) != low:
        return False
    return bool(value[n - 2] & ~low & 0xFF) or bool(value[: n - 2].any())


@njit(cache=True, nogil=True)
def _integer(value: _Bytes) -> np.int64:  # pragma: no cover - compiled
    result = np.int64(0)
    for b in range(value.size):
        result |= np.int64(value[b]) << np.int64(8 * b)
    shift = np.int64(64 - 8 * value.size)
    return (result << shift) >> shift


@njit(cache=True, nogil=True)
def _put_varint(out: _Bytes, at: int, value: int | np.int64) -> int:  # pragma: no cover - compiled
    zigzag = np.uint64((value << 1) ^ (value >> 63))
    while zigzag >= np.uint64(128):
        out[at] = np.uint8(zigzag & np.uint64(127)) | np.uint8(128)
        zigzag >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(zigzag)
    return at + 1


@njit(cache=True, nogil=True)
def _code_point(value: _Bytes, k: int) -> np.int64:  # pragma: no cover - compiled
    v = np.int64(value[4 * k]) | (np.int64(value[4 * k + 1]) << 8)
    return v | (np.int64(value[4 * k + 2]) << 16) | (np.int64(value[4 * k + 3]) << 24)


@njit(cache=True, nogil=True)
def _put_string(out: _Bytes, at: int, value: _Bytes) -> int:  # pragma: no cover - compiled
    n = value.size // 4
    while n and _code_point(value, n - 1) == 0:
        n -= 1
    length = 0
    for k in range(n):
        point = _code_point(value, k)
        length += 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
    at = _put_varint(out, at, length)
    for k in range(n):
        point = _code_point(value, k)
        extra = (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
        lead = 0 if extra == 0 else (0xFF00 >> (extra + 1)) & 0xFF
        out[at] = lead | (point >> (6 * extra))
        for b in range(extra):
            out[at + 1 + b] = 0x80 | ((point >> (6 * (extra - 1 - b))) & 0x3F)
        at += 1 + extra
    return at
