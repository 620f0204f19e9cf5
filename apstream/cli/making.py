"""What the commands that make warps, coadds and templates share: their options, bars and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Root = Annotated[str, typer.Argument(help="The repository")]
SelectIds = Annotated[
    list[str] | None, typer.Option("--select-id", help="Exposures to combine, e.g. 'visit=1..10 filter=r'")
]
Reference = Annotated[
    int | None,
    typer.Option(help="Visit that the others are registered on, where there is no catalogue; selected or not"),
]
Best = Annotated[int | None, typer.Option(min=1, help="Use only so many, the sharpest, per detector and band")]
Rerun = Annotated[str, typer.Option(help="Name of a rerun inside the repository for the products")]
Output = Annotated[str, typer.Option(help="Repository elsewhere for the products; made if it is not there")]
Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. warp_type=direct")]
SettingsFile = Annotated[list[Path] | None, typer.Option("-C", help="Settings file (YAML)")]
Jobs = Annotated[int, typer.Option("-j", min=1, help="Processes")]
ReplaceRun = Annotated[bool, typer.Option(help="Go on with other settings than this began with here")]


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


def with_best(overrides: list[str] | None, best: int | None) -> list[str]:
    """Return the settings given, those of ``--best`` among them."""
    return [*(overrides or []), *([f"select.best={best}"] if best else [])]


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
