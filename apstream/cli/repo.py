"""``apstream repo``: create, ingest, list, get, and ask where things are and what they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apstream.words import counted

app = typer.Typer(help="Make, fill and look at a data repository.", no_args_is_help=True)

Root = Annotated[str, typer.Argument(help="The repository: a folder or a URL such as s3://bucket/prefix")]
TypeName = Annotated[str, typer.Argument(help="Dataset type, or TYPE.COMPONENT")]
Parents = Annotated[list[str] | None, typer.Option(help="Repository that reads fall through to; may be repeated")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Selection, e.g. 'visit=1^2 detector=3..6'")]
Words = Annotated[list[str] | None, typer.Argument(help="Data id, e.g. visit=1 detector=3")]


@app.command()
def create(
    root: Root,
    camera: Annotated[str, typer.Option(help="Camera name, or the path of a camera YAML file")] = "",
    parent: Parents = None,
    registry: Annotated[str, typer.Option(help="Database of the registry, postgresql://...; default: a file")] = "",
) -> None:
    """Create an empty repository for one camera, with the calibrations that ship with it.

    Cameras that ship: decam, decam-instcal, generic, kast-blue, saao-ste3, saao-ste3-raw, simcam; docs/cameras.md
    shows how to write another.
    """
    from apstream.cameras import load_camera
    from apstream.errors import BadSettings
    from apstream.repo.ingest import ingest_curated
    from apstream.repo.repository import Repository

    if not camera and not parent:
        raise BadSettings("no camera named", where="--camera", remedy="name a camera, or a --parent")
    if camera:
        load_camera(camera)
    name = str(Path(camera).absolute()) if camera and Path(camera).is_file() else camera
    repository = Repository.create(root, camera=name, parents=parent or [], registry=registry)
    curated = None if parent else ingest_curated(repository)
    typer.echo(f"repository ready: {root} (camera {repository.camera})")
    if curated is not None:
        _report(curated, "with the camera's own")


@app.command()
def ingest(
    root: Root,
    sources: Annotated[list[Path], typer.Argument(help="Raw files, or folders with raw/ calib/ refcat bright")],
    copy: Annotated[bool, typer.Option(help="Copy the files instead of linking them")] = False,
    valid_from: Annotated[str | None, typer.Option(help="Calibrations hold from this date (ISO, or MJD TAI)")] = None,
    valid_to: Annotated[str | None, typer.Option(help="... until this one; default: until the next begins")] = None,
    refcat: Annotated[
        str | None, typer.Option(help="Take all sources in as one reference catalogue; 'main' is the one used")
    ] = None,
) -> None:
    """Take raw frames, calibrations, reference catalogues and bright objects in, by link unless --copy.

    Names decide: refcat*.parquet or .csv, HATS folders and HTM shards are reference catalogues; bias_0.fits,
    dark_0.fits, flat_r_0.fits, defects_0.fits (or .yaml) and crosstalk_0.yaml in a folder called calib are
    calibrations of detector 0; bright_r.reg (or .csv, .parquet) are bright objects of band r, bright.reg of all
    bands that have none of their own; mask_spans_r_0.csv (or .parquet) are planes to be set or cleared in exposures of
    band r on tract 0; every other FITS file is a raw frame, known by its header. What cannot be taken in is named, the
    rest goes on; the exit status counts it.
    """
    from apstream.repo.data_ids import parse_date
    from apstream.repo.ingest import ingest_sources
    from apstream.repo.repository import Repository
    from apstream.repo.validity import ALWAYS

    valid = None
    if valid_from or valid_to:
        valid = (
            parse_date(valid_from) if valid_from else ALWAYS[0],
            parse_date(valid_to) if valid_to else ALWAYS[1],
        )
    if refcat:
        location = Repository(root).ingest_refcat(sources, name=refcat, copy=copy)
        typer.echo(f"reference catalogue {refcat}: {location}")
        return
    report = ingest_sources(Repository(root), sources, copy=copy, valid=valid)
    raise typer.Exit(_report(report, "ingested"))


@app.command()
def ls(
    root: Root,
    dataset_type: Annotated[str | None, typer.Argument(help="Only this dataset type")] = None,
    id: Ids = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Sizes, checksums, runs and validity too")] = False,
) -> None:
    """List the datasets of a repository and its parents."""
    from apstream.repo.dataset_types import StoredType, data_id_text
    from apstream.repo.repository import Repository
    from apstream.repo.validity import span_text

    repository = Repository(root)
    selection = repository.select(id or [])
    stored = [name for name, kind in repository.policy.types.items() if isinstance(kind, StoredType)]
    rows: list[tuple[str, ...]] = []
    for name in [dataset_type] if dataset_type else sorted(stored):
        for entry in repository.find(name, selection):
            more = (str(entry.size), entry.checksum[:12], entry.run[:12], span_text(entry.valid) if entry.valid else "")
            rows.append((entry.type, data_id_text(entry.data_id), *(more if long else ()), repository.location(entry)))
    if not rows:
        there = ", ".join(f"{name} {count}" for name, count in sorted(repository.own.registry.types().items()))
        typer.echo(f"nothing matches; the repository itself has {there or 'no datasets'}", err=True)
    _print(("type", "data id", *(("bytes", "sha256", "run", "valid") if long else ()), "location"), rows)


@app.command()
def types(root: Root, dataset_type: Annotated[str | None, typer.Argument(help="Only this one")] = None) -> None:
    """List the dataset types of a repository: keys, components, what they are."""
    from apstream.repo.repository import Repository

    policy = Repository(root).policy
    rows: list[tuple[str, ...]] = []
    for name in [dataset_type] if dataset_type else sorted(policy.types):
        kind = policy[name]
        rows.append((name, " ".join(policy.keys(name)), " ".join(policy.components(kind)), _what(kind)))
    _print(("type", "keys", "components", "what it is"), rows)


@app.command()
def locate(root: Root, dataset_type: TypeName, words: Words = None) -> None:
    """Print where a dataset lies; exit status 1 if there is none."""
    from apstream.repo.repository import Repository

    location = Repository(root).locate(dataset_type, **_data_id(words))
    if location is None:
        raise typer.Exit(1)
    typer.echo(location)


@app.command()
def get(
    root: Root,
    dataset_type: TypeName,
    words: Words = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: describe it")] = None,
) -> None:
    """Read a dataset, a component or a composite, and describe it or write it to a file.

    The ending of the file says how: images .fits; tables .parquet, .csv, .ecsv, .json or .fits; records .yaml or .json.
    """
    from apstream.repo.dataset_types import StoredType
    from apstream.repo.export import describe, export
    from apstream.repo.formats.registry import get_format
    from apstream.repo.repository import Repository
    from apstream.service.targets import spare_repository

    repository = Repository(root)
    with repository.tracking() as read:
        value, kind = repository.get(dataset_type, **_data_id(words)), repository.policy[dataset_type]
    if out is None:
        typer.echo(describe(value))
    else:
        spare_repository(out, repository, read)
        export(value, out, get_format(kind.format) if isinstance(kind, StoredType) else None)
        typer.echo(f"wrote {out}")


@app.command()
def why(
    root: Root,
    dataset_type: TypeName,
    words: Words = None,
    settings: Annotated[bool, typer.Option(help="Also print settings and versions of the run")] = False,
) -> None:
    """Print what a dataset was made from, as a tree down to the raw files."""
    import yaml

    from apstream.repo.provenance import why as tree_of
    from apstream.repo.repository import Repository

    tree = tree_of(Repository(root), dataset_type, **_data_id(words))
    for line in tree.lines():
        typer.echo(line)
    if settings:
        typer.echo(yaml.safe_dump(dict(tree.record), sort_keys=False) if tree.record else "no run was recorded")


@app.command()
def check(
    root: Root,
    contents: Annotated[bool, typer.Option(help="Read every file and compare its checksum")] = False,
    remove_orphans: Annotated[bool, typer.Option(help="Remove files without a dataset; while nobody writes")] = False,
) -> None:
    """Compare files and registry; the exit status is the number of damaged datasets."""
    import time

    from apstream.repo.repository import Repository
    from apstream.repo.upkeep import check_repository

    hour_ago = time.time() - 3600
    report = check_repository(Repository(root), contents=contents, remove_orphans=remove_orphans, before=hour_ago)
    for error in report.damaged:
        typer.echo(f"apstream: {error}", err=True)
    for path in report.orphans:
        typer.echo(f"{'removed' if remove_orphans else 'no dataset names'} {path}")
    files = counted(len(report.orphans), "file")
    typer.echo(f"{counted(report.datasets, 'dataset')}, {len(report.damaged)} damaged, {files} without one")
    raise typer.Exit(min(len(report.damaged), 125))


def _print(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table for people, or lines with tabs for other programs."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _data_id(words: list[str] | None) -> dict[str, Any]:
    from apstream.errors import BadSettings

    data_id: dict[str, Any] = {}
    for word in " ".join(words or []).split():
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise BadSettings(f"{word!r} is not key=value", remedy="write e.g. visit=1 detector=3")
        data_id[key] = value
    return data_id


def _report(report: Any, what: str) -> int:
    for problem in report.problems:
        typer.echo(f"apstream: {problem}", err=True)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items()))
    if counts or what == "ingested":
        typer.echo(f"{what} {counts or 'nothing'}")
    return min(len(report.problems), 125)


def _what(kind: Any) -> str:
    if kind.description:
        return str(kind.description)
    return f"{kind.component} of {kind.of}" if hasattr(kind, "of") else ""
