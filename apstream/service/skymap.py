"""The sky map of a repository: made, found, and looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apstream.errors import BadSettings, Conflict, DatasetNotFound
from apstream.model.skymap import SkyMap
from apstream.model.tilings import Grid
from apstream.model.tract import SkyInfo, Tract
from apstream.pipeline.coadd_inputs import CoaddInput, covering_skymap
from apstream.repo.repository import Repository
from apstream.service.calexps import deferred_input
from apstream.service.choice import select_calexps
from apstream.service.coadd_settings import CoaddSettings
from apstream.words import counted

__all__ = [
    "PatchSeen",
    "SkyMapSettings",
    "all_patches",
    "around",
    "find_skymap",
    "is_new_skymap",
    "make_skymap",
    "patches_at",
    "patches_of",
    "require_skymap",
    "skymap_around",
    "skymap_settings",
]

#: What lies on the pixels of a sky map.
_MADE_ON_IT = ("deepCoadd", "directWarp", "psfMatchedWarp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSeen:
    """A patch, and how many of the exposures asked about lie on it; None if none was asked about."""

    info: SkyInfo
    exposures: int | None = None


class SkyMapSettings(BaseModel):
    """What ``apstream skymap`` is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["discrete", "rings", "healpix"] = Field(description="How tracts cover the sky")
    tracts: tuple[tuple[float, float, float], ...] = Field((), description="discrete: ra, dec and radius, degrees")
    num_rings: int = Field(120, description="rings: how many, between the caps")
    nside: int = Field(32, description="healpix: resolution")
    pixel_scale_arcsec: float | None = Field(None, gt=0, description="Default: of the calexps, or 0.2")
    patch_size: int = Field(4096, gt=63, description="Side of a patch, pixels")
    border: int = Field(128, ge=0, description="Overlap of a patch with its neighbours, pixels")
    overlap: float = Field(1 / 60, ge=0, description="rings, healpix: overlap of tracts, degrees")


def skymap_settings(**given: Any) -> SkyMapSettings:
    """Return the settings of a sky map; BadSettings names the option whose value is impossible."""
    try:
        return SkyMapSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).removesuffix("_arcsec").replace("_", "-")
        raise BadSettings(f"{option}: {first['msg']}", where="skymap", remedy="apstream skymap --help") from None


def find_skymap(repository: Repository) -> SkyMap | None:
    """Return the sky map of a repository or its parents, None if there is none."""
    if repository.entry("skymap", name="main") is None:
        return None
    found: SkyMap = repository.get("skymap", name="main")
    return found


def require_skymap(repository: Repository) -> SkyMap:
    """Return the sky map; DatasetNotFound if there is none."""
    found = find_skymap(repository)
    if found is None:
        remedy = "apstream skymap makes one, apstream coadd one around its exposures"
        raise DatasetNotFound("no location for skymap with name=main", where=repository.root, remedy=remedy)
    return found


def make_skymap(repository: Repository, settings: SkyMapSettings, words: Sequence[str] = ()) -> SkyMap:
    """Return the sky map that is asked for; a discrete one without tracts is made around the selected calexps.

    Raises
    ------
    BadSettings
        If a number is impossible.
    DatasetNotFound
        If it is to be made around calexps, and there is none.
    """
    scale = settings.pixel_scale_arcsec
    inputs: list[CoaddInput] = []
    if words or (settings.kind == "discrete" and not settings.tracts):
        inputs = [deferred_input(repository, job.id) for job in select_calexps(repository, words, "calexp")]
        scale = scale or float(np.median([item.wcs.pixel_scale_arcsec for item in inputs]))
    scale = scale or _scale_of_calexps(repository)
    grid: dict[str, Any] = {
        "pixel_scale_arcsec": scale or 0.2,
        "patch_size": settings.patch_size,
        "border": settings.border,
    }
    try:
        match settings.kind:
            case "rings":
                return SkyMap.rings(settings.num_rings, Grid(**grid, overlap=settings.overlap))
            case "healpix":
                return SkyMap.healpix(settings.nside, Grid(**grid, overlap=settings.overlap))
            case "discrete" if settings.tracts:
                return SkyMap.discrete([Tract.around(*one, **grid, id=k) for k, one in enumerate(settings.tracts)])
            case _:
                return covering_skymap(inputs, **grid)
    except ValueError as error:
        raise BadSettings(str(error), where="skymap", remedy="apstream skymap --help") from error


def _scale_of_calexps(repository: Repository) -> float:
    """Return the pixel scale of the first calexps, arcsec; 0.2 where there is none."""
    some = repository.find("calexp")[:9]
    scales = [repository.peek(entry, "wcs").pixel_scale_arcsec for entry in some]
    return float(np.median(scales)) if scales else 0.2


def is_new_skymap(repository: Repository, skymap: SkyMap, *, replace: bool = False) -> bool:
    """Tell whether a sky map is to be stored; it is not if the same is there already.

    Raises
    ------
    Conflict
        If there is another, unless it is to be replaced and nothing was made on it.
    """
    existing = find_skymap(repository)
    if existing is None or existing == skymap:
        return existing is None
    if not replace:
        message = f"there is another sky map: {existing.kind}, {counted(len(existing.tracts), 'tract')}"
        raise Conflict(message, where=repository.root, remedy="--replace takes its place where nothing was made on it")
    used = {name: repository.find(name) for name in _MADE_ON_IT}
    if any(used.values()):
        made = ", ".join(f"{len(found)} {name}" for name, found in used.items() if found)
        above = {entry.root for found in used.values() for entry in found} - {repository.root}
        here = "take another rerun, with --replace"
        remedy = f"they are of {min(above)}, which is read through here: take another repository" if above else here
        raise Conflict(f"{made} lie on the present sky map", where=repository.root, remedy=remedy)
    return True


def skymap_around(repository: Repository, inputs: Sequence[CoaddInput], settings: CoaddSettings) -> SkyMap:
    """Return the repository's sky map; if there is none, one around the inputs is made and stored."""
    existing = find_skymap(repository)
    if existing is not None:
        return existing
    skymap = around(inputs, settings)
    repository.put(skymap, "skymap", name="main")
    return skymap


def around(inputs: Sequence[CoaddInput], settings: CoaddSettings) -> SkyMap:
    """Return a sky map of one tract around exposures."""
    return covering_skymap(inputs, patch_size=settings.patch_size_pixel, border=settings.border_pixel)


def patches_of(skymap: SkyMap, inputs: Sequence[CoaddInput]) -> list[PatchSeen]:
    """Return the patches that exposures lie on, by their outlines, in order."""
    found: dict[tuple[int, int], int] = {}
    for item in inputs:
        for place in skymap.patches_under(item.wcs, item.box):
            found[place] = found.get(place, 0) + 1
    return [PatchSeen(info=skymap.sky_info(*place), exposures=found[place]) for place in sorted(found)]


def all_patches(skymap: SkyMap) -> list[PatchSeen]:
    """Return the patches of all tracts."""
    tracts = map(skymap.tract, skymap.tracts)
    return [PatchSeen(info=tract.sky_info(patch)) for tract in tracts for patch in range(tract.n_patches)]


def patches_at(skymap: SkyMap, ra: float, dec: float, radius: float) -> list[PatchSeen]:
    """Return the patches within `radius` degrees of a position, the one that it belongs to first."""
    (tract,), (patch,) = skymap.place(ra, dec)
    places = sorted(skymap.patches_at(ra, dec, radius), key=lambda place: (place != (tract, patch), place))
    return [PatchSeen(info=skymap.sky_info(*place)) for place in places]
