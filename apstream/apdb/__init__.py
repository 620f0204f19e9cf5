"""The Alert Production Database: tables, unit of work, ledger, outbox."""
