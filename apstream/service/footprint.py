"""Which templates lie under an exposure: found by circle, kept by outline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apstream.arrays.polygon import clip_polygon, polygon_area
from apstream.arrays.types import F64
from apstream.errors import NoTemplateOverlap
from apstream.model.geometry import Box
from apstream.model.products import SkyCircle
from apstream.model.wcs import SkyWcs
from apstream.repo.dataset_types import data_id_text
from apstream.repo.entries import Entry
from apstream.repo.repository import Repository

__all__ = ["Footprint", "overlap_fractions", "template_entries", "template_name"]

_STEPS = 16
#: Positions along each side by which the common coverage of several templates is counted.
_GRID = 64


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Footprint:
    """Where an exposure is, as far as that is known.

    Parameters
    ----------
    wcs
        None if there is none.
    box
        Its pixels, and as many around them as the WCS may be wrong.
    region
        Circle around them; None if not even the pointing is known.
    """

    wcs: SkyWcs | None
    box: Box
    region: SkyCircle | None

    @classmethod
    def of(cls, wcs: SkyWcs, box: Box, margin: float = 0.0) -> Footprint:
        """Return the footprint of pixels whose WCS may be wrong by `margin` degrees."""
        wider = box.grow(int(np.ceil(margin * 3600 / wcs.pixel_scale_arcsec)))
        ra, dec, radius = wcs.circle(box)
        return cls(wcs=wcs, box=wider, region=SkyCircle(ra, dec, radius + margin))


def template_entries(
    repository: Repository, footprint: Footprint, band: str, template_id: dict[str, int] | None, *, whom: str
) -> list[Entry]:
    """Return the coadd patches of a band (or the calexps that `template_id` names) that lie under an exposure.

    Raises
    ------
    NoTemplateOverlap
        If there is none; names `whom`.
    """
    kind, region = "calexp" if template_id else "deepCoadd", footprint.region
    known: dict[str, Any] = {**template_id} if template_id else {"band": band}
    entries = repository.overlapping(kind, region, **known) if region else repository.find(kind, **known)
    if footprint.wcs is not None:
        entries = [entry for entry in entries if _outline(repository, entry, footprint)]
    if not entries:
        raise NoTemplateOverlap(
            f"no location for {kind} that covers {whom} band={band}",
            remedy="make one with apstream coadd, or name a calexp with --template-id visit=N",
        )
    return entries


def template_name(entry: Entry) -> str:
    """Return what users call a template: a coadd is known by tract and patch, not by an exposure."""
    return f"{entry.type} {data_id_text(entry.data_id)}"


def overlap_fractions(
    repository: Repository, entries: Sequence[Entry], footprint: Footprint
) -> tuple[list[float], float]:
    """Return which fraction of the exposure each template lies under, by outlines, and all together; NaN: no WCS."""
    box = footprint.box
    if footprint.wcs is None:
        return [float("nan")] * len(entries), float("nan")
    ys, xs = (np.linspace(a, b - 1, _GRID) for a, b in ((box.y0, box.y1), (box.x0, box.x1)))
    ra, dec = footprint.wcs.pixel_to_sky(*(v.ravel() for v in np.meshgrid(ys, xs, indexing="ij")))
    under = []
    for entry in entries:
        wcs, own = _place(repository, entry)
        under.append(own.contains(*wcs.sky_to_pixel(ra, dec)))
    return [float(one.mean()) for one in under], float(np.any(under, axis=0).mean())


def _outline(repository: Repository, entry: Entry, footprint: Footprint) -> bool:
    """Tell whether a template has a part of the exposure; it does where its outline cannot be followed."""
    assert footprint.wcs is not None
    wcs, own = _place(repository, entry)
    y, x = footprint.wcs.sky_to_pixel(*wcs.pixel_to_sky(*own.outline(_STEPS)))
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        return True
    return _area_within(y, x, footprint.box) > 0


def _area_within(y: F64, x: F64, box: Box) -> float:
    return polygon_area(*clip_polygon(y, x, (box.y0 - 0.5, box.x0 - 0.5), (box.y1 - 0.5, box.x1 - 0.5)))


def _place(repository: Repository, entry: Entry) -> tuple[SkyWcs, Box]:
    return repository.peek(entry, "wcs"), repository.peek(entry, "box")
