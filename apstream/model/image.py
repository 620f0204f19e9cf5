"""An image with its mask and variance, one box, one unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apstream.arrays.types import F32, F64, BoolArray, IntArray
from apstream.model.geometry import Box

__all__ = ["MaskedImage"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MaskedImage:
    """Pixels, mask and variance on one box.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Pixel values in `unit`.
    mask : ndarray, shape (ny, nx), int32
        Bits of `MaskPlane`; a set bit means flagged.
    variance : ndarray, shape (ny, nx), float32
        Variance in the square of `unit`.
    unit
        ``adu``, ``electron`` or ``nJy``.
    box
        Where the pixels lie; defaults to an origin of (0, 0).

    Raises
    ------
    ValueError
        If the shapes differ.
    """

    image: F32
    mask: IntArray
    variance: F32
    unit: str
    box: Box

    def __post_init__(self) -> None:
        shapes = {self.image.shape, self.mask.shape, self.variance.shape, self.box.shape}
        if len(shapes) != 1 or self.image.ndim != 2:
            raise ValueError(
                f"image {self.image.shape}, mask {self.mask.shape}, variance {self.variance.shape} "
                f"and box {self.box.shape} must have one 2-D shape"
            )

    @classmethod
    def make(
        cls, image: F32, mask: IntArray, variance: F32, unit: str, box: Box | None = None
    ) -> MaskedImage:
        """Make a masked image, converting to float32 and int32 where needed."""
        image = np.asarray(image, np.float32)
        return cls(
            image=image,
            mask=np.asarray(mask, np.int32),
            variance=np.asarray(variance, np.float32),
            unit=unit,
            box=box or Box.from_shape(image.shape),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.box.shape

    def flagged(self, bits: int) -> BoolArray:
        """Return True where any of `bits` is set."""
        return np.asarray((self.mask & bits) != 0)

    def cutout(self, box: Box) -> MaskedImage:
        """Return the part inside `box` (views, not copies); the box must lie inside."""
        part = box.slices(self.box)
        return replace(
            self, image=self.image[part], mask=self.mask[part], variance=self.variance[part], box=box
        )

    def scaled(self, factor: float | F64, unit: str) -> MaskedImage:
        """Return the image multiplied by `factor`, one or one for each pixel, in `unit`."""
        f = np.asarray(factor, np.float32)
        return replace(self, image=self.image * f, variance=self.variance * (f * f), unit=unit)

    def with_image(self, image: F32) -> MaskedImage:
        """Return a copy with other pixel values."""
        return replace(self, image=np.asarray(image, np.float32))

    def with_mask(self, mask: IntArray) -> MaskedImage:
        """Return a copy with another mask."""
        return replace(self, mask=np.asarray(mask, np.int32))

    def with_variance(self, variance: F32) -> MaskedImage:
        """Return a copy with another variance."""
        return replace(self, variance=np.asarray(variance, np.float32))
