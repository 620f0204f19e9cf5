"""``apstream run``: selected raws of a repository to APDB and alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def run(
    root: Annotated[Path, typer.Argument(help="The repository")],
    apdb: Annotated[str, typer.Option(help="APDB, e.g. sqlite:///apdb.sqlite; made if it is not there")] = "",
    alerts: Annotated[Path | None, typer.Option(help="Folder for Avro alert files")] = None,
    id: Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1^2 detector=3..6'")] = None,
    template: Annotated[Path | None, typer.Option(help="Repository with templates; default: the same")] = None,
    template_id: Annotated[
        str | None, typer.Option("--template-id", help="Calexps as template, e.g. 'visit=234567'")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Repository for products; default: the same")] = None,
    override: Annotated[list[str] | None, typer.Option("-c", help="Setting, e.g. detect.threshold_sigma=5.5")] = None,
    settings: Annotated[list[Path] | None, typer.Option("-C", help="Settings file of the stages (YAML)")] = None,
    jobs: Annotated[int, typer.Option("-j", help="Processes; frames of one detector stay in order")] = 1,
    show: Annotated[str | None, typer.Option(help="'data' lists the matching ids, 'config' the settings")] = None,
    no_exit: Annotated[bool, typer.Option("--no-exit", help="Exit 0 even if ids failed")] = False,
) -> None:
    """Run raws through calibration, subtraction and association; write alerts.

    apstream run REPO --id 'visit=6..20 filter=r' --apdb sqlite:///apdb.sqlite --alerts alerts/

    Needs raws (apstream repo ingest) and templates (apstream coadd). Ids that the APDB's ledger has already are
    not run again. The exit status is the number of ids that failed. With --show nothing is run and neither
    --apdb nor --alerts is needed.
    """
    from apstream.errors import BadSettings
    from apstream.pipeline.config import PixelConfig
    from apstream.repo.repository import FileRepository
    from apstream.service.batch import batch_settings, select_raws
    from apstream.settings import load_settings

    repository = FileRepository(root)
    stages = load_settings(PixelConfig, files=settings or [], overrides=override or [])
    if show == "config":
        _show_config(stages)
        return
    selected = select_raws(repository, id or [])
    if show == "data":
        for job in selected:
            typer.echo(f"{job.id}  {job.path}")
        return
    if alerts is None:
        raise BadSettings("no folder for the alerts", where="--alerts", remedy="give e.g. --alerts alerts/")
    places: dict[str, Any] = {"template_root": template and str(template), "output_root": output and str(output)}
    if template_id:
        places["template_id"] = _template_id(template_id)
    if output:
        FileRepository.create(output, camera=repository.camera).close()
    chosen = batch_settings(
        repository,
        apdb=apdb,
        alerts=alerts,
        jobs=jobs,
        stages=stages.model_dump(mode="json"),
        places={key: value for key, value in places.items() if value},
    )
    failed = _run(selected, chosen)
    raise typer.Exit(0 if no_exit else min(failed, 125))


def _template_id(text: str) -> dict[str, int]:
    from apstream.errors import BadSettings
    from apstream.repo.select import Selection

    chosen = {key: str(values[0]) for key, values in Selection.parse([text]).choices.items()}
    try:
        return {key: int(value) for key, value in chosen.items()}
    except ValueError as error:
        raise BadSettings("not a data id", where="--template-id", remedy="write visit=NUMBER") from error


def _show_config(stages: Any) -> None:
    import yaml

    typer.echo(yaml.safe_dump(stages.model_dump(mode="json"), sort_keys=False))


def _run(selected: list[Any], settings: Any) -> int:
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from apstream.apdb import create_apdb
    from apstream.service.batch import run_batch

    asyncio.run(create_apdb(settings.apdb.url))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("exposures", total=len(selected))
        ended = asyncio.run(run_batch(selected, settings, lambda entry: progress.advance(task)))
    failed = [(job, entry) for job, entry in zip(selected, ended, strict=True) if not _good(entry)]
    for job, entry in failed:
        typer.echo(f"{job.id}: {entry.outcome + ': ' + entry.reason if entry else 'not done'}", err=True)
    good = [entry for entry in ended if _good(entry)]
    typer.echo(
        f"{len(good)} of {len(selected)} exposures processed: {sum(e.n_sources for e in good if e)} DIA sources, "
        f"{sum(e.n_alerts for e in good if e)} alerts"
    )
    return len(failed)


def _good(entry: Any) -> bool:
    return entry is not None and entry.outcome == "processed"
