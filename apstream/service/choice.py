"""What coadds and warps are made of, and which: the ids that a user gives, and what they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from apstream.errors import BadSettings, DatasetNotFound
from apstream.repo.data_ids import check_keys
from apstream.repo.repository import Repository
from apstream.repo.selection import Selection
from apstream.service.batch import BatchJob, select_raws

__all__ = ["Choice", "Origin", "check_origin", "choose", "select_calexps"]

#: What coadds are made from: raws (calibrated where there is no calexp), calexps that are there, or warps that are.
Origin = Literal["raw", "calexp", "warp"]
_OUTPUT_KEYS = {"tract", "patch"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which exposures are combined, and to which patches.

    Parameters
    ----------
    inputs
        Words that select exposures.
    patches
        Tracts, patches and bands that are wanted; empty: all that the exposures touch.
    """

    inputs: tuple[str, ...] = ()
    patches: Selection = field(default_factory=lambda: Selection({}))

    def wants(self, band: str, tract: int, patch: int) -> bool:
        """Tell whether a patch is to be made."""
        return self.patches.matches({"band": band, "tract": tract, "patch": patch})


def choose(repository: Repository, ids: Sequence[str], select_ids: Sequence[str]) -> Choice:
    """Tell the words that name patches from those that select exposures.

    ``--id`` names patches if it has a tract or a patch, or if there is a ``--select-id``; else it selects exposures.

    Raises
    ------
    BadSettings
        If ``--id`` has words of both kinds.
    """
    named = repository.select(ids)
    if not select_ids and not _OUTPUT_KEYS & named.choices.keys():
        return Choice(tuple(ids))
    if stray := sorted(named.choices.keys() - _OUTPUT_KEYS - {"band"}):
        raise BadSettings(
            f"{', '.join(stray)} names no patch",
            where="--id",
            remedy="name patches by tract, patch and filter, and select exposures with --select-id",
        )
    words = list(select_ids)
    if "band" in named.choices and "band" not in repository.select(select_ids).choices:
        words += ["band=" + "^".join(str(band) for band in named.choices["band"])]
    return Choice(tuple(words), named)


def check_origin(text: str) -> Origin:
    """Return what coadds are made from; BadSettings if it is none of the three."""
    for origin in get_args(Origin):
        if text == origin:
            return text  # type: ignore[return-value]
    raise BadSettings(f"coadds are not made from {text!r}", where="--from", remedy="raw, calexp or warp")


def select_calexps(repository: Repository, words: Sequence[str], origin: Origin) -> list[BatchJob]:
    """Return the exposures that words select, in order of visit and detector.

    Those with a raw frame come with its path; calexps that have none, and all where `origin` is calexp, without.

    Raises
    ------
    DatasetNotFound
        If there is none.
    """
    found: dict[Any, BatchJob] = {}
    if origin == "raw":
        try:
            found = {job.id: job for job in select_raws(repository, words)}
        except DatasetNotFound:
            if not _calexps(repository, words):
                raise
    for job in _calexps(repository, words):
        found.setdefault(job.id, job)
    if not found:
        raise DatasetNotFound(
            f"no location for calexp with {' '.join(words) or 'any id'}",
            where=repository.root,
            remedy="apstream run and apstream calibrate make calexps; coadd and warp do with --from raw",
        )
    return [found[id] for id in sorted(found)]


def _calexps(repository: Repository, words: Sequence[str]) -> list[BatchJob]:
    from apstream.cameras import load_camera
    from apstream.model.ids import VisitDetector

    selection = repository.select(words)
    if selection.choices.keys() - {"visit", "detector", "band", "tract", "patch"}:
        return []
    check_keys(selection.choices, repository.policy.keys("calexp"), "calexp")
    instrument = load_camera(repository.camera).name
    return [
        BatchJob(VisitDetector(instrument, entry.data_id["visit"], entry.data_id["detector"]), "")
        for entry in repository.find("calexp", selection)
    ]
