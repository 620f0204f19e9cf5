"""What the commands that make warps, coadds and templates share: their options, work, bars and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from apstream.cli.options import REQUIRED, SettingsFile, as_command, show_config

Root = Annotated[str, typer.Argument(help="The repository")]
Rerun = Annotated[str, typer.Option(help="Name of a rerun inside the repository for the products")]
Output = Annotated[str, typer.Option(help="Repository elsewhere for the products; made if it is not there")]
Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. warp_type=direct")]
ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this began with here")]

_Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="Patches to make, e.g. 'tract=0 patch=1^2 filter=r'; or exposures, 'visit=1..5'"),
]
_SelectIds = Annotated[
    list[str] | None, typer.Option("--select-id", help="Exposures to combine, e.g. 'visit=1..10 filter=r'")
]
_Origin = Annotated[
    str, typer.Option("--from", help="raw: calibrate what has no calexp; calexp, warp (of coadds): take what is there")
]
_Reference = Annotated[
    int | None,
    typer.Option(help="Visit that the others are registered on, where there is no catalogue; selected or not"),
]
_Best = Annotated[int | None, typer.Option(min=1, help="Use only so many, the sharpest, per detector and band")]
_Jobs = Annotated[int, typer.Option("-j", min=1, help="Processes")]
_Show = Annotated[
    str, typer.Option(help="data: the patches and what would go into them, config: all settings; makes none")
]
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "root": (Root, REQUIRED),
    "id": (_Ids, None),
    "select_id": (_SelectIds, None),
    "origin": (_Origin, "raw"),
    "reference": (_Reference, None),
    "best": (_Best, None),
    "rerun": (Rerun, ""),
    "output": (Output, ""),
    "override": (Override, None),
    "settings": (SettingsFile, None),
    "jobs": (_Jobs, 1),
    "show": (_Show, ""),
    "replace_run": (ReplaceRun, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options of the commands that make patches of exposures."""

    root: str
    id: list[str] | None
    select_id: list[str] | None
    origin: str
    reference: int | None
    best: int | None
    rerun: str
    output: str
    override: list[str] | None
    settings: list[Path] | None
    jobs: int
    show: str
    replace_run: bool


def command(function: Callable[[Given], None]) -> Callable[..., None]:
    """Make a command of a function that gets these options as one."""
    return as_command(function, Given, _OPTIONS)


def make_patches(name: str, given: Given, model: Any, make: Callable[..., Any]) -> NoReturn:
    """Choose exposures, patches and settings as a command is told, make the products, tell of them and exit.

    Parameters
    ----------
    name
        Of the run whose settings are kept.
    model
        The class of settings.
    make
        Called with the repository of products, the exposures, the settings and a `Making`; returns a `CoaddReport`.
    """
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.calexps import Making
    from apstream.service.choice import check_origin, choose, select_calexps
    from apstream.service.outputs import BatchPlaces, keep_record
    from apstream.service.run_settings import load_coadd

    source, repository = check_origin(given.origin), Repository(given.root)
    best = [f"select.best={given.best}"] if given.best else []
    chosen = load_coadd(model, repository.camera, given.settings or [], [*(given.override or []), *best])
    if _show_settings(given.show, chosen):
        raise typer.Exit
    products = BatchPlaces(root=given.root, rerun=given.rerun, output=given.output).open_output()
    choice = choose(products, given.id or [], given.select_id or [])
    selected = [] if source == "warp" else select_calexps(products, choice.inputs, source)
    if given.show:
        _show_plan(products, selected, chosen, choice, warps=source == "warp")
        raise typer.Exit
    anchor = None if given.reference is None else select_raws(repository, [f"visit={given.reference}"])[0]
    products.run = keep_record(products, name, chosen, {}, replace=given.replace_run)
    with bars() as progress:
        how = Making(choice=choice, reference=anchor, processes=given.jobs, progress=progress)
        report = make(products, selected, chosen, how)
    raise typer.Exit(tell(report))


def _show_settings(what: str, chosen: Any) -> bool:
    """Print the settings if these are to be shown, and tell whether they were."""
    from apstream.errors import BadSettings

    if what not in ("", "data", "config"):
        raise BadSettings(f"cannot show {what!r}", where="--show", remedy="data or config")
    if what == "config":
        show_config(chosen)
    return what == "config"


def _show_plan(products: Any, selected: list[Any], chosen: Any, choice: Any, *, warps: bool) -> None:
    """Print the patches that would be made, each with the exposures or visits that would go into it."""
    from apstream.service.coadd import planned, warps_there

    if warps:
        for job in warps_there(products, chosen, choice):
            typer.echo(f"{job}: {' '.join(f'visit={visit}' for visit in job.visits)}")
        return
    report, patches = planned(products, selected, chosen, choice)
    for line in report.left_out:
        typer.echo(f"left out: {line}", err=True)
    for patch in patches:
        typer.echo(f"{patch}: {' '.join(map(str, patch.inputs))}")


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show on standard error how far each stage is; yield what tells it."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True)) as bar:
        tasks = dict[str, TaskID]()

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def tell(report: Any) -> int:
    """Print what was made, what was left out and what failed; return the exit status."""
    for problem in report.problems:
        typer.echo(f"apstream: {type(problem).__name__}: {problem}", err=True)
    for note in dict.fromkeys(report.notes):
        typer.echo(f"apstream: {note}", err=True)
    for line in report.left_out:
        typer.echo(f"left out: {line}", err=True)
    for line in report.patches:
        typer.echo(line)
    return min(len(report.problems), 125)
