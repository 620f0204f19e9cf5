"""Opening FITS files: every way a file can be broken becomes one typed error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from apstream.arrays.types import F32, IntArray
from apstream.errors import BadFile, FileMissing

__all__ = ["float_image", "int_image", "open_fits"]


@contextmanager
def open_fits(path: Path | str) -> Iterator[fits.HDUList]:
    """Open a FITS file (compressed or not) for reading.

    Raises
    ------
    FileMissing
        If there is no such file.
    BadFile
        If it is empty, truncated or not FITS, also where that shows only while reading inside the block.
    """
    path = Path(path)
    if not path.is_file():
        reason = "not a plain file" if path.exists() else "no such file"
        raise FileMissing(reason, where=str(path), remedy="check the path")
    if path.stat().st_size == 0:
        raise BadFile("the file is empty", where=str(path), remedy="copy it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*", category=AstropyWarning)
        try:
            with fits.open(path, memmap=False) as hdus:
                yield hdus
        except (OSError, EOFError, ValueError, TypeError, LookupError, AstropyWarning, fits.VerifyError) as error:
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise BadFile(
                f"not a readable FITS file: {reason}", where=str(path), remedy="copy or reduce it again"
            ) from error


def float_image(hdu: Any) -> F32:
    """Return an HDU's pixels as native float32."""
    return np.ascontiguousarray(hdu.data, dtype=np.float32)


def int_image(hdu: Any) -> IntArray:
    """Return an HDU's pixels as native int32."""
    return np.ascontiguousarray(hdu.data, dtype=np.int32)
