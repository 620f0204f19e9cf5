"""``apstream demo``: the main job on a laptop, with nothing else installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apstream.words import counted

if TYPE_CHECKING:
    from apstream.service.demo import DemoReport


def demo(
    out: Annotated[Path, typer.Option(help="Folder to work in; made anew")] = Path("demo-night"),
    size: Annotated[int, typer.Option(help="Side of a detector in pixels")] = 768,
    visits: Annotated[int, typer.Option(help="Science visits")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the sky")] = 7,
) -> None:
    """Simulate a small night, make templates, run the daemon on an embedded broker, and show what it found."""
    import asyncio

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from apstream.errors import Conflict
    from apstream.service.demo import run_demo
    from apstream.simulate.config import NightConfig

    if out.exists() and any(out.iterdir()):
        raise Conflict("the folder is not empty", where=str(out), remedy="remove it, or name another with --out")
    config = NightConfig(visits=visits, size=size, seed=seed, detectors=2, template_visits=4)
    started, tasks = time.perf_counter(), dict[str, TaskID]()
    with Progress(console=Console(stderr=True)) as bar:

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        report = asyncio.run(run_demo(out, config, tell))
    _print(report)
    typer.echo(f"{time.perf_counter() - started:.0f} s; look at {report.page}")


def _print(report: DemoReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from apstream.service.demo import DEMO_COLUMNS

    table = Table(*DEMO_COLUMNS)
    for exposure in report.exposures:
        table.add_row(*exposure.cells())
    Console().print(table)
    typer.echo(
        f"{report.recovered} of {report.injected} injected transients recovered, {counted(report.alerts, 'alert')}"
    )
