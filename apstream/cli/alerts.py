"""``apstream alerts``: look at alerts as a broker or a person would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from apstream.errors import FileMissing
from apstream.words import counted

app = typer.Typer(help="Look at alerts.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at alerts."""


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="An Avro file, a folder of them, or a topic")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with the cutout triplets")] = None,
    bootstrap: Annotated[str, typer.Option(help="Brokers, for a topic")] = "localhost:9092",
    limit: Annotated[int, typer.Option(min=1, help="Most alerts to show")] = 100,
) -> None:
    """Print a table of alerts, and with --html write a page with their cutouts."""
    from apstream.repo.atomic import atomic_path
    from apstream.service.alert_page import render_page
    from apstream.service.targets import spare_inputs

    files = _files(source)
    if html:
        spare_inputs([html], files, "--html")
    if files:
        records = list(islice(_once_each(_from_files(files)), limit))
    else:
        records = asyncio.run(_from_topic(source, bootstrap, limit))
    _print_table(records)
    if html:
        page = render_page(records, title=f"Alerts in {source}")
        with atomic_path(html) as temporary:
            temporary.write_text(page)
        typer.echo(f"wrote {html}")


def _files(source: str) -> list[Path]:
    """Return the Avro files that are named; none: it is a topic."""
    path = Path(source)
    if path.is_dir():
        files = sorted(path.rglob("*.avro"))
        if not files:
            raise FileMissing("no Avro files in the folder", where=source, remedy="name a folder of alerts")
        return files
    if path.is_file():
        return [path]
    if path.suffix or "/" in source:
        raise FileMissing("no such file", where=source, remedy="name an Avro file, a folder or a topic")
    return []


def _once_each(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Leave second copies out: a folder may hold alerts both as committed and as published."""
    seen = set()
    for record in records:
        id = record["diaSource"]["diaSourceId"]
        if id not in seen:
            seen.add(id)
            yield record


def _from_files(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    from apstream.alerts.codec import records_of_ocf
    from apstream.errors import ApstreamError

    for path in files:
        try:
            yield from records_of_ocf(path.read_bytes())
        except ApstreamError as error:
            raise error.at(str(path)) from error


async def _from_topic(topic: str, bootstrap: str, limit: int) -> list[Mapping[str, Any]]:
    from apstream.alerts.codec import decode
    from apstream.transports.kafka import read_topic
    from apstream.transports.settings import KafkaSettings

    messages = await read_topic(topic, KafkaSettings(bootstrap_servers=bootstrap), limit=limit)
    return [decode(message.value) for message in messages]


def _print_table(records: list[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("diaSourceId", "object", "visit", "band", "ra", "dec", "psfFlux nJy", "S/N", "reliability", "flags")
    for record in records:
        source = record["diaSource"]
        flags = [name for name, key in (("dipole", "isDipole"), ("negative", "isNegative")) if source.get(key)]
        table.add_row(
            str(source["diaSourceId"]),
            str(source.get("diaObjectId") or ""),
            str(source["visit"]),
            str(source.get("band") or ""),
            *(_number(source.get(key), places) for key, places in _COLUMNS),
            " ".join(flags),
        )
    Console(soft_wrap=True).print(table)
    typer.echo(counted(len(records), "alert"))


_COLUMNS = (("ra", 6), ("dec", 6), ("psfFlux", 0), ("snr", 1), ("reliability", 2))


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"
