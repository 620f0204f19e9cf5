"""A real Apache Kafka, one node in KRaft mode, out of Maven Central."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from maven import maven_jars
from processes import alive, end, free_port, guard, spawn, wait_until

__all__ = ["KafkaServer", "kafka_jars"]

HERE = Path(__file__).parent / "kafka"
CLUSTER_ID = "YXBzdHJlYW0tdGVzdHMtMA"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
group.initial.rebalance.delay.ms=0
message.max.bytes=10485760
replica.fetch.max.bytes=10485760
num.partitions=1
auto.create.topics.enable=true
"""


def kafka_jars() -> Path:
    """Return the folder with the server's jars; see `maven_jars`."""
    return maven_jars(HERE / "pom.xml", "kafka", "Apache Kafka")


class KafkaServer:
    """One broker; its port and its data stay the same over `stop`, `kill` and `restart`.

    Parameters
    ----------
    directory
        Home of settings, log and data; a directory used before continues with its port and data.
    jars
        Folder of `kafka_jars`.
    """

    def __init__(self, directory: Path, jars: Path) -> None:
        self.directory = directory
        self.jars = jars
        self._ports = directory / "ports.json"
        self._pid = directory / "pid"
        if not self._ports.exists():
            self._format()
        self.port: int = json.loads(self._ports.read_text())["port"]

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the broker, 0 when it was never started."""
        return int(self._pid.read_text()) if self._pid.exists() else 0

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self.pid > 0 and alive(self.pid)

    def start(self, timeout: float = 90.0) -> KafkaServer:
        """Start the broker and return when it answers."""
        command = self._java("kafka.Kafka", str(self.directory / "server.properties"))
        pid = spawn(command, self.directory / "server.log")
        self._pid.write_text(str(pid))
        guard(pid)
        if not wait_until(lambda: not alive(pid) or self.answers(), timeout) or not alive(pid):
            self.kill()
            raise RuntimeError(f"Kafka did not start:\n{self.log()}")
        return self

    def stop(self) -> None:
        """Shut the broker down in good order."""
        if self.running:
            end(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the broker as a crash would."""
        if self.running:
            end(self.pid, signal.SIGKILL)

    def restart(self) -> KafkaServer:
        """Stop if running and start again on the same port with the same data."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """Stop the broker and delete its data."""
        self.stop()
        shutil.rmtree(self.directory)

    def answers(self) -> bool:
        """Whether the broker lists itself to a client."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            with contextlib.suppress(KafkaException):
                return bool(client.list_topics(timeout=5.0).brokers)
        return False

    def log(self) -> str:
        """Return the end of the broker's log."""
        return (self.directory / "server.log").read_text(errors="replace")[-4000:]

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        port, controller = free_port(), free_port()
        properties = self.directory / "server.properties"
        properties.write_text(PROPERTIES.format(port=port, controller=controller, directory=self.directory))
        command = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's storage cannot be formatted: {done.stdout}{done.stderr}")
        self._ports.write_text(json.dumps({"port": port, "controller": controller}))

    def _java(self, main: str, *arguments: str) -> list[str]:
        quick = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        log = f"-Dlog4j2.configurationFile={HERE / 'log4j2.yaml'}"
        return ["java", "-cp", f"{self.jars}/*", *quick, log, main, *arguments]
