"""``apstream repo``: create, ingest, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make, fill and look at a data repository.", no_args_is_help=True)


@app.command()
def create(
    root: Annotated[Path, typer.Argument(help="Folder of the repository")],
    camera: Annotated[str, typer.Option(help="Camera name, or the path of a camera YAML file")],
) -> None:
    """Create an empty repository for one camera.

    Cameras that ship: decam, generic, saao-ste3, saao-ste3-raw, simcam; docs/cameras.md shows how to write another.
    """
    from apstream.cameras import load_camera
    from apstream.repo.repository import FileRepository

    load_camera(camera)
    name = str(Path(camera).absolute()) if Path(camera).is_file() else camera
    FileRepository.create(root, camera=name).close()
    typer.echo(f"repository ready: {root} (camera {camera})")


@app.command()
def ingest(
    root: Annotated[Path, typer.Argument(help="The repository")],
    sources: Annotated[list[Path], typer.Argument(help="Raw files, or folders with raw/ calib/ refcat")],
    copy: Annotated[bool, typer.Option(help="Copy the files instead of linking them")] = False,
) -> None:
    """Take raw frames, calibrations and reference catalogues in, by link unless --copy.

    Names decide: refcat*.parquet or .csv are reference catalogues; bias_0.fits, dark_0.fits, flat_r_0.fits and
    defects_0.fits in a folder called calib are calibrations of detector 0; every other FITS file is a raw frame,
    known by its header. What cannot be taken in is named, the rest goes on; the exit status counts it.
    """
    from apstream.repo.ingest import ingest_sources
    from apstream.repo.repository import FileRepository

    report = ingest_sources(FileRepository(root), sources, copy=copy)
    for problem in report.problems:
        typer.echo(f"apstream: {problem}", err=True)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items())) or "nothing"
    typer.echo(f"ingested {counts}")
    raise typer.Exit(min(len(report.problems), 125))


@app.command()
def ls(
    root: Annotated[Path, typer.Argument(help="The repository")],
    dataset_type: Annotated[str | None, typer.Argument(help="Only this dataset type")] = None,
    id: Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1^2 detector=3..6'")] = None,
) -> None:
    """List the datasets of a repository."""
    from rich.console import Console
    from rich.table import Table

    from apstream.repo.repository import FileRepository
    from apstream.repo.selection import matches, parse_selection
    from apstream.repo.types import data_id_text

    repository, allowed = FileRepository(root), parse_selection(id or [])
    names = [dataset_type] if dataset_type else sorted(repository.policy.types)
    table = Table("type", "data id", "path")
    for name in names:
        for entry in repository.find(name):
            if matches(entry.data_id, allowed):
                table.add_row(name, data_id_text(entry.data_id), entry.path)
    Console(soft_wrap=True).print(table)
