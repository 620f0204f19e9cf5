"""Java servers out of Maven Central: one folder of jars per pom, fetched on first use and shared by all runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import Unavailable, exclusive

__all__ = ["maven_jars"]


def maven_jars(pom: Path, server: str, name: str) -> Path:
    """Return the folder with the jars that a pom names.

    The folder is `$APSTREAM_<SERVER>_HOME`, by default `~/.cache/apstream/<server>`; one subfolder per content of
    the pom.

    Raises
    ------
    Unavailable
        Without Java, or without Maven when the jars are not there yet.
    """
    if shutil.which("java") is None:
        raise Unavailable("no java (Debian: openjdk-17-jre-headless)")
    home = Path(os.environ.get(f"APSTREAM_{server.upper()}_HOME", Path.home() / ".cache" / "apstream" / server))
    jars = home / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    if jars.exists():
        return jars
    with exclusive(home / "fetch.lock"):
        if not jars.exists():
            _fetch(pom, jars, name)
    return jars


def _fetch(pom: Path, jars: Path, name: str) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable(f"no mvn to fetch {name} (Debian: maven)")
    partial = Path(tempfile.mkdtemp(dir=jars.parent))
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    command = ["mvn", "-q", "-B", "-f", str(pom), *goal]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    if done.returncode != 0:
        shutil.rmtree(partial)
        raise Unavailable(f"Maven cannot fetch {name}: {done.stdout[-500:]}")
    partial.rename(jars)
