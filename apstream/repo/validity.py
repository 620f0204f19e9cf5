"""Datasets that hold for a span of time: which one is valid, and whether a new one may come in.

A span is half-open in MJD TAI. An open end means: until the next one begins; spans with explicit ends must not
overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apstream.errors import BadSettings, BadValidity, Conflict, DatasetNotFound
from apstream.repo.data_ids import since_text
from apstream.repo.dataset_types import StoredType, data_id_text
from apstream.repo.entries import Entry

if TYPE_CHECKING:
    from apstream.repo.chain import Chain

__all__ = ["ALWAYS", "find_valid", "new_span", "span_text"]

ALWAYS = (-math.inf, math.inf)


def find_valid(chain: Chain, kind: StoredType, data_id: Mapping[str, Any]) -> Entry | None:
    """Return the entry that is valid at ``mjd`` of a data id, the child's before the parents'.

    None if no such dataset was ever stored.

    Raises
    ------
    BadValidity
        If ``mjd`` falls into a gap between those that there are, or on an overlap of several.
    DatasetNotFound
        If ``mjd`` is not given and there are several.
    """
    known = {key: data_id[key] for key in kind.identity_keys if key in data_id}
    mjd = data_id.get("mjd")
    if mjd is None:
        return _only(chain, kind, known)
    for place in chain.places:
        entries = place.registry.valid_at(kind.name, float(mjd), **known)
        if entries:
            return place.rooted(_latest(entries, kind, known, float(mjd)))
    present = chain.find(kind.name, None, known)
    if not present:
        return None
    spans = ", ".join(span_text(entry.valid) for entry in present[:8])
    raise BadValidity(
        f"no {kind.name} with {data_id_text(known)} is valid at {since_text(float(mjd))}; there are {spans}",
        where=chain.root,
        remedy=f"ingest a {kind.name} of that time, or ingest one again with another --valid-from and --valid-to",
    )


def new_span(
    chain: Chain, kind: StoredType, valid: tuple[float, float] | None, data_id: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Return the span that a new dataset will hold for; None for types without validity.

    Raises
    ------
    BadSettings
        If the type has no validity but a span is given, or the span is empty.
    Conflict
        If it overlaps another one with an explicit end; names both.
    """
    if not kind.validity:
        if valid is not None:
            raise BadSettings(f"{kind.name} has no validity", remedy="leave --valid-from and --valid-to out")
        return None
    valid = valid or ALWAYS
    if not valid[0] < valid[1]:
        raise BadSettings(f"the span {span_text(valid)} is empty", remedy="let it end after it begins")
    known = {key: data_id[key] for key in kind.identity_keys if key in data_id}
    for entry in chain.own.registry.find(kind.name, None, **known):
        other = entry.valid or ALWAYS
        meets = valid[0] < other[1] and other[0] < valid[1]
        if meets and math.inf not in (valid[1], other[1]) and other[0] != valid[0]:
            raise Conflict(
                f"{kind.name} {data_id_text(known)} valid {span_text(valid)} overlaps the one valid {span_text(other)}",
                remedy="give it a begin and an end that do not overlap",
            )
    return valid


def span_text(valid: tuple[float, float] | None) -> str:
    """Return a span as users read it."""
    begin, end = valid or ALWAYS
    return f"{since_text(begin)}..{'' if end == math.inf else since_text(end)}"


def _latest(entries: Sequence[Entry], kind: StoredType, known: Mapping[str, Any], mjd: float) -> Entry:
    """Of several, one with an explicit end wins over open ends, of open ends the last to begin."""
    closed = [entry for entry in entries if (entry.valid or ALWAYS)[1] != math.inf]
    if len(closed) > 1:
        spans = " and ".join(span_text(entry.valid) for entry in closed)
        raise BadValidity(
            f"{len(closed)} {kind.name} with {data_id_text(known)} are valid at {since_text(mjd)}: {spans}",
            remedy="remove one, or ingest it again with another span",
        )
    if closed:
        return closed[0]
    return max(entries, key=lambda entry: (entry.valid or ALWAYS)[0])


def _only(chain: Chain, kind: StoredType, known: Mapping[str, Any]) -> Entry | None:
    entries = chain.find(kind.name, None, known)
    if len(entries) > 1:
        raise DatasetNotFound(
            f"{kind.name} with {data_id_text(known)} fits {len(entries)} datasets",
            where=chain.root,
            remedy="give mjd, the time of the exposure, or since",
        )
    return entries[0] if entries else None
