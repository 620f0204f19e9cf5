"""The Alert Production Database: tables from the column registry, units of work, ledger and outbox."""

from apstream.apdb.migrate import create_apdb
from apstream.apdb.sql import SqlApdb, open_apdb

__all__ = ["SqlApdb", "create_apdb", "open_apdb"]
