"""The alert producer: exposure events in, Avro alerts out.

Usage: python -m services.alert_producer.main [--config FILE | --config KEY=VALUE]... [--idle-exit SECONDS]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from apstream.errors import ApstreamError

DEFAULTS = Path(__file__).with_name("settings.yaml")


def main() -> int:
    """Serve; errors of ours become one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="alert_producer", description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", action="append", default=[], help="settings file or KEY=VALUE")
    parser.add_argument("--idle-exit", type=float, metavar="SECONDS", help="end when nothing has come for so long")
    given = parser.parse_args()
    from apstream.service.daemon import run_daemon  # not above: every child process imports this file again
    from apstream.service.settings import load_daemon

    try:
        run_daemon(load_daemon([str(DEFAULTS), *given.config]), idle_exit_s=given.idle_exit)
    except ApstreamError as error:
        sys.stderr.write(f"alert_producer: {type(error).__name__}: {' '.join(str(error).split())}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
