"""Taking files in as they are, by link or copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apstream.errors import BadSettings, Conflict, FileMissing
from apstream.model.products import SkyCircle
from apstream.repo.atomic import storage_error
from apstream.repo.checksums import checksum_of
from apstream.repo.data_ids import NOT_KEPT, since_text
from apstream.repo.dataset_types import StoredType, data_id_text
from apstream.repo.entries import Entry
from apstream.repo.formats import convert
from apstream.repo.validity import ALWAYS, new_span
from apstream.repo.writing import claim

if TYPE_CHECKING:
    from apstream.repo.repository import Repository

__all__ = ["ingest_file", "ingest_refcat"]


def ingest_file(
    repository: Repository,
    source: Path,
    dataset_type: str,
    *,
    copy: bool,
    valid: tuple[float, float] | None,
    data_ids: Sequence[Mapping[str, Any]],
) -> str:
    """Take one file in, as one dataset or, if it holds several, as all of `data_ids`; see `Repository.ingest`.

    A ``region`` among the keys says where on the sky the dataset lies.
    """
    kind = repository.policy[dataset_type]
    if not isinstance(kind, StoredType):
        raise BadSettings(f"{dataset_type} has no file of its own", remedy="ingest a type with a template")
    if not source.exists():
        raise FileMissing("no such file", where=str(source), remedy="check the path")
    checksum, size = checksum_of(source), source.stat().st_size if source.is_file() else -1
    entries = [_entry(repository, kind, source, valid, data_id) for data_id in data_ids]
    present = [_present(repository, kind, entry, checksum, source) for entry in entries]
    if all(one is not None for one in present):
        return ", ".join(dict.fromkeys(repository.own.store.location(one.path) for one in present if one))
    place = repository.own
    taken = _publish(repository, source, entries[0].path, checksum, copy=copy)
    place.registry.add([replace(entry, path=taken, checksum=checksum, size=size) for entry in entries])
    return place.store.location(taken)


def ingest_refcat(repository: Repository, sources: Sequence[Path], *, name: str, copy: bool) -> str:
    """Link a HATS folder, or convert any other catalogue into one; see `Repository.ingest_refcat`."""
    place = repository.own
    root = Path(place.store.url)
    if "://" in place.store.url:
        raise BadSettings(
            "reference catalogues are not converted into an object store",
            where=place.store.url,
            remedy="ingest it into a local repository and make that a parent",
        )
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=root) as temporary:
        made = Path(temporary) / name
        convert.ingest_refcat(sources, made, link=not copy)
        checksum, path = checksum_of(made), f"refcat/{name}"
        present = place.registry.get("refcat", {"name": name})
        if present is not None and present.checksum == checksum:
            return place.store.location(present.path)
        if present is not None or (root / path).exists():
            raise Conflict(
                f"another reference catalogue is called {name}: {root / path}",
                where=str(sources[0]),
                remedy="give it another name with --refcat NAME, or remove the other",
            )
        (root / "refcat").mkdir(exist_ok=True)
        os.rename(made, root / path)
    place.registry.add([Entry(type="refcat", identity={"name": name}, path=path, checksum=checksum)])
    return place.store.location(path)


def _publish(repository: Repository, source: Path, path: str, checksum: str, *, copy: bool) -> str:
    store = repository.own.store
    if not copy:
        return claim(repository.own, path, source.absolute(), checksum, link=True)
    with store.temporary(Path(path).suffix) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except OSError as error:
            raise storage_error(error, store.location(path)) from error
        return claim(repository.own, path, temporary, checksum)


def _entry(
    repository: Repository,
    kind: StoredType,
    source: Path,
    valid: tuple[float, float] | None,
    words: Mapping[str, Any],
) -> Entry:
    region = words.get("region")
    data_id = repository.chain.data_id(kind.name, {k: v for k, v in words.items() if k != "region"})
    span = new_span(repository.chain, kind, valid, data_id)
    if span is not None:
        data_id["since"] = since_text(span[0])
    suffix = "".join(source.suffixes[-2:]) if source.suffix in {".gz", ".fz", ".bz2"} else source.suffix
    return Entry(
        type=kind.name,
        identity={key: data_id[key] for key in kind.keys},
        path=kind.path({"suffix": suffix, **data_id}),
        extra={k: v for k, v in data_id.items() if k not in (*kind.keys, *NOT_KEPT)},
        region=region if isinstance(region, SkyCircle) else None,
        valid=span,
    )


def _present(
    repository: Repository, kind: StoredType, entry: Entry, checksum: str, source: Path
) -> Entry | None:
    """The dataset that has the id already, if its content is the same."""
    found = repository.own.registry.get(kind.name, entry.identity)
    if found is None:
        return None
    if found.checksum != checksum or (found.valid or ALWAYS) != (entry.valid or ALWAYS):
        raise Conflict(
            f"another file stands for {kind.name} {data_id_text(entry.identity)}: "
            f"{repository.own.store.location(found.path)}",
            where=str(source),
            remedy="remove one of the two",
        )
    return found
