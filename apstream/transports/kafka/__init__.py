"""Events from Kafka and alerts to Kafka (aiokafka)."""

from apstream.transports.kafka.read import read_topic
from apstream.transports.kafka.sink import KafkaSink
from apstream.transports.kafka.source import KafkaSource

__all__ = ["KafkaSink", "KafkaSource", "read_topic"]
