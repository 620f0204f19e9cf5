"""What consumer and producer share: connection options, and library errors in our words."""

from __future__ import annotations

import ssl
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.helpers import create_ssl_context

from apstream.errors import ApstreamError, BadSettings, BrokerUnavailable
from apstream.ports import Message
from apstream.transports.settings import KafkaSettings, SecuritySettings

__all__ = ["connection_options", "is_fatal", "message_of", "translate"]

#: No retry heals these: somebody has to change settings, rights or the topic.
_FATAL = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.IncompatibleBrokerVersion,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InvalidTopicError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.UnsupportedSaslMechanismError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that both aiokafka clients take."""
    security = settings.security
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "security_protocol": security.protocol,
    }
    if "SSL" in security.protocol.split("_"):
        options["ssl_context"] = _ssl_context(security)
    if security.protocol.startswith("SASL"):
        options["sasl_mechanism"] = security.sasl_mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password.get_secret_value()
    return options


def is_fatal(error: BaseException) -> bool:
    """Whether no retry can heal the error."""
    return isinstance(error, _FATAL)


def message_of(record: Any) -> Message:
    """Return a consumed record as our own message."""
    return Message(
        value=record.value or b"",
        key=record.key,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        headers=dict(record.headers),
    )


def translate(error: Exception, where: str) -> ApstreamError:
    """Say a client error in the words of our own tree."""
    text = str(error) or type(error).__name__
    if isinstance(error, _TOO_LARGE):
        remedy = "raise max.message.bytes of the topic and kafka.producer.max_message_bytes"
        return BadSettings(f"the broker refuses a message of this size: {text}", where=where, remedy=remedy)
    if is_fatal(error):
        return BadSettings(f"Kafka refuses: {text}", where=where, remedy="check kafka settings and rights")
    return BrokerUnavailable(f"Kafka: {text}", where=where, remedy="tried again by itself")


def _ssl_context(security: SecuritySettings) -> ssl.SSLContext:
    try:
        return create_ssl_context(  # type: ignore[no-any-return]
            cafile=_text(security.ca_file),
            certfile=_text(security.cert_file),
            keyfile=_text(security.key_file),
        )
    except OSError as error:
        raise BadSettings(f"cannot load the certificates: {error}", where="kafka.security") from error


def _text(path: object) -> str | None:
    return None if path is None else str(path)
