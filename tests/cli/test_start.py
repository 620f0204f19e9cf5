"""A command starts with what it needs itself."""

import subprocess
import sys

HEAVY = ("astropy", "numba", "pyarrow", "scipy", "sqlalchemy")
#: What a coadd of calexps does without.
NOT_COADD = (
    *("aiokafka", "astropy.coordinates", "astropy.time", "astropy.wcs", "pyarrow.compute", "scipy.fft", "scipy.linalg"),
    *("scipy.interpolate", "scipy.ndimage", "scipy.spatial", "sqlalchemy.orm", "starlette", "structlog"),
)


def imported(code, names=HEAVY):
    told = f"import sys; {code}; print(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_naming_the_commands_imports_no_library_of_theirs():
    assert imported("from apstream.cli.main import register; register()") == []


def test_one_stage_on_one_file_needs_no_database():
    assert "sqlalchemy" not in imported("import apstream.service.single, apstream.service.run_settings")


def test_a_coadd_starts_without_what_only_other_commands_need():
    code = "import apstream.cli.making, apstream.service.coadd, apstream.service.coadd_settings"
    assert imported(code, NOT_COADD) == []
