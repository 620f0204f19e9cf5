"""Write what the simulator makes: FITS files and Parquet tables, the same bytes for the same content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from astropy.io import fits

from apstream.arrays.types import Records
from apstream.errors import StorageUnavailable

__all__ = ["write_fits", "write_table", "write_yaml"]


def write_fits(path: Path, array: np.ndarray[Any, Any], cards: Mapping[str, Any]) -> None:
    """Write one image with header cards; a value may be (value, comment). No dates, no versions.

    Raises
    ------
    StorageUnavailable
        If the file cannot be written.
    """
    hdu = fits.PrimaryHDU(array)
    for key, value in cards.items():
        hdu.header[key] = value
    with _whole(path) as temporary:
        hdu.writeto(temporary, overwrite=True)


def write_table(
    path: Path, rows: Records | Sequence[Mapping[str, Any]], units: Mapping[str, str] | None = None
) -> None:
    """Write a structured array or a list of rows as Parquet; `units` go into the columns' metadata."""
    if isinstance(rows, np.ndarray):
        assert rows.dtype.names is not None
        columns = {name: pa.array(np.ascontiguousarray(rows[name])) for name in rows.dtype.names}
        table = pa.table(columns)
    else:
        table = pa.Table.from_pylist([dict(row) for row in rows])
    if units:
        described = [f.with_metadata({"unit": units[f.name]}) if f.name in units else f for f in table.schema]
        table = table.cast(pa.schema(described))
    with _whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_yaml(path: Path, content: Mapping[str, Any], comment: str = "") -> None:
    """Write a mapping as YAML under a comment."""
    words = "".join(f"# {line}\n" for line in comment.splitlines())
    with _whole(path) as temporary:
        temporary.write_text(words + yaml.safe_dump(dict(content), sort_keys=False, width=110))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside `path` that becomes it at the end; StorageUnavailable leaves nothing behind."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise StorageUnavailable(f"cannot write: {reason}", where=str(path), remedy="free or choose a disk") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
