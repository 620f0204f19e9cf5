"""``apstream coadd``: templates from raws or calexps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def coadd(
    root: Annotated[str, typer.Argument(help="The repository")],
    id: Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1..5 filter=r'")] = None,
    reference: Annotated[
        int | None,
        typer.Option(help="Visit that the others are registered on, where there is no catalogue; selected or not"),
    ] = None,
    best: Annotated[int | None, typer.Option(help="Use only so many, the sharpest, per detector and band")] = None,
    rerun: Annotated[str, typer.Option(help="Name of a rerun inside the repository for the products")] = "",
    output: Annotated[str, typer.Option(help="Repository elsewhere for the products; made if it is not there")] = "",
    override: Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. warp_type=direct")] = None,
    settings: Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")] = None,
    jobs: Annotated[int, typer.Option("-j", help="Processes")] = 1,
    replace_run: Annotated[bool, typer.Option(help="Go on with other settings than coadds here began with")] = False,
) -> None:
    """Make template coadds of the selected exposures.

    Raws without a calexp are calibrated first: on the reference catalogue where the repository has one, else
    by registration on one of them. One bad exposure is reported and left out.

    Warps are convolved to one common PSF, a little wider than the widest exposure's; -c warp_type=direct combines
    them as they are, -c match.target_fwhm_arcsec=1.2 sets the width.
    """
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.coadd import CoaddSettings, make_coadds
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.run_settings import load_coadd

    repository = Repository(root)
    chosen = load_coadd(CoaddSettings, repository.camera, settings or [], override or [])
    products = BatchPlaces(root=root, rerun=rerun, output=output).open_output()
    selected = select_raws(repository, id or [])
    products.run = keep_record(products, "coadd", chosen, {}, replace=replace_run)
    anchor = None if reference is None else select_raws(repository, [f"visit={reference}"])[0]
    with Progress(console=Console(stderr=True)) as bar:
        tasks = dict[str, TaskID]()

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        report = make_coadds(products, selected, chosen, reference=anchor, best=best, processes=jobs, progress=show)
    for problem in report.problems:
        typer.echo(f"apstream: {type(problem).__name__}: {problem}", err=True)
    for line in report.left_out:
        typer.echo(f"left out, too wide for the common PSF: {line}", err=True)
    for line in report.patches:
        typer.echo(line)
    raise typer.Exit(min(len(report.problems), 125))
