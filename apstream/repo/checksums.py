"""Checksums: what tells whether a file is still the one that was read."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["checksum_of"]


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text; for a folder, of the names and sizes of its files."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
