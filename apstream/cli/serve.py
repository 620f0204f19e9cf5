"""``apstream serve``: the alert producer."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            help="A settings file (YAML), or KEY=VALUE; may be repeated. Values win over files.",
        ),
    ] = None,
    idle_exit: Annotated[
        float | None,
        typer.Option("--idle-exit", help="End with status 0 when nothing has come for so many seconds."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Work off what is there, then end: --idle-exit 5.")] = False,
) -> None:
    """Turn exposure events into alerts until told to stop (SIGTERM drains, a second one stops at once).

    Settings come from files, then from variables such as APSTREAM__APDB__URL, then from -c KEY=VALUE.

    Examples: apstream serve -c settings.yaml;
    apstream serve -c transport.kind=files -c transport.events=night/ -c transport.alerts=alerts/ --once
    """
    from apstream.service.daemon import run_daemon
    from apstream.service.settings import load_daemon

    run_daemon(load_daemon(config or []), idle_exit_s=5.0 if once and idle_exit is None else idle_exit)
