"""What a command ran with: settings, versions and schemas, kept once with the products that it makes."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from apstream import __version__
from apstream.errors import BadFile, Conflict, StorageUnavailable
from apstream.repo.store import Store
from apstream.yaml_text import parse_yaml

__all__ = ["RunRecord", "differences", "read_run", "record_run", "software_versions"]

_SOFTWARE = ("numpy", "scipy", "astropy", "numba", "sep", "pyarrow", "hpgeom", "pydantic")
_MOST_LINES = 20
_PATIENCE_S, _LOOK_S = 10.0, 0.05
_REMEDY = "choose another --rerun NAME, or --replace-run to go on with the new ones and keep the old record"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """All that decides what a command makes of its inputs.

    Parameters
    ----------
    command
        Its name, as in ``run``.
    settings
        The whole tree, plain values.
    versions
        Python and the libraries that compute.
    schemas
        Columns of the tables it writes: ``{table: {column: "type unit"}}``.
    """

    command: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    schemas: Mapping[str, Mapping[str, str]]

    @property
    def text(self) -> str:
        """The record as YAML, the same for the same record."""
        return yaml.safe_dump(asdict(self), sort_keys=True)

    @property
    def id(self) -> str:
        """A short name made of the content."""
        return f"{self.command}-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"


def software_versions() -> dict[str, str]:
    """Return the versions of Python, apstream and the libraries that decide what comes out."""
    found = {"python": platform.python_version(), "apstream": __version__}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def read_run(store: Store, command: str) -> RunRecord | None:
    """Return the record of a command in a repository, None if it never ran there.

    Raises
    ------
    BadFile
        If the record cannot be read.
    """
    text = store.read_text(_path(command))
    return None if text is None else _parse(text, store.location(_path(command)))


def record_run(store: Store, record: RunRecord, *, replace: bool = False) -> None:
    """Keep the record of a command, exactly once, however many processes do so at the same time.

    The record is ``runs/COMMAND.yaml``; with `replace` one that differs becomes ``runs/COMMAND.yaml~1``, ``~2``, ...

    Raises
    ------
    Conflict
        If the command ran with other settings, versions or schemas before; lists the differences.
    """
    path = _path(record.command)
    if store.write_text(path, record.text, exclusive=True):
        return
    if replace:
        _replace(store, record)
        return
    before = read_run(store, record.command)
    if before is not None and before.text != record.text:
        raise Conflict(_message(before, record), where=store.location(path), remedy=_REMEDY)


def differences(before: RunRecord, now: RunRecord) -> list[str]:
    """Return what differs, one line each, settings first: ``detect.threshold_sigma: 5.0 -> 5.5``."""
    lines = list(_compare("", before.settings, now.settings))
    lines += _compare("version of ", before.versions, now.versions)
    return lines + list(_compare("column ", before.schemas, now.schemas))


def _replace(store: Store, record: RunRecord) -> None:
    """Put a record in the place of the present one; its backup's exclusive creation is the lock."""
    path, deadline = _path(record.command), time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline + _PATIENCE_S:
        number = next(n for n in range(1, 1 << 30) if not store.exists(f"{path}~{n}"))  # before looking at the record
        present = store.read_text(path) or ""
        if present == record.text:
            return
        in_progress = number > 1 and store.read_text(f"{path}~{number - 1}") == present
        if in_progress and time.monotonic() < deadline:  # after it, the one who began is taken for dead
            time.sleep(_LOOK_S)
        elif store.write_text(f"{path}~{number}", present, exclusive=True):
            store.write_text(path, record.text, exclusive=False)
            return
    raise StorageUnavailable("others replace this record all the time", where=store.location(path), remedy="try again")


def _path(command: str) -> str:
    return f"runs/{command}.yaml"


def _parse(text: str, where: str) -> RunRecord:
    try:
        return RunRecord(**parse_yaml(text))
    except (yaml.YAMLError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadFile(f"no record of a run: {reason}", where=where, remedy="move it away, or --replace-run") from error


def _message(before: RunRecord, now: RunRecord) -> str:
    lines = differences(before, now)
    shown = [f"  {line}" for line in lines[:_MOST_LINES]]
    more = [f"  ... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    head = f"apstream {now.command} was run here with other settings, versions or schemas, then and now:"
    return "\n".join([head, *shown, *more, ""])


def _compare(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        head = name if name.endswith(" ") or not name else f"{name}."
        for key in sorted({*before, *now}):
            yield from _compare(f"{head}{key}", before.get(key, _NOTHING), now.get(key, _NOTHING))
    elif not _same(before, now):
        yield f"{name}: {_shown(before)} -> {_shown(now)}"


_NOTHING = object()


def _same(before: Any, now: Any) -> bool:
    both_nan = isinstance(before, float) and isinstance(now, float) and math.isnan(before) and math.isnan(now)
    return both_nan or before == now


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else str(value)
