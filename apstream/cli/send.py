"""``apstream send``: put exposure events on the topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def send(
    sources: Annotated[
        list[str], typer.Argument(help="Raw files, folders of them, or .jsonl files with one event per line.")
    ],
    bootstrap: Annotated[
        str, typer.Option("--bootstrap", "-b", help="Kafka brokers, HOST:PORT,...")
    ] = "localhost:9092",
    topic: Annotated[str, typer.Option(help="Topic of the events.")] = "apstream-exposures",
    pattern: Annotated[str, typer.Option(help="Which files of a folder.")] = "**/*.fits*",
    instrument: Annotated[str, typer.Option(help="Instrument to name in events made from files.")] = "",
    detector: Annotated[int | None, typer.Option(help="Detector to name in events made from files.")] = None,
) -> None:
    """Send one event per exposure and wait for every acknowledgement.

    What an event does not say (visit, filter, time) is read from the file's header by the service.
    """
    import asyncio

    from apstream.service.sending import events_of, send_events

    events = events_of([Path(s) for s in sources], pattern=pattern, instrument=instrument, detector=detector)
    asyncio.run(send_events(events, bootstrap=bootstrap, topic=topic))
    typer.echo(f"{len(events)} events sent to {topic}")
