"""``apstream warp``: exposures on the pixels of patches."""

from __future__ import annotations

from apstream.cli import making


@making.command
def warp(given: making.Given) -> None:
    r"""Resample exposures onto patches and keep the warps: directWarp and psfMatchedWarp.

    apstream warp REPO --id 'tract=0 patch=3' --select-id 'visit=1..10 filter=r', then
    apstream coadd REPO --id 'tract=0 patch=3' --from warp.

    All visits that will go into one coadd belong into one command: the common PSF is theirs. -c warp_types=\[direct]
    writes but one type. A visit that has nothing usable on a patch is left out, with the reason.
    """
    from apstream.errors import BadSettings
    from apstream.service.coadd_settings import WarpSettings
    from apstream.service.warps import make_warps

    if given.origin == "warp":
        raise BadSettings("warps are not made from warps", where="--from", remedy="raw or calexp")
    making.make_patches("warp", given, WarpSettings, make_warps)
