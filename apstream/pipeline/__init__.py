"""PURE composition: raw to DIA sources, DIA sources to alerts."""
