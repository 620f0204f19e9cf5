"""Fixtures every test may ask for: real servers, real data, deterministic property tests.

Servers are shared by all workers of a run and started on first use. A test that stops or kills a server
asks for its own (`own_kafka`, `own_postgres`). Where a server or the data cannot be had, the test skips and
says why; with `--require-servers` the same is a failure.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores: threads inside a worker only fight

import hypothesis
import pytest
from kafka_server import KafkaServer, kafka_jars
from postgres_server import PostgresServer, postgres_binaries
from processes import Unavailable, lease
from s3_server import S3Server, s3_jars

TESTS = Path(__file__).parent
ROOT = TESTS.parent

#: One worker compiles the kernels of a fresh clone, the other does meanwhile what needs none; then comes what takes
#: minutes. Without it both, and their child processes, would compile the same kernels at the same time.
FIRST = (
    "service/test_warm.py",
    "contract/test_registry.py",
    "e2e/test_night_real_servers.py",
    "e2e/test_saao_bulge.py",
    "e2e/test_quality.py",
    "e2e/test_batch.py",
)
assert all((TESTS / file).is_file() for file in FIRST)

hypothesis.settings.register_profile("apstream", deadline=None, derandomize=True)
hypothesis.settings.load_profile("apstream")


def pytest_configure() -> None:
    """Let bytecode be written: tests start a hundred processes, each of which would compile all that it imports."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-servers",
        action="store_true",
        help="fail, instead of skip, where Kafka, PostgreSQL, S3 or the test data are missing",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the workers of a run the longest files first: none shall be left alone with one at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        starting_processes = {TESTS / folder for folder in ("e2e", "cli", "service")}
        first = {TESTS / file: place for place, file in enumerate(FIRST)}
        items.sort(
            key=lambda item: (
                first.get(item.path, len(first)),
                item.path not in slow,
                item.path.parent not in starting_processes,
            )
        )


def _lacking(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    if request.config.getoption("--require-servers"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def _kafka_jars(request: pytest.FixtureRequest) -> Path:
    try:
        return kafka_jars()
    except Unavailable as error:
        _lacking(request, f"Apache Kafka: {error}")


@pytest.fixture(scope="session")
def _postgres_binaries(request: pytest.FixtureRequest) -> Path:
    try:
        return postgres_binaries()
    except Unavailable as error:
        _lacking(request, f"PostgreSQL: {error}")


@pytest.fixture(scope="session")
def _s3_jars(request: pytest.FixtureRequest) -> Path:
    try:
        return s3_jars()
    except Unavailable as error:
        _lacking(request, f"S3 server: {error}")


@pytest.fixture(scope="session")
def kafka_server(run_directory: Path, _kafka_jars: Path) -> Iterator[KafkaServer]:
    """The run's shared Apache Kafka; leave it running."""

    def start() -> KafkaServer:
        return KafkaServer(run_directory / f"kafka-{uuid.uuid4().hex[:8]}", _kafka_jars).start()

    with lease(run_directory / "kafka.json", start, lambda known: KafkaServer(known, _kafka_jars)) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_server: KafkaServer) -> str:
    """Address of the shared Kafka, `127.0.0.1:port`."""
    return kafka_server.bootstrap


@pytest.fixture
def own_kafka(tmp_path: Path, _kafka_jars: Path) -> Iterator[KafkaServer]:
    """A Kafka of this test alone, to be stopped, killed and restarted at will."""
    server = KafkaServer(tmp_path / "kafka", _kafka_jars).start()
    yield server
    server.kill()


@pytest.fixture
def topic_prefix() -> str:
    """Prefix of topics and groups no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def postgres_server(run_directory: Path, _postgres_binaries: Path) -> Iterator[PostgresServer]:
    """The run's shared PostgreSQL; leave it running."""

    def start() -> PostgresServer:
        return PostgresServer(_postgres_binaries).start()

    def attach(directory: Path) -> PostgresServer:
        return PostgresServer(_postgres_binaries, directory)

    with lease(run_directory / "postgres.json", start, attach) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a fresh, empty database, `postgresql+asyncpg://user@127.0.0.1:port/name`."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres(_postgres_binaries: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL of this test alone, to be stopped, killed, frozen and restarted at will."""
    server = PostgresServer(_postgres_binaries).start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def s3_server(run_directory: Path, _s3_jars: Path) -> Iterator[S3Server]:
    """The run's shared S3 server; leave it running. Most tests want `s3_url`."""

    def start() -> S3Server:
        return S3Server(run_directory / f"s3-{uuid.uuid4().hex[:8]}", _s3_jars).start()

    with lease(run_directory / "s3.json", start, lambda known: S3Server(known, _s3_jars)) as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh, empty bucket, `s3://name`; address and keys are in the environment."""
    s3_server.export(monkeypatch)
    return s3_server.create_bucket(f"t-{uuid.uuid4().hex[:16]}")


@pytest.fixture
def own_s3(tmp_path: Path, _s3_jars: Path) -> Iterator[S3Server]:
    """An S3 server of this test alone, to be stopped, killed and restarted at will."""
    server = S3Server(tmp_path / "s3", _s3_jars).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def shared_data(request: pytest.FixtureRequest) -> Path:
    """Folder of the real frames: `$APSTREAM_TEST_DATA`, or `shared/data` beside the checkout."""
    path = Path(os.environ.get("APSTREAM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        _lacking(request, f"no test data at {path}; set APSTREAM_TEST_DATA")
    return path
