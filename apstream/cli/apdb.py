"""``apstream apdb``: the Alert Production Database."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

app = typer.Typer(help="Make and look at an Alert Production Database.", no_args_is_help=True)


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE")],
    isolation_level: Annotated[
        str | None,
        typer.Option(help="Of the transactions: READ_UNCOMMITTED, READ_COMMITTED or SERIALIZABLE, as the database has"),
    ] = None,
) -> None:
    """Create the tables of an APDB (or bring an older one up to date)."""
    from apstream.apdb import create_apdb

    asyncio.run(create_apdb(url, isolation_level=isolation_level))
    typer.echo(f"APDB ready: {url}")
