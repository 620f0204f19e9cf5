"""Look-ups as SQL: a selection becomes conditions on columns, a circle becomes ranges of sky pixels.

SQLite keeps no statistics that could be trusted, so it is told which index to take: the conditions on the columns
that lead are written plainly, on all others in a form that no index serves, and alternatives become a union, since
an OR beside another condition would not go through the index. PostgreSQL has statistics and decides for itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import hpgeom
import sqlalchemy as sa

from apstream.model.products import SkyCircle
from apstream.repo.registry_tables import DATASETS, NSIDE
from apstream.repo.selection import NUMBER_KEYS, TEXT_KEYS, Choice, Selection, Span, as_number

__all__ = ["among", "covering", "lookup"]

Condition = sa.ColumnElement[bool]

# the columns of each index, the index that narrows most first
_LEADING = (
    ("visit", "detector"),
    ("tract", "patch", "band"),
    ("name",),
    ("day", "detector"),
    ("patch",),
    ("detector", "band"),
    ("band",),
)
_MAX_SPANS = 50
_MAX_RANGES = 24
_MARGIN_DEG = 1e-6
_INT64 = (-(2**63), 2**63 - 1)


def lookup(
    type: int,
    selections: Sequence[Selection],
    *,
    sqlite: bool,
    near: Sequence[Condition] = (),
    also: Sequence[Condition] = (),
) -> sa.Select[Any]:
    """Return the query for all datasets of a type in all of `selections`, and hardly any other.

    Parameters
    ----------
    type
        Number of the type.
    selections
        What is wanted; keys that have no column are left to the caller, who looks at each dataset again.
    sqlite
        Whether the database is SQLite.
    near
        Alternatives that lead to an index, of which one must hold; without any the selections lead.
    also
        Other conditions.
    """
    wanted = [
        (key, choices)
        for selection in selections
        for key, choices in selection.choices.items()
        if key in NUMBER_KEYS or (key in TEXT_KEYS and not _has_span(choices))
    ]
    leading = () if near else _leading(wanted)
    alternatives, others = list(near), [DATASETS.c.type == type, *also]
    for key, choices in wanted:
        leads = key in leading[:1] and not alternatives
        plain = leads or key in leading[1:] or not (sqlite or near)
        terms = _terms(DATASETS.c[key] if plain else _unindexed(key), key, choices, sqlite)
        if leads:
            alternatives = terms
        else:
            others.append(sa.or_(*terms))
    return _one_of(alternatives, others, sqlite)


def _one_of(alternatives: Sequence[Condition], others: Sequence[Condition], sqlite: bool) -> sa.Select[Any]:
    if not sqlite or len(alternatives) < 2:
        either = [sa.or_(*alternatives)] if alternatives else []
        return sa.select(DATASETS).where(*others, *either)
    rows = DATASETS.alias("found")
    ids = (sa.select(DATASETS.c.id).where(*others, alternative) for alternative in alternatives)
    return sa.select(rows).where(rows.c.id.in_(sa.union_all(*ids)))


def among(column: sa.ColumnElement[Any], values: Sequence[Any], *, sqlite: bool) -> Condition:
    """Return the condition that a column has one of any number of values."""
    if sqlite and len(values) > 1:
        listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(listed.c.value))
    wanted = values[0] if len(values) == 1 else sa.any_(sa.literal(list(values), sa.ARRAY(column.type)))
    equal: Condition = column == wanted
    return equal


def covering(region: SkyCircle, margin: float) -> list[Condition]:
    """Return conditions of which one holds if the centre of a dataset lies within `margin` degrees of a circle."""
    radius = region.radius + margin + _MARGIN_DEG
    pixel = DATASETS.c.pixel
    if radius >= 90:
        return [pixel >= 0]
    return [pixel.between(low, high) for low, high in _ranges(region.ra % 360, region.dec, radius)]


def _ranges(ra: float, dec: float, radius: float) -> list[tuple[int, int]]:
    nside = NSIDE
    while nside > 1 and hpgeom.nside_to_resolution(nside) < radius / 8:
        nside //= 2
    while True:
        ranges = hpgeom.query_circle(nside, ra, dec, radius, inclusive=True, return_pixel_ranges=True)
        if len(ranges) <= _MAX_RANGES or nside == 1:
            break
        nside //= 2
    fine = (NSIDE // nside) ** 2
    return [(int(low) * fine, int(high) * fine - 1) for low, high in ranges]


def _leading(wanted: Sequence[tuple[str, Sequence[Choice]]]) -> tuple[str, ...]:
    """Return the columns of the index to take: one with values rather than one with ranges, none behind a list."""
    spanned = {key for key, choices in wanted if _has_span(choices)}
    exact = {key for key, choices in wanted if len(choices) == 1} - spanned
    valued = {key for key, _ in wanted} - spanned
    narrow = [columns for columns in _LEADING[:4] if columns[0] in valued]
    usable = narrow or [columns for columns in _LEADING if columns[0] in valued | spanned]
    return tuple(takewhile(exact.__contains__, usable[0])) or usable[0][:1] if usable else ()


def _unindexed(key: str) -> sa.ColumnElement[Any]:
    column: sa.ColumnElement[Any] = DATASETS.c[key]
    return column.concat("") if key in TEXT_KEYS else column + 0


def _terms(column: sa.ColumnElement[Any], key: str, choices: Sequence[Choice], sqlite: bool) -> list[Condition]:
    texts = [choice for choice in choices if not isinstance(choice, Span)]
    if key in TEXT_KEYS:
        return [among(column, texts, sqlite=sqlite)]
    numbers = sorted({number for text in texts if (number := as_number(key, text)) is not None})
    terms = _spanning(column, [choice for choice in choices if isinstance(choice, Span)])
    if numbers:
        terms.append(among(column, numbers, sqlite=sqlite))
    if any(as_number(key, text) is None for text in texts):
        terms.append(column.is_(None))  # what is no number has no column: the caller looks at the text
    return terms or [sa.false()]


def _spanning(column: sa.ColumnElement[Any], spans: Sequence[Span]) -> list[Condition]:
    clipped = [(max(s.first, _INT64[0]), min(s.last, _INT64[1]), s) for s in spans]
    if len(clipped) > _MAX_SPANS:
        return [column.between(min(low for low, _, _ in clipped), max(high for _, high, _ in clipped))]
    return [_between(column, low, high, span) for low, high, span in clipped]


def _between(column: sa.ColumnElement[Any], low: int, high: int, span: Span) -> Condition:
    inside = column.between(low, high)
    return inside if span.step == 1 else sa.and_(inside, (column - span.first) % span.step == 0)


def _has_span(choices: Sequence[Choice]) -> bool:
    return any(isinstance(choice, Span) for choice in choices)
