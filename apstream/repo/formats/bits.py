"""Bit planes: which of many things are true of every pixel, packed into 32 bits each, compressed without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from apstream.errors import BadFile
from apstream.repo.formats.hdus import open_fits

__all__ = ["read_bits", "write_bits"]


def write_bits(path: Path, value: Any) -> None:
    """Write planes of bits, shape (n, ny, nx), uint32; TypeError for others."""
    if value.ndim != 3 or value.dtype != np.uint32:
        raise TypeError(f"planes of bits are 3-D uint32, not {value.ndim}-D {value.dtype}")
    plane = (1, *value.shape[1:])
    # Not GZIP: it writes the time of day into the file, and the same value would not give the same bytes.
    packed = fits.CompImageHDU(value.view(np.int32), name="BITS", compression_type="RICE_1", tile_shape=plane)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path, overwrite=True)


def read_bits(path: Path) -> NDArray[np.uint32]:
    """Read planes of bits; BadFile if the file holds none."""
    with open_fits(path) as hdus:
        if "BITS" not in hdus or hdus["BITS"].data.ndim != 3:
            raise BadFile("no planes of bits in the file", where=str(path), remedy="name an input map")
        return np.ascontiguousarray(hdus["BITS"].data, np.int32).view(np.uint32)
