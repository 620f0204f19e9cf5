"""What stands beside a reduced image: its weight or variance, and its mask, each in a sibling file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apstream.arrays.types import IntArray
from apstream.cameras.headers import Header
from apstream.model.mask import MaskPlane, planes

__all__ = ["CompanionSpec", "CompanionsSpec", "HeaderMatch", "MaskSpec"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CompanionSpec(_Spec):
    """Where one companion is found."""

    replace: tuple[str, str] = Field(description="What in the image's file name becomes what.")
    required: bool = Field(True, description="Refuse an image without it; false: go on without.")

    @field_validator("replace")
    @classmethod
    def _differ(cls, value: tuple[str, str]) -> tuple[str, str]:
        if not value[0] or value[0] == value[1]:
            raise ValueError("say what is replaced, and by something else")
        return value

    def sibling(self, name: str) -> str | None:
        """Return the companion's file name; None if `name` does not hold what is to be replaced."""
        old, new = self.replace
        return name.replace(old, new) if old in name else None


class HeaderMatch(_Spec):
    """A condition on the header of the image."""

    keyword: str
    match: str = Field(description="Regular expression on the whole value.")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    def holds(self, header: Header) -> bool:
        """Return whether the header has the value."""
        return re.fullmatch(self.match, str(header.get(self.keyword, "")).strip()) is not None


class MaskSpec(CompanionSpec):
    """A mask of codes (one reason per pixel) or of bits; what is not listed is BAD, an empty list means good."""

    codes: dict[int, tuple[str, ...]] = Field(default_factory=dict, description="Value to mask planes.")
    bits: dict[int, tuple[str, ...]] = Field(default_factory=dict, description="Bit (1, 2, 4, ...) to mask planes.")
    bits_where: HeaderMatch | None = Field(None, description="Headers whose mask has bits, if others have codes.")

    @field_validator("codes", "bits", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: (item,) if isinstance(item, str) else item for key, item in value.items()}

    @field_validator("codes", "bits")
    @classmethod
    def _known(cls, value: dict[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
        for names in value.values():
            planes(*names)
        return value

    @model_validator(mode="after")
    def _one_meaning(self) -> MaskSpec:
        if any(bit <= 0 or bit & (bit - 1) for bit in self.bits):
            raise ValueError("a bit is a power of two")
        if bool(self.codes) and bool(self.bits) != (self.bits_where is not None):
            raise ValueError("codes and bits together need bits_where")
        return self

    def decode(self, values: IntArray, header: Header) -> IntArray:
        """Return our mask planes for a file's mask values.

        Parameters
        ----------
        values : ndarray, shape (ny, nx), int
            As in the file; 0 is good.
        header
            Of the image; decides between codes and bits.
        """
        as_bits = bool(self.bits) and (self.bits_where is None or self.bits_where.holds(header))
        found, inverse = np.unique(values, return_inverse=True)
        meaning = [self._of_bits(int(v)) if as_bits else self._of_code(int(v)) for v in found]
        return np.asarray(np.array(meaning, np.int32)[inverse].reshape(values.shape))

    def _of_code(self, value: int) -> int:
        return planes(*self.codes.get(value, () if value == 0 else (MaskPlane.BAD.name or "",)))

    def _of_bits(self, value: int) -> int:
        known = sum(self.bits)
        listed = [name for bit, names in self.bits.items() if value & bit for name in names]
        return planes(*listed) | (int(MaskPlane.BAD) if value & ~known else 0)


class CompanionsSpec(_Spec):
    """The companions of a camera's images; all are optional."""

    weight: CompanionSpec | None = Field(None, description="Inverse variance, in 1 / (the image's unit)^2.")
    variance: CompanionSpec | None = Field(None, description="Variance, in the image's unit squared.")
    mask: MaskSpec | None = Field(None, description="Which pixels are bad, and why.")

    @model_validator(mode="after")
    def _one_noise(self) -> CompanionsSpec:
        if self.weight and self.variance:
            raise ValueError("give weight or variance, not both")
        return self

    def items(self) -> dict[str, CompanionSpec]:
        """Return the companions there are, by kind."""
        kinds = {"weight": self.weight, "variance": self.variance, "mask": self.mask}
        return {kind: spec for kind, spec in kinds.items() if spec is not None}
