"""What is known of the amplifiers of a detector, as plain values by name: crosstalk, linearity, photon transfer."""

from __future__ import annotations

from typing import Any

import numpy as np

from apstream.arrays.types import F64
from apstream.model.crosstalk import Crosstalk
from apstream.model.linearity import Linearity
from apstream.model.transfer import PhotonTransfer

__all__ = ["crosstalk_from", "crosstalk_to", "linearity_from", "linearity_to", "transfer_from", "transfer_to"]

_TRANSFER = ("gain", "gain_err", "read_noise", "turnoff_adu", "a00")


def crosstalk_to(value: Crosstalk) -> dict[str, Any]:
    """Return amplifier names and one row of coefficients per victim."""
    rows = dict(zip(value.names, value.matrix.tolist(), strict=True))
    return {"amplifiers": list(value.names), "fraction_of_each_seen_in": rows}


def crosstalk_from(values: Any) -> Crosstalk:
    """Make crosstalk of what `crosstalk_to` gave."""
    names = tuple(str(name) for name in values["amplifiers"])
    rows = values["fraction_of_each_seen_in"]
    return Crosstalk(names, np.array([rows[name] for name in values["amplifiers"]], float))


def linearity_to(value: Linearity) -> dict[str, Any]:
    """Return amplifier names, and by name the polynomial (c2, c3, ...) or the table, and the limit."""
    return {
        "amplifiers": list(value.names),
        "kind": value.kind,
        "coefficients": {n: c.tolist() for n, c in zip(value.names, value.coefficients, strict=True)},
        "max_adu": dict(zip(value.names, value.max_adu, strict=True)),
    }


def linearity_from(values: Any) -> Linearity:
    """Make a linearity of what `linearity_to` gave; an amplifier without a limit has none."""
    given, limits = values["amplifiers"], values.get("max_adu", {})
    arrays: tuple[F64, ...] = tuple(np.array(values["coefficients"][name], float) for name in given)
    return Linearity(
        names=tuple(str(name) for name in given),
        kind=values["kind"],
        coefficients=arrays,
        max_adu=tuple(float(limits.get(name, np.inf)) for name in given),
    )


def transfer_to(value: PhotonTransfer) -> dict[str, Any]:
    """Return amplifier names, and by name the measured values of each."""
    rows = zip(*(getattr(value, key) for key in _TRANSFER), strict=True)
    measured = {name: dict(zip(_TRANSFER, row, strict=True)) for name, row in zip(value.names, rows, strict=True)}
    return {"amplifiers": list(value.names), "measured": measured}


def transfer_from(values: Any) -> PhotonTransfer:
    """Make a photon transfer of what `transfer_to` gave."""
    given, rows = values["amplifiers"], values["measured"]
    columns = {key: tuple(float(rows[name][key]) for name in given) for key in _TRANSFER}
    return PhotonTransfer(names=tuple(str(name) for name in given), **columns)
