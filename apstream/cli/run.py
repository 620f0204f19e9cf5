"""``apstream run``: selected raws of a repository to APDB and alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from apstream.cli.options import show_config
from apstream.words import counted

Ids = Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1^2 detector=3..6'")]
Override = Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. detect.threshold_sigma=5.5")]
SettingsFile = Annotated[
    list[Path] | None, typer.Option("-C", help="Settings file (YAML), or @NAME of one that ships: @calexp-template")
]


def run(
    context: typer.Context,
    root: Annotated[str, typer.Argument(help="The repository")],
    apdb: Annotated[str, typer.Option(help="APDB, e.g. sqlite:///apdb.sqlite; made if it is not there")] = "",
    alerts: Annotated[Path | None, typer.Option(help="Folder for Avro alert files")] = None,
    id: Ids = None,
    rerun: Annotated[str, typer.Option(help="Name of a rerun inside the repository for the products")] = "",
    output: Annotated[str, typer.Option(help="Repository elsewhere for the products; made if it is not there")] = "",
    template: Annotated[str, typer.Option(help="Repository with templates; default: the same")] = "",
    template_id: Annotated[str, typer.Option(help="Calexps as template, e.g. 'visit=234567'")] = "",
    override: Override = None,
    settings: SettingsFile = None,
    jobs: Annotated[int, typer.Option("-j", min=1, help="Processes; frames of one detector stay in order")] = 1,
    show: Annotated[str, typer.Option(help="data: the matching ids, config: all settings, schema: all columns")] = "",
    replace_run: Annotated[bool, typer.Option(help="Go on with other settings than this rerun began with")] = False,
    no_exit: Annotated[bool, typer.Option("--no-exit", help="Exit 0 even if ids failed")] = False,
    to_kafka: Annotated[str, typer.Option(help="HOST:PORT of the brokers: let the service do the work")] = "",
    topic: Annotated[str, typer.Option(help="Topic of the events, with --to-kafka")] = "apstream-exposures",
) -> None:
    """Run raws through calibration, subtraction and association; write alerts.

    apstream run REPO --id 'visit=6..20 filter=r' --rerun first --apdb sqlite:///apdb.sqlite --alerts alerts/

    Needs raws (apstream repo ingest) and templates (apstream coadd). Ids that the APDB has as processed are not run
    again. The exit status is the number of ids that failed. With --show nothing is run, and neither --apdb nor
    --alerts is needed. Settings: defaults < camera < ~/.config/apstream/settings.yaml < -C < environment < -c.
    """
    if to_kafka:
        _send(context, root, id or [], to_kafka, topic)
        return
    if show == "schema":
        _show_schema()
        return
    chosen = _settings(root, settings or [], override or [], apdb)
    if show:
        _show(show, root, id or [], chosen)
        return
    from apstream.service.batch import prepare_batch
    from apstream.service.outputs import BatchPlaces

    places = BatchPlaces(root=root, rerun=rerun, output=output, template=template, template_id=template_id)
    batch = prepare_batch(places, id or [], chosen, alerts=alerts, jobs=jobs, replace_run=replace_run)
    failed = _run(batch)
    raise typer.Exit(0 if no_exit else min(failed, 125))


def _settings(root: str, files: list[Path], overrides: list[str], apdb: str) -> Any:
    from apstream.repo.repository import Repository
    from apstream.service.run_settings import load_run

    return load_run(Repository(root).camera, files, overrides, apdb=apdb)


def _send(context: typer.Context, root: str, ids: list[str], bootstrap: str, topic: str) -> None:
    import asyncio

    from apstream.errors import BadSettings
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws
    from apstream.service.sending import send_events

    others = [one for one in context.command.params if one.name not in {"root", "id", "to_kafka", "topic"}]
    given = [one.opts[0] for one in others if _typed(context.get_parameter_source(str(one.name)))]
    if given:
        raise BadSettings(
            f"{', '.join(sorted(given))} cannot be told to the service",
            where="--to-kafka",
            remedy="its own settings decide: change them there (apstream serve -c), or run without --to-kafka",
        )
    events = [job.event for job in select_raws(Repository(root), ids)]
    asyncio.run(send_events(events, bootstrap=bootstrap, topic=topic))
    typer.echo(
        f"{counted(len(events), 'event')} sent to {topic}; the service's APDB and topics say what becomes of them"
    )


def _typed(source: Any) -> bool:
    return source is not None and source.name == "COMMANDLINE"


def _show(what: str, root: str, ids: list[str], chosen: Any) -> None:
    from apstream.errors import BadSettings
    from apstream.repo.repository import Repository
    from apstream.service.batch import select_raws

    match what:
        case "data":
            for job in select_raws(Repository(root), ids):
                typer.echo(f"{job.id}  {job.path}")
        case "config":
            show_config(chosen)
        case _:
            raise BadSettings(f"cannot show {what!r}", where="--show", remedy="data, config or schema")


def _show_schema() -> None:
    from apstream.service.schemas import schema_lines

    for line in schema_lines():
        typer.echo(line)


def _run(batch: Any) -> int:
    import asyncio

    from apstream.service.batch import run_batch

    with show_progress("exposures", len(batch.jobs)) as on_end:
        results = asyncio.run(run_batch(batch, on_end))
    show_summary(results)
    return sum(not result.good for result in results)


@contextmanager
def show_progress(what: str, total: int | None = None) -> Iterator[Callable[[Any], None]]:
    """Show on standard error how far a command is and how long it will take; yield what counts one result."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    words = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*words, *times, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda result: progress.advance(task)


def show_summary(results: list[Any], columns: Sequence[str] = ("sources", "alerts")) -> None:
    """Print a line per frame with the numbers in `columns`, reasons of failures, notes on the inputs, and totals."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("visit", "detector", "outcome", box=box.SIMPLE)
    for name in (*columns, "seconds"):
        table.add_column(name, justify="right")
    for one in results:
        seconds = f"{one.seconds:.1f}" if one.seconds else ""
        row = (one.id.visit, one.id.detector, one.outcome, *(getattr(one, f"n_{name}") for name in columns), seconds)
        table.add_row(*map(str, row))
    Console(soft_wrap=True).print(table)
    for one in results:
        if one.reason:
            typer.echo(f"{one.id}: {one.outcome}: {one.reason}", err=not one.good)
    for note in dict.fromkeys(note for one in results for note in one.notes):
        typer.echo(f"apstream: {note}", err=True)
    good = [one for one in results if one.good]
    before = sum(one.outcome == "done before" for one in results)
    sums = [counted(sum(getattr(one, f"n_{name}") for one in good), name.removesuffix("s")) for name in columns]
    typer.echo(
        f"{len(good)} of {len(results)} exposures processed{f' ({before} of them before)' if before else ''}: "
        f"{', '.join([*sums, f'{sum(one.seconds for one in results):.0f} s of work'])}"
    )
