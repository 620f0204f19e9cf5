"""The servers that the other tests rest on do what their handles say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import sqlalchemy
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka_server import KafkaServer
from postgres_server import PostgresServer
from processes import alive, end, lease
from sqlalchemy.ext.asyncio import create_async_engine


async def _send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=8_000_000
    )
    async with producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def _receive(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=topic, auto_offset_reset="earliest"
    )
    async with consumer:
        return [(await consumer.getone()).value for _ in range(count)]


@pytest.mark.kafka
async def test_kafka_carries_large_messages(kafka_bootstrap: str, topic_prefix: str) -> None:
    values = [b"small", b"x" * 5_000_000]
    await _send(kafka_bootstrap, topic_prefix, values)
    assert await _receive(kafka_bootstrap, topic_prefix, 2) == values


@pytest.mark.kafka
async def test_kafka_keeps_messages_over_kill_and_restart(own_kafka: KafkaServer, topic_prefix: str) -> None:
    address = own_kafka.bootstrap
    await _send(address, topic_prefix, [b"before"])
    own_kafka.kill()
    assert not own_kafka.running
    assert not own_kafka.answers()
    own_kafka.start()
    assert own_kafka.bootstrap == address
    await _send(address, topic_prefix, [b"after"])
    assert await _receive(address, topic_prefix, 2) == [b"before", b"after"]


@pytest.mark.postgres
async def test_postgres_url_is_an_empty_database(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        tables = await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())
    await engine.dispose()
    assert tables == []


@pytest.mark.postgres
async def test_postgres_keeps_rows_over_stop_and_restart(own_postgres: PostgresServer) -> None:
    engine = create_async_engine(own_postgres.url(own_postgres.create_database()))
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.text("create table t as select 7 as x"))
    await engine.dispose()
    own_postgres.stop()
    assert not own_postgres.running
    own_postgres.start()
    async with engine.connect() as connection:
        assert (await connection.execute(sqlalchemy.text("select x from t"))).scalar() == 7
    await engine.dispose()


class _Counted:
    """A stand-in server that remembers whether it was removed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def remove(self) -> None:
        (self.directory / "removed").touch()


def test_lease_starts_once_and_stops_with_the_last_user(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    started = []

    def start() -> _Counted:
        started.append(1)
        return _Counted(tmp_path)

    with lease(state, start, _Counted):
        with lease(state, start, _Counted):
            assert json.loads(state.read_text())["users"] == 2
        assert not (tmp_path / "removed").exists()
    assert (tmp_path / "removed").exists()
    assert len(started) == 1
    assert not state.exists()


def test_a_process_that_ended_is_not_alive() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert alive(process.pid)
    end(process.pid)
    assert not alive(process.pid)
    process.wait()
