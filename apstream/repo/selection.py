"""The selection grammar of the command line: ``visit=1^2 detector=3^6..12 filter=g``.

Values compare as numbers where they are numbers: ``visit=007`` selects visit 7. The values of `TEXT_KEYS` are
text always: ``name=007`` selects ``007`` only. A night is written ``20260131`` or ``2026-01-31``, which is the same.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from apstream.errors import BadSettings

__all__ = ["DEFAULT_ALIASES", "NUMBER_KEYS", "TEXT_KEYS", "Choice", "Selection", "Span", "as_number"]

NUMBER_KEYS = ("visit", "detector", "tract", "patch", "day")
TEXT_KEYS = ("band", "name")

#: What the cameras call our keys.
DEFAULT_ALIASES: Mapping[str, str] = MappingProxyType(
    {"filter": "band", "ccd": "detector", "ccdnum": "detector", "expnum": "visit"}
)

_INTEGER = re.compile(r"-?[0-9]+")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_RANGE = re.compile(r"([-0-9]+)\.\.([-0-9]+)(?::([0-9]+))?")
_MOST = 2**63
_REMEDY = "write e.g. visit=123456^123457 detector=3^6..12 filter=g"


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers first, first + step, ... up to and with last."""

    first: int
    last: int
    step: int = 1

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number in range(self.first, self.last + 1, self.step)

    def __str__(self) -> str:
        return f"{self.first}..{self.last}" + (f":{self.step}" if self.step != 1 else "")


Choice: TypeAlias = str | Span


@dataclass(frozen=True, slots=True)
class _Allowed:
    """The choices of a key, made ready to look at many values."""

    texts: frozenset[str]
    numbers: frozenset[int]
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, key: str, choices: Sequence[Choice]) -> _Allowed:
        texts = frozenset(choice for choice in choices if not isinstance(choice, Span))
        numbers = frozenset(number for text in texts if (number := _parse(key, text)) is not None)
        return cls(texts, numbers, tuple(choice for choice in choices if isinstance(choice, Span)))

    def holds(self, key: str, value: object) -> bool:
        if value is None:
            return False
        number = as_number(key, value)
        listed = str(value) in self.texts if number is None else number in self.numbers
        if listed or not self.spans:
            return listed
        number = _parse(key, str(value)) if number is None else number
        return any(number in span for span in self.spans)


@dataclass(frozen=True, slots=True)
class Selection:
    """Allowed values by data-id key; an empty selection allows everything.

    Parameters
    ----------
    choices
        The alternatives of each key, as text or as ranges.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    _allowed: Mapping[str, _Allowed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        allowed = {key: _Allowed.of(key, choices) for key, choices in self.choices.items()}
        object.__setattr__(self, "_allowed", allowed)

    @classmethod
    def parse(cls, words: Sequence[str], aliases: Mapping[str, str] = DEFAULT_ALIASES) -> Selection:
        """Parse selection words, each with one or several ``key=value``.

        ``^`` separates alternatives, ``a..b`` is a range with both ends, ``a..b:s`` one with a step. A key that
        comes twice adds to its alternatives. A range stays a range, whatever its length.

        Parameters
        ----------
        words
            What the user wrote.
        aliases
            Other words for our keys.

        Raises
        ------
        BadSettings
            If a word is not ``key=value`` or a range is impossible; names ``--id``.
        """
        choices: dict[str, tuple[Choice, ...]] = {}
        for word in " ".join(words).split():
            key, equals, text = word.partition("=")
            if not (key and equals and text and word.isprintable()):
                raise BadSettings(f"{word!r} is not key=value", where="--id", remedy=_REMEDY)
            key = aliases.get(key, key)
            known = choices.get(key, ())
            fresh = dict.fromkeys(_choice(key, part, word) for part in text.split("^"))
            choices[key] = known + tuple(choice for choice in fresh if choice not in known)
        return cls(choices)

    @classmethod
    def exactly(cls, known: Mapping[str, Any]) -> Selection:
        """Return the selection of what agrees with `known`; a value of None is not known."""
        return cls({key: (str(value),) for key, value in known.items() if value is not None})

    def matches(self, data_id: Mapping[str, Any]) -> bool:
        """Tell whether a data id is selected; a key that the data id lacks does not match."""
        return all(allowed.holds(key, data_id.get(key)) for key, allowed in self._allowed.items())

    def __bool__(self) -> bool:
        return bool(self.choices)

    def __str__(self) -> str:
        return " ".join(f"{key}={'^'.join(map(str, choices))}" for key, choices in self.choices.items())


def as_number(key: str, value: object) -> int | None:
    """Return the number (64 bits) that a value of `key` is compared as, None if it is compared as text."""
    if value is None or key in TEXT_KEYS or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _parse(key, value) if key in NUMBER_KEYS else None
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    return number if -_MOST <= number < _MOST else None


def _parse(key: str, text: str) -> int | None:
    date = _DATE.fullmatch(text) if key == "day" else None
    if date:
        return int("".join(date.groups()))
    number = int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else _MOST
    return number if -_MOST <= number < _MOST else None


def _choice(key: str, part: str, word: str) -> Choice:
    if not part:
        raise BadSettings(f"an alternative of {word!r} is empty", where="--id", remedy=_REMEDY)
    if ".." not in part or key in TEXT_KEYS:
        return part
    found = _RANGE.fullmatch(part)
    first, last = (_parse(key, found[1]), _parse(key, found[2])) if found else (None, None)
    step = int(found[3]) if found and found[3] else 1
    dates = found is not None and _DATE.fullmatch(found[1]) is not None
    if first is None or last is None or last < first or step < 1 or (dates and step > 1):
        raise BadSettings(f"impossible range {part!r}", where="--id", remedy="write first..last or first..last:step")
    return Span(first, last, step)
