"""Settings of the transports: one tagged union, chosen by `kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = [
    "ConsumerSettings",
    "EmbeddedSettings",
    "FilesSettings",
    "KafkaSettings",
    "ProducerSettings",
    "SecuritySettings",
    "TransportSettings",
]

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class SecuritySettings(BaseModel):
    """How to log in to the brokers."""

    model_config = _FROZEN

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field("PLAINTEXT")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("SCRAM-SHA-512")
    username: str = Field("", description="SASL user.")
    password: SecretStr = Field(SecretStr(""), description="SASL password; give it by environment, not by file.")
    ca_file: Path | None = Field(None, description="PEM file of the certificate authority.")
    cert_file: Path | None = Field(None, description="PEM file of the client certificate.")
    key_file: Path | None = Field(None, description="PEM file of the client key.")


class ConsumerSettings(BaseModel):
    """How events are read."""

    model_config = _FROZEN

    group_id: str = Field("apstream", min_length=1, description="Consumer group.")
    instance_id: str | None = Field(None, description="Static group membership, for example the pod's name.")
    offset_reset: Literal["earliest", "latest"] = Field("earliest", description="Where a new group begins.")
    queue_high: int = Field(16, ge=1, description="Events waiting per partition before it is paused.")
    queue_low: int = Field(4, ge=0, description="Events waiting per partition when it is resumed.")
    session_timeout_s: float = Field(30.0, ge=1, description="Silence after which the group drops a member.")
    rebalance_timeout_s: float = Field(60.0, ge=1, description="Time all members have to join again.")
    max_poll_interval_s: float = Field(600.0, ge=10, description="Longest pause between two polls.")
    poll_s: float = Field(0.2, gt=0, le=5, description="Longest wait in one poll.")
    probe_s: float = Field(10.0, gt=0, description="Interval of the broker probe, which also measures lag.")
    stuck_after_s: float = Field(300.0, gt=0, description="Without assignment or progress for this long: rejoin.")


class ProducerSettings(BaseModel):
    """How alerts are sent."""

    model_config = _FROZEN

    compression: Literal["zstd", "lz4", "gzip", "snappy", "none"] = Field("zstd")
    max_message_bytes: int = Field(8 << 20, ge=1 << 10, description="Largest alert, before compression.")
    batch_bytes: int = Field(1 << 20, ge=1 << 10, description="Largest batch of one partition.")
    linger_ms: int = Field(5, ge=0, description="How long a batch waits for company.")
    request_timeout_s: float = Field(20.0, gt=0, description="Patience with one request.")
    publish_timeout_s: float = Field(60.0, gt=0, description="Patience with the acknowledgements of one exposure.")


class KafkaSettings(BaseModel):
    """Events from Kafka and alerts to Kafka."""

    model_config = _FROZEN

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="HOST:PORT, comma-separated.")
    events_topic: str = Field("apstream-exposures", min_length=1)
    alerts_topic: str = Field("apstream-alerts-v11", min_length=1)
    dead_letter_topic: str = Field("apstream-exposures-dead", min_length=1)
    client_id: str = Field("apstream", min_length=1)
    security: SecuritySettings = SecuritySettings()
    consumer: ConsumerSettings = ConsumerSettings()
    producer: ProducerSettings = ProducerSettings()


class EmbeddedSettings(BaseModel):
    """The in-process broker: a demo or a test on one machine; nothing survives the process."""

    model_config = _FROZEN

    kind: Literal["embedded"] = "embedded"
    kafka: KafkaSettings = Field(
        KafkaSettings(consumer=ConsumerSettings(session_timeout_s=6.0)),
        description="As for Kafka; bootstrap_servers is ignored.",
    )
    address_file: Path | None = Field(None, description="File that receives the broker's address, for senders.")


class FilesSettings(BaseModel):
    """Events from a directory or a JSON-lines file, alerts to Avro object-container files."""

    model_config = _FROZEN

    kind: Literal["files"] = "files"
    events: Path = Field(description="A directory of exposures, or a .jsonl file with one event per line.")
    pattern: str = Field("**/*.fits*", min_length=1, description="Which files of the directory are exposures.")
    alerts: Path = Field(description="Directory that receives one Avro file per exposure.")
    dead_letters: Path | None = Field(None, description="Directory for refused events; ALERTS/dead if not given.")
    watch_s: float | None = Field(None, gt=0, description="Look for new files at this interval; once if not given.")


TransportSettings = Annotated[KafkaSettings | EmbeddedSettings | FilesSettings, Field(discriminator="kind")]
