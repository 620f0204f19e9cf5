"""How events come in and alerts go out: Kafka, files, embedded broker."""
