"""A repository: typed datasets in a folder or an object store, with a registry and parents to fall back on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from apstream.cameras import load_camera
from apstream.errors import ApstreamError, BadFile, BadSettings, Conflict, FileMissing
from apstream.model.geometry import Box
from apstream.model.products import SkyCircle
from apstream.repo import composites, links, validity
from apstream.repo.atomic import storage_error
from apstream.repo.chain import Chain
from apstream.repo.checksums import checksum_of
from apstream.repo.data_ids import NOT_KEPT, since_text
from apstream.repo.dataset_types import AggregateType, ComponentType, CompositeType, StoredType, data_id_text
from apstream.repo.entries import Entry, Input
from apstream.repo.place import CONFIG, Place, read_config
from apstream.repo.selection import Selection
from apstream.repo.store import open_store
from apstream.repo.writing import Pending, commit

__all__ = ["Repository", "is_repository"]

F = TypeVar("F")


def _as_written(parent: str, child: str) -> str:
    """Name a parent that the child lies in by the way up, so that both may be moved together."""
    if "://" not in parent and child.startswith(parent.rstrip("/") + "/"):
        return os.path.relpath(parent, child)
    return parent


def is_repository(root: Path | str) -> bool:
    """Whether a folder or URL is a repository."""
    try:
        return open_store(root).exists(CONFIG)
    except ApstreamError:
        return False


class Repository:
    """Typed datasets by type and data id.

    Reads fall through to the parents, nearest first; writes go to this repository only.

    Parameters
    ----------
    root
        A local folder, or a URL that fsspec understands (``s3://bucket/prefix``).
    run
        Id of the record of settings and versions that what is put here is made with, unless `put` is told another.

    Raises
    ------
    FileMissing
        If there is no repository.
    BadSettings
        If its configuration or policy is wrong, or parents go round in a circle.
    """

    def __init__(self, root: Path | str, *, run: str = "") -> None:
        self.run = run
        self.chain = Chain.open(root)
        self.own: Place = self.chain.own
        self.root: str = self.chain.root
        self.camera: str = self.chain.camera
        self.policy = self.chain.policy
        self._tracks: list[list[Input]] = []

    @classmethod
    def create(
        cls, root: Path | str, *, camera: str = "", parents: Sequence[Path | str] = (), registry: str = ""
    ) -> Repository:
        """Create an empty repository, or open an existing one of the same camera and parents.

        Parameters
        ----------
        camera
            Name or YAML file; may be left out where there are parents.
        parents
            Repositories that reads fall through to.
        registry
            Database URL (``postgresql://...``); default: a SQLite file in the repository.

        Raises
        ------
        Conflict
            If it exists with another camera, other parents or another registry.
        """
        store = open_store(root)
        above = [open_store(parent).url for parent in parents]
        written = [_as_written(parent, store.url) for parent in above]
        config = {"camera": camera, "id": uuid.uuid4().hex, "parents": written, "registry": registry}
        text = yaml.safe_dump({key: value for key, value in config.items() if value}, sort_keys=True)
        if not store.write_text(CONFIG, text, exclusive=True):
            present = read_config(store)
            differences = {
                f"belongs to camera {present.camera}": bool(camera and present.camera and present.camera != camera),
                f"has other parents: {', '.join(present.parents) or 'none'}": list(present.parents) != above,
                "has another registry": registry not in ("", present.registry),
            }
            for difference, true in differences.items():
                if true:
                    raise Conflict(f"the repository {difference}", where=store.url, remedy="use another folder")
        return cls(root)

    def rerun(self, name: str) -> Repository:
        """Return the child repository for a rerun inside this one, created if absent, with the same registry."""
        if not name or name.startswith((".", "/")) or ".." in name.split("/"):
            raise BadSettings(f"{name!r} cannot name a rerun", where="--rerun", remedy="use letters, digits, - and _")
        root = f"{self.root.rstrip('/')}/rerun/{name}"
        return Repository.create(root, parents=[self.root], registry=self.own.config.registry)

    def get(self, dataset_type: str, /, *, box: Box | None = None, **data_id: Any) -> Any:
        """Return a dataset, a component of one, a composite or an aggregate.

        Parameters
        ----------
        dataset_type
            Its name; ``TYPE.COMPONENT`` for a component.
        box
            Read only this part of an image.
        data_id
            Keys and values; ``mjd`` (TAI) chooses among calibrations.

        Raises
        ------
        DatasetNotFound
            If there is none; names what to ingest.
        BadFile
            If the file is damaged; names it and its checksum.
        """
        kind = self.policy[dataset_type]
        wanted = self.chain.data_id(dataset_type, data_id)
        match kind:
            case StoredType():
                return self.get_entry(self.chain.required(kind, wanted), box=box)
            case ComponentType():
                return self._component(kind, wanted)
            case CompositeType():
                return composites.assemble(self, kind, wanted, box)
            case AggregateType():
                return composites.aggregate(self, kind, wanted)

    def put(
        self,
        value: Any,
        dataset_type: str,
        /,
        *,
        inputs: Sequence[Input] = (),
        run: str = "",
        valid: tuple[float, float] | None = None,
        **data_id: Any,
    ) -> str:
        """Store a dataset atomically, the file first, then its registry row; return its location.

        Parameters
        ----------
        inputs
            What it was made from; `tracking` lists what has been read.
        run
            Id of the record of settings and versions; default: the repository's.
        valid
            Span (MJD TAI, half-open) that a calibration holds for; default: always.

        Raises
        ------
        Conflict
            If a shared dataset exists and differs.
        """
        kind, wanted = self.policy[dataset_type], self.chain.data_id(dataset_type, data_id)
        if isinstance(kind, StoredType) and (span := validity.new_span(self.chain, kind, valid, wanted)) is not None:
            wanted |= {"since": since_text(span[0]), "valid": span}
        with ExitStack() as temporaries:
            match kind:
                case StoredType():
                    pending = [self.prepare(temporaries, kind, value, wanted)]
                case CompositeType():
                    pending = composites.disassemble(self, temporaries, kind, value, wanted)
                case AggregateType() if kind.stored is not None:
                    pending = [self.prepare(temporaries, kind.stored, value, wanted)]
                case _:
                    raise BadSettings(f"{dataset_type} cannot be written", remedy="put a type that has a file")
            return ", ".join(commit(self.own, pending, tuple(inputs), run or self.run))

    def prepare(self, temporaries: ExitStack, kind: StoredType, value: Any, data_id: Mapping[str, Any]) -> Pending:
        """Write a value to a temporary file that lives as long as `temporaries`; nothing is visible yet."""
        path, storage = kind.path(data_id), kind.storage
        if not isinstance(value, storage.type):
            raise BadSettings(
                f"{kind.name} is stored as {kind.format}, which cannot hold a {type(value).__name__}",
                remedy="put another value, or name another format in the policy",
            )
        temporary = temporaries.enter_context(self.own.store.temporary(Path(path).suffix))
        try:
            storage.write(temporary, value)
        except OSError as error:
            raise storage_error(error, self.own.store.location(path)) from error
        entry = Entry(
            type=kind.name,
            identity={key: data_id[key] for key in kind.keys},
            path=path,
            extra={key: value for key, value in data_id.items() if key not in (*kind.keys, *NOT_KEPT)},
            region=storage.region(value),
            valid=data_id.get("valid"),
            checksum=checksum_of(temporary),
            size=temporary.stat().st_size,
        )
        return Pending(entry, temporary, shared=kind.shared)

    def locate(self, dataset_type: str, /, **data_id: Any) -> str | None:
        """Return the location of a dataset, None if there is none or it has no file of its own."""
        entry = self.entry(dataset_type, **data_id)
        return None if entry is None else self.location(entry)

    def location(self, entry: Entry) -> str:
        """Return where an entry's file lies: an absolute path or a URL."""
        return self.chain.place_of(entry).store.location(entry.path)

    def entry(self, dataset_type: str, /, **data_id: Any) -> Entry | None:
        """Return the registry's entry of a dataset from the nearest repository of the chain, None if there is none.

        Raises
        ------
        DatasetNotFound
            If the data id fits several datasets.
        """
        kind, wanted = self.policy[dataset_type], self.chain.data_id(dataset_type, data_id)
        if isinstance(kind, CompositeType) or (isinstance(kind, AggregateType) and kind.stored is None):
            return None
        return self.chain.entry(self.chain.stored(kind), wanted)

    def find(self, dataset_type: str, selection: Selection | None = None, /, **known: Any) -> list[Entry]:
        """Return the entries of a type that agree with a selection and known keys, in order of data id.

        An entry of a child hides those of its parents with the same identity.
        """
        return self.chain.find(dataset_type, selection, self.chain.data_id(dataset_type, known))

    def overlapping(self, dataset_type: str, region: SkyCircle, /, **known: Any) -> list[Entry]:
        """Return the entries of a type that meet a circle on the sky, nearest first."""
        return self.chain.overlapping(dataset_type, region, self.chain.data_id(dataset_type, known))

    def get_entry(self, entry: Entry, *, box: Box | None = None) -> Any:
        """Read the dataset of an entry, verified by size and checksum; with a `box` only that part of it.

        A dataset that was replaced since the entry was looked up is read as it is now.
        """
        storage = self.chain.stored(self.policy[entry.type]).storage
        if box is None:
            return self._read(entry, Place.fetch, storage.read)
        if (read_box := storage.read_box) is None:
            raise BadSettings(f"{entry.type} has no box to read", remedy="read it whole")
        return self._read(entry, Place.open, lambda file: read_box(file, box))

    def peek(self, entry: Entry, component: str) -> Any:
        """Read one part of the dataset of an entry without counting it as read: to decide whether to read it."""
        storage = self.chain.stored(self.policy[entry.type]).storage
        tracks, self._tracks = self._tracks, []
        try:
            return self._read(entry, Place.open, storage.components[component])
        finally:
            self._tracks = tracks

    def input(self, entry: Entry) -> Input:
        """Return an entry as what another dataset was made from."""
        return Input(entry.type, dict(entry.identity), entry.checksum, entry.root)

    def precursors(self, dataset_type: str, /, **data_id: Any) -> tuple[Input, ...]:
        """Return what a dataset was made from, as it was stored with it; DatasetNotFound if there is none."""
        kind = self.chain.stored(self.policy[dataset_type])
        entry = self.chain.required(kind, self.chain.data_id(dataset_type, data_id))
        return self.chain.place_of(entry).registry.inputs(entry.type, entry.identity)

    def note(self, entry: Entry) -> None:
        """Count an entry as read, for those who read its file themselves."""
        for track in self._tracks:
            if (read := self.input(entry)) not in track:
                track.append(read)

    @contextmanager
    def tracking(self) -> Iterator[list[Input]]:
        """Yield a list that every dataset read inside the block is added to."""
        read: list[Input] = []
        self._tracks.append(read)
        try:
            yield read
        finally:
            self._tracks.remove(read)

    def ingest(
        self,
        source: Path,
        dataset_type: str,
        /,
        *,
        copy: bool = False,
        valid: tuple[float, float] | None = None,
        **data_id: Any,
    ) -> str:
        """Take a file in by link (or copy) and return its location.

        Parameters
        ----------
        valid
            Span of time (MJD TAI, half-open) that a calibration holds for; default: always.

        Raises
        ------
        Conflict
            If the id has another file already, or the span overlaps another one's.
        """
        return links.ingest_file(self, source, dataset_type, copy=copy, valid=valid, data_ids=[data_id])

    def ingest_many(
        self, source: Path, dataset_type: str, data_ids: Sequence[Mapping[str, Any]], *, copy: bool = False
    ) -> str:
        """Take in a file that holds several datasets, such as all detectors of an exposure."""
        return links.ingest_file(self, source, dataset_type, copy=copy, valid=None, data_ids=data_ids)

    def ingest_refcat(self, sources: Sequence[Path], *, name: str = "main", copy: bool = False) -> str:
        """Take a reference catalogue in: one HATS folder by link, anything else converted together to one."""
        return links.ingest_refcat(self, sources, name=name, copy=copy)

    def select(self, words: Sequence[str]) -> Selection:
        """Parse a selection in the camera's words or ours; its filters stand for their bands."""
        parsed = Selection.parse(words, self.chain.aliases)
        bands = {spec.physical: spec.band for spec in load_camera(self.camera).filters if spec.physical}
        known = set(bands.values())
        wanted = tuple(v if v in known else bands.get(str(v), v) for v in parsed.choices.get("band", ()))
        return Selection({**parsed.choices, "band": wanted}) if wanted else parsed

    def close(self) -> None:
        """Close the registries."""
        for place in self.chain.places:
            place.registry.close()

    def _component(self, kind: ComponentType, data_id: Mapping[str, Any]) -> Any:
        parent = self.policy[kind.of]
        if kind.component == "inputs":
            return self.precursors(kind.of, **data_id)
        if isinstance(parent, CompositeType):
            return self.get(composites.type_of(self, parent, kind.component, data_id), **data_id)
        stored = self.chain.stored(parent)
        return self._read(self.chain.required(stored, data_id), Place.open, stored.storage.components[kind.component])

    def _read(
        self, entry: Entry, opened: Callable[[Place, Entry], AbstractContextManager[F]], read: Callable[[F], Any]
    ) -> Any:
        """Read an entry, and again if another content took its place between look-up and reading."""
        place = self.chain.place_of(entry)
        while True:
            try:
                with self._reading(entry), opened(place, entry) as file:
                    value = read(file)
            except (BadFile, FileMissing):
                now = place.get(entry.type, dict(entry.identity))
                if now is None or (now.path, now.checksum) == (entry.path, entry.checksum):
                    raise
                entry = now
            else:
                self.note(entry)
                return value

    @contextmanager
    def _reading(self, entry: Entry) -> Iterator[None]:
        """Errors name the dataset; a file that cannot be read is compared with its checksum."""
        name = f"{self.location(entry)} ({entry.type} {data_id_text(entry.data_id)})"
        try:
            yield
        except BadFile as error:
            reason = self.chain.place_of(entry).diagnose(entry, error.message)
            raise BadFile(reason, where=name, remedy=error.remedy) from error
        except FileMissing as error:
            raise FileMissing(
                "the file of a dataset is gone", where=name, remedy="make or ingest it again; apstream repo check"
            ) from error
