"""The ``apstream`` command."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from functools import cache

import typer

from apstream.errors import ApstreamError, Conflict

__all__ = ["app", "main"]

_HELP = """Alert production: exposures in, DIA sources and Avro alerts out.

Two images:        apstream subtract science.fits template.fits --out result

A folder of raws:  apstream repo create, repo ingest, coadd, run, alerts show

A service:         apstream apdb create, serve, send

To see it work:    apstream demo
"""

app = typer.Typer(
    name="apstream",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line; errors of ours become one line, not a traceback."""
    gc.set_threshold(400_000, 50, 50)  # what imports make stays: looking through it takes a tenth
    register()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, for developers: python -W default shows them
    try:
        app()
    except ApstreamError as error:
        if os.environ.get("APSTREAM_DEBUG"):
            raise
        sys.stderr.write(f"apstream: {type(error).__name__}: {_shown(error)}\n")
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


def _shown(error: ApstreamError) -> str:
    """Return an error as one line; only the differences of a conflict have a line each."""
    lines = str(error).splitlines() if isinstance(error, Conflict) else [str(error)]
    return "\n  ".join(" ".join(line.split()) for line in lines)


@cache
def register() -> None:
    """Attach the commands; their files import what they need when they run."""
    from apstream.cli import (
        alerts,
        apdb,
        calib,
        coadd,
        demo,
        repo,
        run,
        send,
        serve,
        simulate,
        single,
        skymap,
        subtract,
        template,
        warp,
    )

    app.command()(subtract.subtract)
    app.command()(simulate.simulate)
    app.command()(single.isr)
    app.command()(single.characterize)
    app.command()(single.calibrate)
    app.command()(skymap.skymap)
    app.command()(warp.warp)
    app.command()(coadd.coadd)
    app.command()(template.template)
    app.command()(run.run)
    app.command()(serve.serve)
    app.command()(send.send)
    app.command()(demo.demo)
    app.add_typer(repo.app, name="repo")
    app.add_typer(calib.app, name="calib")
    app.add_typer(apdb.app, name="apdb")
    app.add_typer(alerts.app, name="alerts")
