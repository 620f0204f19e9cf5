"""A private PostgreSQL cluster out of the distribution's own package."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg
from processes import Unavailable, alive, free_port, guard

__all__ = ["PostgresServer", "postgres_binaries"]

USER = "apstream"
OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
}


def postgres_binaries() -> Path:
    """Return the folder with `initdb` and `pg_ctl`, the newest version first.

    Raises
    ------
    Unavailable
        When PostgreSQL is not installed, or the tests run as root and there is no user `postgres` to run it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    beside = shutil.which("initdb")
    if not found and beside is None:
        raise Unavailable("no PostgreSQL server (Debian: postgresql)")
    if os.getuid() == 0 and (shutil.which("runuser") is None or not _user_exists("postgres")):
        raise Unavailable("PostgreSQL refuses to run as root, and there is no user `postgres`")
    return (found[-1] if found else Path(str(beside))).parent


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.parts[-3]))


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class PostgresServer:
    """One cluster; its port and its data stay the same over `stop`, `kill` and `restart`.

    Parameters
    ----------
    binaries
        Folder of `postgres_binaries`.
    directory
        Home of data, socket and log; a directory used before continues with its port and data. By default a
        new one in the system's temporary folder: pytest's own is closed to other users, and socket paths are
        short.
    """

    def __init__(self, binaries: Path, directory: Path | None = None) -> None:
        self.binaries = binaries
        self.directory = directory or Path(tempfile.mkdtemp(prefix="apstream-pg-"))
        self._port = self.directory / "port.json"
        if not self._port.exists():
            self._initialize()
        self.port: int = json.loads(self._port.read_text())

    @property
    def pid(self) -> int:
        """Process id of the postmaster, 0 when it does not run."""
        file = self.directory / "data" / "postmaster.pid"
        return int(file.read_text().split()[0]) if file.exists() else 0

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self.pid > 0 and alive(self.pid)

    def start(self) -> PostgresServer:
        """Start the server and return when it answers."""
        settings = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
        options = f"-p {self.port} -k {self.directory} {settings}"
        self._control("-w", "-t", "60", "-l", str(self.directory / "server.log"), "-o", options, "start")
        guard(self.pid)
        return self

    def stop(self) -> None:
        """Shut the server down in good order, disconnecting its clients."""
        if self.running:
            self._control("-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """End the server at once, without a checkpoint."""
        if self.running:
            self._control("-w", "-m", "immediate", "stop")

    def pause(self) -> None:
        """Freeze the postmaster: connections are accepted by the kernel and never answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen postmaster go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> PostgresServer:
        """Stop if running and start again on the same port with the same data."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.directory)

    def url(self, database: str, driver: str = "asyncpg") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+{driver}://{USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"t_{uuid.uuid4().hex[:16]}"
        self._execute(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        address = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _initialize(self) -> None:
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        self._run("initdb", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", "data")
        self._port.write_text(json.dumps(free_port()))

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-s", "-D", "data", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*as_postgres, str(self.binaries / program), *arguments]
        output = self.directory / "commands.log"
        with output.open("ab") as log:  # not a pipe: the server inherits it, and a pipe would never end
            done = subprocess.run(command, cwd=self.directory, stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read_text(errors='replace')[-2000:]}")
