"""``apstream coadd``: templates from raws, calexps or warps."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apstream.cli import making


def coadd(
    root: making.Root,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", help="Patches to make, e.g. 'tract=0 patch=1^2 filter=r'; or exposures, 'visit=1..5'"),
    ] = None,
    select_id: making.SelectIds = None,
    origin: Annotated[
        str, typer.Option("--from", help="raw: calibrate what has no calexp; calexp, warp: take what is there")
    ] = "raw",
    reference: making.Reference = None,
    best: making.Best = None,
    rerun: making.Rerun = "",
    output: making.Output = "",
    override: making.Override = None,
    settings: making.SettingsFile = None,
    jobs: making.Jobs = 1,
    show: Annotated[str, typer.Option(help="data: the patches and what would go into them; makes none")] = "",
    replace_run: making.ReplaceRun = False,
) -> None:
    """Make template coadds of the selected exposures.

    Raws without a calexp are calibrated first: on the reference catalogue where the repository has one, else
    by registration on one of them. One bad exposure is reported and left out.

    apstream coadd REPO --id 'visit=1..10 filter=r' makes all patches that these exposures touch;
    apstream coadd REPO --id 'tract=0 patch=1^2 filter=r' --select-id 'visit=1..10' only these two.

    Warps are convolved to one common PSF, a little wider than the widest exposure's; -c warp_type=direct combines
    them as they are, -c match.target_fwhm_arcsec=1.2 sets the width. -c select.max_fwhm_arcsec=1.1 and its sisters
    choose among the exposures.
    """
    from apstream.errors import BadSettings
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.calexps import Making
    from apstream.service.choice import check_origin, choose, select_calexps
    from apstream.service.coadd import coadd_stored_warps, make_coadds
    from apstream.service.coadd_settings import CoaddSettings
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.run_settings import load_coadd

    if show not in ("", "data"):
        raise BadSettings(f"cannot show {show!r}", where="--show", remedy="data")
    source, repository = check_origin(origin), Repository(root)
    chosen = load_coadd(CoaddSettings, repository.camera, settings or [], making.with_best(override, best))
    products = BatchPlaces(root=root, rerun=rerun, output=output).open_output()
    choice = choose(products, id or [], select_id or [])
    selected = [] if source == "warp" else select_calexps(products, choice.inputs, source)
    anchor = None if reference is None else select_raws(repository, [f"visit={reference}"])[0]
    if show:
        _show(products, selected, chosen, choice)
        return
    products.run = keep_record(products, "coadd", chosen, {}, replace=replace_run)
    with making.bars() as progress:
        how = Making(choice=choice, reference=anchor, processes=jobs, progress=progress)
        if source == "warp":
            report = coadd_stored_warps(products, chosen, how)
        else:
            report = make_coadds(products, selected, chosen, how)
    raise typer.Exit(making.tell(report))


def _show(products: Any, selected: list[Any], chosen: Any, choice: Any) -> None:
    from apstream.service.coadd import planned

    report, patches = planned(products, selected, chosen, choice)
    for line in report.left_out:
        typer.echo(f"left out: {line}", err=True)
    for job in patches:
        typer.echo(f"{job}: {' '.join(map(str, job.inputs))}")
