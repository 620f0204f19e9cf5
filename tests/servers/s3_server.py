"""A real S3 server, S3Proxy over a local folder, out of Maven Central."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
from pathlib import Path

import pytest
import s3fs
from maven import maven_jars
from processes import alive, end, free_port, guard, spawn, wait_until

__all__ = ["S3Server", "s3_jars"]

HERE = Path(__file__).parent / "s3"
KEY, SECRET = "apstream", "apstream-secret"
PROPERTIES = f"""\
s3proxy.endpoint=http://127.0.0.1:{{port}}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={KEY}
s3proxy.credential={SECRET}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={{directory}}/data
"""


def s3_jars() -> Path:
    """Return the folder with the server's jars; see `maven_jars`."""
    return maven_jars(HERE / "pom.xml", "s3", "S3Proxy")


class S3Server:
    """One server; its port and its buckets stay the same over `stop`, `kill` and `start`.

    Parameters
    ----------
    directory
        Home of settings, log and data; a directory used before continues with its port and data.
    jars
        Folder of `s3_jars`.
    """

    def __init__(self, directory: Path, jars: Path) -> None:
        self.directory = directory
        self.jars = jars
        self._settings = directory / "server.json"
        self._pid = directory / "pid"
        if not self._settings.exists():
            self._prepare()
        self.port: int = json.loads(self._settings.read_text())["port"]

    @property
    def endpoint(self) -> str:
        """Address for clients, `http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def export(self, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
        """Make this the server of the test's clients; `changed` variables replace those of `environment`."""
        for name, value in {**self.environment, **changed}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # it was made with another environment

    @property
    def pid(self) -> int:
        """Process id of the server, 0 when it was never started."""
        return int(self._pid.read_text()) if self._pid.exists() else 0

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self.pid > 0 and alive(self.pid)

    def start(self, timeout: float = 90.0) -> S3Server:
        """Start the server and return when it answers."""
        log = f"-Dlogback.configurationFile={HERE / 'logback.xml'}"
        quick = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        main = ["org.gaul.s3proxy.Main", "--properties", str(self.directory / "s3proxy.conf")]
        pid = spawn(["java", "-cp", f"{self.jars}/*", *quick, log, *main], self.directory / "server.log")
        self._pid.write_text(str(pid))
        guard(pid)
        if not wait_until(lambda: not alive(pid) or self.answers(), timeout) or not alive(pid):
            self.kill()
            raise RuntimeError(f"S3Proxy did not start:\n{self.log()}")
        return self

    def stop(self) -> None:
        """Shut the server down in good order."""
        if self.running:
            end(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server as a crash would."""
        if self.running:
            end(self.pid, signal.SIGKILL)

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.directory)

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False

    def create_bucket(self, name: str) -> str:
        """Create an empty bucket and return its URL; a bucket is a folder of the server."""
        (self.directory / "data" / name).mkdir()
        return f"s3://{name}"

    def log(self) -> str:
        """Return the end of the server's log."""
        return (self.directory / "server.log").read_text(errors="replace")[-4000:]

    def _prepare(self) -> None:
        port = free_port()
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "s3proxy.conf").write_text(PROPERTIES.format(port=port, directory=self.directory))
        self._settings.write_text(json.dumps({"port": port}))
