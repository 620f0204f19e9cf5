"""Raw frames in files, of which rows are read without the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from apstream.arrays.types import F32
from apstream.cameras import Camera
from apstream.errors import BadFile
from apstream.model.exposures import RawExposure
from apstream.repo.formats.raw import PixelLayout, pixel_layout, read_raw

__all__ = ["FileFrames", "open_frames"]


@dataclass(slots=True)
class FileFrames:
    """Raw frames in files; `RawFrames` for the tasks.

    Rows are read from where they lie. A compressed file is unpacked once, into `folder`. `names` are what frames are
    called, if not by their paths.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    camera: Camera
    detector: int | None
    folder: Path
    _layouts: dict[int, tuple[Path, PixelLayout]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def frame(self, index: int) -> RawExposure:
        """Return a whole frame, its origin being its name; errors as `read_raw`."""
        try:
            raw = read_raw(self.paths[index], self.camera, detector=self.detector)
        except BadFile as error:
            raise BadFile(error.message, where=self.names[index], remedy=error.remedy) from error
        return replace(raw, info=replace(raw.info, origin=self.names[index]))

    def rows(self, index: int, y0: int, y1: int) -> F32:
        """Return rows y0 to y1 (half-open) of the raw array of a frame, ADU; BadFile if the file ends before."""
        path, layout = self._layout(index)
        width = layout.shape[1]
        with open(path, "rb") as file:
            file.seek(layout.offset + y0 * width * layout.dtype.itemsize)
            pixels = np.fromfile(file, layout.dtype, (y1 - y0) * width)
        if pixels.size != (y1 - y0) * width:
            raise BadFile("the file ends before its pixels do", where=str(self.paths[index]), remedy="copy it again")
        values = pixels.reshape(y1 - y0, width).astype(np.float32)
        if layout.scale != 1:
            values *= np.float32(layout.scale)
        if layout.zero:
            values += np.float32(layout.zero)
        return values

    def _layout(self, index: int) -> tuple[Path, PixelLayout]:
        if index not in self._layouts:
            path = self.paths[index]
            layout = pixel_layout(path, self.camera, detector=self.detector)
            self._layouts[index] = (path, layout) if layout else self._unpacked(index)
        return self._layouts[index]

    def _unpacked(self, index: int) -> tuple[Path, PixelLayout]:
        pixels = self.frame(index).pixels
        path = self.folder / f"{index}.pixels"
        pixels.astype("<f4").tofile(path)
        shape = (pixels.shape[0], pixels.shape[1])
        return path, PixelLayout(offset=0, dtype=np.dtype("<f4"), shape=shape, scale=1.0, zero=0.0)


@contextmanager
def open_frames(
    paths: Sequence[Path], camera: Camera, *, detector: int | None = None, names: Sequence[str] = ()
) -> Iterator[FileFrames]:
    """Yield the frames of one detector in files; what was unpacked is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="apstream-") as folder:
        yield FileFrames(paths, names or [str(path) for path in paths], camera, detector, Path(folder))
