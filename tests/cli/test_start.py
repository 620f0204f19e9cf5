"""A command starts with what it needs itself."""

import subprocess
import sys

HEAVY = ("astropy", "numba", "pyarrow", "scipy", "sqlalchemy")


def test_naming_the_commands_imports_no_library_of_theirs():
    code = f"""
import sys
from apstream.cli.main import register
register()
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
