"""The command line without a process of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest

from apstream.cli import main as command


def here(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Do in this process what ``apstream`` does in one of its own; for what sets the stage or starts no work."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["apstream", *map(str, words)])
        try:
            command.main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == status, out.getvalue() + err.getvalue()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
