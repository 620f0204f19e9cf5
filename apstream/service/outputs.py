"""Where a batch command reads and writes, and the record of what it ran with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from apstream.errors import BadSettings
from apstream.repo.repository import Repository
from apstream.repo.runs import RunRecord, read_run, record_run, software_versions
from apstream.service.schemas import schema_record

__all__ = ["BatchPlaces", "keep_record"]

#: Branches that decide nothing about the products.
_NOT_RECORDED = {"apdb", "workers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlaces:
    """The repositories that a batch command names.

    Parameters
    ----------
    root
        Raws, calibrations, catalogues.
    rerun
        Name of a child repository inside `root` for the products.
    output
        Root of a child repository elsewhere for the products.
    template
        Repository with templates, if another one.
    template_id
        Calexps to take as templates, ``visit=234567``.
    """

    root: str
    rerun: str = ""
    output: str = ""
    template: str = ""
    template_id: str = ""

    def open_output(self) -> Repository:
        """Return the repository that products go to, created if absent; what is not in it is read from `root`.

        Raises
        ------
        BadSettings
            If both a rerun and an output are named.
        """
        if self.rerun and self.output:
            raise BadSettings("one place for the products, not two", where="--output", remedy="leave out --rerun")
        repository = Repository(self.root)
        if self.rerun:
            return repository.rerun(self.rerun)
        return Repository.create(self.output, parents=[repository.root]) if self.output else repository

    def choices(self) -> dict[str, Any]:
        """Return what of these decides on the products: settings of `RepositorySettings`."""
        chosen: dict[str, Any] = {}
        if self.template:
            chosen["template_root"] = Repository(self.template).root
        if self.template_id:
            chosen["template_id"] = _one_id(self.template_id)
        return chosen


def keep_record(
    output: Repository, command: str, settings: BaseModel, choices: Mapping[str, Any], *, replace: bool
) -> str:
    """Keep in a repository what a command runs with, once; return the record's id.

    The record of a command that ended before it stored anything is replaced.

    Raises
    ------
    Conflict
        If the command made something there with other settings, versions or schemas; lists what differs.
    """
    record = RunRecord(
        command=command,
        settings={**settings.model_dump(mode="json", exclude=_NOT_RECORDED), **choices},
        versions=software_versions(),
        schemas=schema_record(),
    )
    record_run(output.own.store, record, replace=replace or _made_nothing(output, command, settings))
    output.own.registry.add_run(record.id, asdict(record))
    return record.id


def _made_nothing(output: Repository, command: str, settings: BaseModel) -> bool:
    """Whether a command's present record stands for nothing; what it wrote to an APDB the registry does not know."""
    before = None if "apdb" in type(settings).model_fields else read_run(output.own.store, command)
    return before is not None and not output.own.registry.has_products(before.id)


def _one_id(text: str) -> dict[str, int]:
    from apstream.repo.selection import Selection

    chosen = Selection.parse([text]).choices
    try:
        found = {key: int(str(values[0])) for key, values in chosen.items() if len(values) == 1}
    except ValueError:
        found = {}
    if len(found) != len(chosen) or "visit" not in found:
        raise BadSettings(f"{text!r} names no calexp", where="--template-id", remedy="write visit=NUMBER")
    return found
