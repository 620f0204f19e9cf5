"""Alembic's entry: migrations run on the connection that `apstream.apdb.migrate` hands over."""

from __future__ import annotations

from alembic import context

from apstream.apdb.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
