"""The inputs of a coadd as a table, beside the map that says which of them each pixel has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from apstream.model.summary import CalExpSummary
from apstream.model.tract import Tract
from apstream.pipeline.coadds import CoaddPatch
from apstream.pipeline.warps import reach_on

__all__ = ["INPUT_COLUMNS", "inputs_table"]

#: Columns, their types, units and what they are.
INPUT_COLUMNS: tuple[tuple[str, pa.DataType, str, str], ...] = (
    ("bit", pa.int32(), "", "Its bit in the input map: bit % 32 of plane bit // 32; -1 for what was not used"),
    ("name", pa.string(), "", "Its name"),
    ("visit", pa.int64(), "", "Visit"),
    ("detector", pa.int32(), "", "Detector, of a warp the first one"),
    ("weight", pa.float64(), "nJy-2", "Its weight"),
    ("scale", pa.float64(), "", "What its pixels were multiplied by"),
    ("noise", pa.float64(), "nJy", "Noise of a pixel of it, from its clipped mean variance"),
    ("psf_fwhm", pa.float32(), "arcsec", "Width of its PSF as it came, in its middle"),
    ("x0", pa.int32(), "pixel", "Pixels of the tract that it reaches on this patch, half-open"),
    ("y0", pa.int32(), "pixel", ""),
    ("x1", pa.int32(), "pixel", ""),
    ("y1", pa.int32(), "pixel", ""),
    ("reason", pa.string(), "", "Why it was not used; empty if it was"),
)


def inputs_table(made: CoaddPatch, about: Sequence[CalExpSummary], tract: Tract) -> pa.Table:
    """Return a row for each input, those that were used first, in the order of their bits.

    Parameters
    ----------
    about
        What is known of the inputs that were offered, in any order.
    """
    coadd, known = made.coadd, {str(one.info.id): one for one in about}
    rows = [
        _row(known[name], tract, made, bit=bit, weight=weight, scale=scale)
        for bit, (name, weight, scale) in enumerate(zip(coadd.inputs, coadd.weights, coadd.scales, strict=True))
    ]
    reasons = {one.name: one.reason for one in coadd.skipped}
    for row in rows:
        row["reason"] = reasons.pop(row["name"], "")
    rows += [{**_row(known[name], tract, made), "reason": reason} for name, reason in reasons.items()]
    fields = [
        pa.field(name, kind, metadata={"unit": unit, "description": text}) for name, kind, unit, text in INPUT_COLUMNS
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _row(
    one: CalExpSummary,
    tract: Tract,
    made: CoaddPatch,
    *,
    bit: int = -1,
    weight: float = float("nan"),
    scale: float = float("nan"),
) -> dict[str, Any]:
    box = reach_on(tract, one.wcs, one.box).intersect(made.calexp.box)
    width = one.metrics.get("warp.fwhm_arcsec", one.psf.fwhm() * one.wcs.pixel_scale_arcsec)
    place = {"x0": box.x0, "y0": box.y0, "x1": box.x1, "y1": box.y1}
    return {
        "bit": bit,
        "name": str(one.info.id),
        "visit": one.info.id.visit,
        "detector": one.info.id.detector,
        "weight": weight,
        "scale": scale,
        "noise": float(1 / np.sqrt(weight)),
        "psf_fwhm": width,
        **place,
    }
