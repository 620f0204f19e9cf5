"""``apstream send``: put exposure events on the topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apstream.words import counted


def send(
    sources: Annotated[
        list[str],
        typer.Argument(help="Repositories, raw files, folders of them, or .jsonl files with one event per line."),
    ],
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Which raws of a repository, as in 'visit=1..5 detector=2'.")
    ] = None,
    bootstrap: Annotated[
        str, typer.Option("--bootstrap", "-b", help="Kafka brokers, HOST:PORT,...")
    ] = "localhost:9092",
    topic: Annotated[str, typer.Option(help="Topic of the events.")] = "apstream-exposures",
    pattern: Annotated[str, typer.Option(help="Which files of a folder.")] = "**/*.fits*",
    camera: Annotated[str, typer.Option(help="Camera that reads visit and detector from the files' headers.")] = "",
    instrument: Annotated[str, typer.Option(help="Instrument to name in events of files, without a camera.")] = "",
    detector: Annotated[int | None, typer.Option(help="Detector to name in events of files.")] = None,
) -> None:
    """Send one event per exposure and wait for every acknowledgement.

    What an event does not say is read from the file's header by the service. Events that name their detector (those of
    a repository, or with --camera) are worked on in parallel, in order within a detector; all others one by one.
    """
    import asyncio

    from apstream.service.sending import events_of, send_events

    events = events_of(
        [Path(s) for s in sources],
        selection=ids or (),
        pattern=pattern,
        camera=camera,
        instrument=instrument,
        detector=detector,
    )
    asyncio.run(send_events(events, bootstrap=bootstrap, topic=topic))
    typer.echo(f"{counted(len(events), 'event')} sent to {topic}")
