"""Assemblers, disassemblers and combiners that policies can name, and the contract of a user's own.

An assembler is called with the data id, the components by name, and the target class (None if the policy names
none); it returns the object. A disassembler is called with the object, the data id and the component names; it
returns the components by name, None for one that is not to be written. A combiner is called with the data ids
and the values of all datasets found.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from apstream.errors import BadSettings
from apstream.model.exposures import CalExp, scaled_stars
from apstream.model.measurements import scaled_measured
from apstream.model.photocalib import PhotoCalib

__all__ = [
    "Assembler",
    "Combiner",
    "Disassembler",
    "attributes",
    "check_names",
    "concatenate",
    "construct",
    "exposure",
    "exposure_parts",
    "getters",
    "set_attributes",
    "setters",
]

DataId = Mapping[str, Any]
Assembler = Callable[[DataId, Mapping[str, Any], Any], Any]
Disassembler = Callable[[Any, DataId, Sequence[str]], Mapping[str, Any]]
Combiner = Callable[[Sequence[DataId], Sequence[Any]], Any]

#: Names that the calexp itself may have among the components of an exposure.
_BASES = ("calexp", "exposure", "base")


def construct(data_id: DataId, components: Mapping[str, Any], cls: Any) -> Any:
    """Make the class with the components as keyword arguments; a plain mapping without a class."""
    return dict(components) if cls is None else cls(**components)


def set_attributes(data_id: DataId, components: Mapping[str, Any], cls: Any) -> Any:
    """Make an empty object and set each component as an attribute."""
    made = _required(cls, "set_attributes")()
    for name, value in components.items():
        setattr(made, name, value)
    return made


def setters(data_id: DataId, components: Mapping[str, Any], cls: Any) -> Any:
    """Make an empty object and call ``set_NAME(value)`` for each component."""
    made = _required(cls, "setters")()
    for name, value in components.items():
        getattr(made, f"set_{name}")(value)
    return made


def attributes(value: Any, data_id: DataId, names: Sequence[str]) -> Mapping[str, Any]:
    """Take each component from the attribute of its name; one that the object lacks is left out."""
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def getters(value: Any, data_id: DataId, names: Sequence[str]) -> Mapping[str, Any]:
    """Take each component from ``get_NAME()``; one that the object lacks is left out."""
    return {name: getattr(value, f"get_{name}")() for name in names if hasattr(value, f"get_{name}")}


def exposure(data_id: DataId, components: Mapping[str, Any], cls: Any) -> CalExp:
    """Lay components (wcs, calib, psf, mask, ...) over the calexp among them, whatever the class.

    A new photometric calibration rescales pixels, variance and star fluxes, which are in nJy by the old one.
    """
    names = [name for name, value in components.items() if isinstance(value, CalExp)]
    if len(names) != 1:
        raise BadSettings(f"exposure() needs one calexp among its components, not {len(names)}")
    base: CalExp = components[names[0]]
    others = {_field(name): value for name, value in components.items() if name != names[0] and value is not None}
    calib, mask = others.pop("photo_calib", None), others.pop("mask", None)
    if mask is not None:
        others["image"] = others.get("image", base.image).with_mask(mask)
    made: CalExp = dataclasses.replace(base, **others)
    return made if calib is None else _recalibrated(made, calib)


def exposure_parts(value: CalExp, data_id: DataId, names: Sequence[str]) -> Mapping[str, Any]:
    """Take an exposure apart into the components that `exposure` lays over a calexp."""
    parts = {name: value if name in _BASES else None for name in names}
    parts |= {name: getattr(value, _field(name)) for name in names if name not in (*_BASES, "mask")}
    return parts | ({"mask": value.image.mask} if "mask" in names else {})


def concatenate(data_ids: Sequence[DataId], values: Sequence[Any]) -> Any:
    """Join tables (pyarrow or numpy records) below each other, with the data ids as columns of Arrow tables."""
    if all(isinstance(value, pa.Table) for value in values):
        return pa.concat_tables(
            [_with_keys(value, data_id) for data_id, value in zip(data_ids, values, strict=True)],
            promote_options="default",
        )
    return np.concatenate(list(values))


def check_names(assembler: Assembler, cls: Any, names: Sequence[str]) -> str:
    """Return what is wrong with component names for an assembler of this module, empty if nothing is."""
    if assembler in (set_attributes, setters) and cls is None:
        return f"{assembler.__name__} needs a class"
    if assembler is construct and cls is not None:
        return _unknown(names, _parameters(cls), f"{cls.__name__} takes no")
    if assembler is setters:
        offered = [name.removeprefix("set_") for name in dir(cls) if name.startswith("set_")]
        return _unknown(names, offered, f"{cls.__name__} has no setter for")
    if assembler is exposure:
        fields = [field.name for field in dataclasses.fields(CalExp)]
        return _unknown(names, [*fields, "calib", "mask", *_BASES], "an exposure has no")
    return ""


def _parameters(cls: Any) -> Iterable[str] | None:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _unknown(names: Sequence[str], known: Iterable[str] | None, what: str) -> str:
    if known is None:
        return ""
    offered = list(known)
    for name in names:
        if name not in offered:
            near = difflib.get_close_matches(name, offered, n=3) or sorted(offered)
            return f"{what} {name!r}; did you mean {', '.join(near)}?"
    return ""


def _field(component: str) -> str:
    return "photo_calib" if component == "calib" else component


def _required(cls: Any, name: str) -> Any:
    if cls is None:
        raise BadSettings(f"the assembler {name} needs a class", remedy="add 'class: MODULE:NAME' to the policy")
    return cls


def _recalibrated(image: CalExp, calib: PhotoCalib) -> CalExp:
    old, box = image.photo_calib, image.box
    factor = np.asarray(calib.scale_over(box)) / np.asarray(old.scale_over(box))
    y, x = image.stars["y"], image.stars["x"]
    at_stars = calib.scale_at(y, x) / old.scale_at(y, x)
    return dataclasses.replace(
        image,
        image=image.image.scaled(factor, "nJy"),
        stars=scaled_stars(image.stars, at_stars),
        measured=scaled_measured(image.measured, at_stars),
        photo_calib=calib,
    )


def _with_keys(table: pa.Table, data_id: DataId) -> pa.Table:
    for key, value in data_id.items():
        if key not in table.column_names:
            table = table.append_column(key, pa.array([value] * len(table)))
    return table
