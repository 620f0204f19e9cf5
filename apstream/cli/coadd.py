"""``apstream coadd``: templates from raws or calexps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def coadd(
    root: Annotated[Path, typer.Argument(help="The repository")],
    id: Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1..5 filter=r'")] = None,
    reference: Annotated[
        int | None,
        typer.Option(help="Visit that the others are registered on, where there is no catalogue; selected or not"),
    ] = None,
    best: Annotated[int | None, typer.Option(help="Use only so many, the sharpest, per detector and band")] = None,
    override: Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. assemble.clip_nsigma=4")] = None,
    settings: Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")] = None,
    jobs: Annotated[int, typer.Option("-j", help="Processes")] = 1,
) -> None:
    """Make template coadds of the selected exposures.

    Raws without a calexp are calibrated first: on the reference catalogue where the repository has one, else
    by registration on one of them. One bad exposure is reported and left out.
    """
    from rich.console import Console
    from rich.progress import Progress

    from apstream.repo.repository import FileRepository
    from apstream.service.batch import select_raws
    from apstream.service.coadd import CoaddSettings, make_coadds
    from apstream.settings import load_settings

    chosen = load_settings(CoaddSettings, files=settings or [], overrides=override or [])
    repository = FileRepository(root)
    selected = select_raws(repository, id or [])
    anchor = None if reference is None else select_raws(repository, [f"visit={reference}"])[0]
    with Progress(console=Console(stderr=True)) as bar:
        tasks: dict[str, int] = {}

        def show(stage: str, done: int, total: int) -> None:
            task = tasks.setdefault(stage, len(tasks)) if stage in tasks else None
            if task is None:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        report = make_coadds(repository, selected, chosen, reference=anchor, best=best, processes=jobs, progress=show)
    for problem in report.problems:
        typer.echo(f"apstream: {type(problem).__name__}: {problem}", err=True)
    for line in report.left_out:
        typer.echo(f"left out, too wide for the common PSF: {line}", err=True)
    for line in report.patches:
        typer.echo(line)
    raise typer.Exit(min(len(report.problems), 125))
