"""``apstream warp``: exposures on the pixels of patches."""

from __future__ import annotations

from typing import Annotated

import typer

from apstream.cli import making


def warp(
    root: making.Root,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", help="Patches, e.g. 'tract=0 patch=3'; or exposures, 'visit=1..5'"),
    ] = None,
    select_id: making.SelectIds = None,
    origin: Annotated[
        str, typer.Option("--from", help="raw: calibrate what has no calexp; calexp: take what is there")
    ] = "raw",
    reference: making.Reference = None,
    best: making.Best = None,
    rerun: making.Rerun = "",
    output: making.Output = "",
    override: making.Override = None,
    settings: making.SettingsFile = None,
    jobs: making.Jobs = 1,
    replace_run: making.ReplaceRun = False,
) -> None:
    """Resample exposures onto patches and keep the warps: directWarp and psfMatchedWarp.

    apstream warp REPO --id 'tract=0 patch=3' --select-id 'visit=1..10 filter=r', then
    apstream coadd REPO --id 'tract=0 patch=3' --from warp.

    All visits that will go into one coadd belong into one command: the common PSF is theirs. -c warp_types=[direct]
    writes but one type. A visit that has nothing usable on a patch is left out, with the reason.
    """
    from apstream.errors import BadSettings
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.calexps import Making
    from apstream.service.choice import check_origin, choose, select_calexps
    from apstream.service.coadd_settings import WarpSettings
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.run_settings import load_coadd
    from apstream.service.warps import make_warps

    source, repository = check_origin(origin), Repository(root)
    if source == "warp":
        raise BadSettings("warps are not made from warps", where="--from", remedy="raw or calexp")
    chosen = load_coadd(WarpSettings, repository.camera, settings or [], making.with_best(override, best))
    products = BatchPlaces(root=root, rerun=rerun, output=output).open_output()
    choice = choose(products, id or [], select_id or [])
    selected = select_calexps(products, choice.inputs, source)
    anchor = None if reference is None else select_raws(repository, [f"visit={reference}"])[0]
    products.run = keep_record(products, "warp", chosen, {}, replace=replace_run)
    with making.bars() as progress:
        how = Making(choice=choice, reference=anchor, processes=jobs, progress=progress)
        report = make_warps(products, selected, chosen, how)
    raise typer.Exit(making.tell(report))
