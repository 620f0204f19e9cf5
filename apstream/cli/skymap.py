"""``apstream skymap``: make the sky map of a repository, or look things up in it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apstream.cli import making
from apstream.words import counted

_POSITION = "write RA,DEC or RA,DEC,RADIUS in degrees"
_KINDS = ("discrete", "rings", "healpix", "ls")


def skymap(
    root: making.Root,
    kind: Annotated[str, typer.Argument(help="discrete, rings or healpix make one; ls lists its patches")] = "ls",
    id: Annotated[
        list[str] | None,
        typer.Option("--id", help="Calexps: with discrete one tract is made around them, with ls they are looked up"),
    ] = None,
    tract: Annotated[list[str] | None, typer.Option(help="discrete: a tract, 'RA,DEC,RADIUS' in degrees")] = None,
    num_rings: Annotated[int, typer.Option(help="rings: how many, between the caps at the poles")] = 120,
    nside: Annotated[int, typer.Option(help="healpix: one tract for each pixel of this nside")] = 32,
    pixel_scale: Annotated[
        float | None, typer.Option(help="Arcsec per pixel; default: that of the calexps, or 0.2")
    ] = None,
    patch_size: Annotated[int, typer.Option(help="Side of a patch without its border, pixels")] = 4096,
    border: Annotated[int, typer.Option(help="How far a patch reaches into its neighbours, pixels")] = 128,
    overlap: Annotated[float, typer.Option(help="rings, healpix: how far tracts overlap, degrees")] = 1 / 60,
    at: Annotated[str, typer.Option(help="ls: only patches at 'RA,DEC' or within 'RA,DEC,RADIUS', degrees")] = "",
    rerun: making.Rerun = "",
    output: making.Output = "",
    replace: Annotated[bool, typer.Option(help="Replace a sky map on which nothing was made")] = False,
    show: Annotated[bool, typer.Option("--show", help="List the patches, of the one just made too")] = False,
) -> None:
    """Make the sky map of a repository: the tracts and patches that coadds are made on; or list its patches.

    apstream skymap REPO rings --num-rings 120 --pixel-scale 0.2
    apstream skymap REPO ls --at 150.1,2.2
    """
    from apstream.errors import BadSettings
    from apstream.repo.repository import Repository
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.skymap import is_new_skymap, make_skymap, require_skymap, skymap_settings

    if kind not in _KINDS:
        raise BadSettings(f"no kind of sky map {kind!r}", where="skymap", remedy=", ".join(_KINDS))
    places = BatchPlaces(root=root, rerun=rerun, output=output)
    products = Repository(root) if kind == "ls" and not (rerun or output) else places.open_output()
    if kind != "ls":
        chosen = skymap_settings(
            kind=kind,
            tracts=[_numbers(text, 3, "--tract") for text in tract or []],
            num_rings=num_rings,
            nside=nside,
            pixel_scale_arcsec=pixel_scale,
            patch_size=patch_size,
            border=border,
            overlap=overlap,
        )
        made = make_skymap(products, chosen, id or [])
        fresh = is_new_skymap(products, made, replace=replace)
        if fresh:
            products.run = keep_record(products, "skymap", chosen, {}, replace=replace)
            products.put(made, "skymap", name="main")
        typer.echo(f"{'made' if fresh else 'there is'} a sky map: {made.kind}, {counted(len(made.tracts), 'tract')}")
    if kind == "ls" or show:
        _list(products, require_skymap(products), id or [], at)


def _list(repository: Any, skymap: Any, ids: list[str], at: str) -> None:
    from apstream.service.calexps import deferred_input
    from apstream.service.choice import select_calexps
    from apstream.service.skymap import all_patches, patches_at, patches_of

    if at:
        ra, dec, radius = [*_numbers(at, 2, "--at"), 0.0][:3]
        seen = patches_at(skymap, ra, dec, radius)
    elif ids or len(skymap.tracts) > 20:
        jobs = select_calexps(repository, ids, "calexp")
        seen = patches_of(skymap, [deferred_input(repository, job.id) for job in jobs])
    else:
        seen = all_patches(skymap)
    typer.echo("tract\tpatch\tra\tdec\tinner x0..x1, y0..y1\touter x0..x1, y0..y1\texposures")
    for one in seen:
        info = one.info
        ra, dec = (float(v) for v in info.wcs.pixel_to_sky(*info.inner.center))
        boxes = "\t".join(f"{b.x0}..{b.x1}, {b.y0}..{b.y1}" for b in (info.inner, info.outer))
        count = "" if one.exposures is None else one.exposures
        typer.echo(f"{info.tract}\t{info.patch}\t{ra:.5f}\t{dec:.5f}\t{boxes}\t{count}")


def _numbers(text: str, least: int, option: str) -> list[float]:
    from apstream.errors import BadSettings

    try:
        found = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not least <= len(found) <= 3:
        raise BadSettings(f"{text!r} is no position", where=option, remedy=_POSITION)
    _require_sky(found, text, option)
    return found


def _require_sky(numbers: list[float], text: str, option: str) -> None:
    """Refuse what is no place on the sky; a radius of zero is a point, which only looks something up."""
    from apstream.errors import BadSettings

    ra, dec, *radius = numbers
    faults = {
        "the right ascension must be 0..360": not 0 <= ra <= 360,
        "the declination must be -90..90": not abs(dec) <= 90,
        "the radius must be positive": any(not (r > 0 or (r == 0 and option == "--at")) for r in radius),
        "the radius must be below 90": any(r >= 90 for r in radius) and option == "--tract",
    }
    if wrong := [fault for fault, true in faults.items() if true]:
        raise BadSettings(f"{text!r}: {wrong[0]}", where=option, remedy=_POSITION)
