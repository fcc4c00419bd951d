"""The compact notation of a series: `10000 -1%x5 =x3 stale 9500`.

A series is a list of items with spaces between them; each item is one step, or several with `xN`:

| item | value at the step |
|---|---|
| `9500`, `=9500`, `=-20` | this number; below zero only after `=` |
| `-1%`, `+0.5%` | the last number changed by this share of it |
| `-100`, `+2.5` | the last number changed by this amount |
| `=` | the last number |
| `_` | absent: the value is unknown |
| `stale`, `down`, `malformed` | the account could not be read (only a series of equity) |

`xN` repeats an item N times, `x*` repeats the last item until the end of the scenario, and `(… …)xN` repeats several
items together: `(+1% -1%)x50` is a market that moves and stays where it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.problems import Problem
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import quoted

Unread = Literal["stale", "down", "malformed"]
UNREAD: Final[tuple[Unread, ...]] = ("stale", "down", "malformed")
MOST_STEPS = 100_000
"""The most steps of a scenario: more than two months of minutes."""

_ITEM = re.compile(r"\(|\)[^\s()]*|[^\s()]+")
_REPEATED = re.compile(r"(.+?)x(\d+|\*)", re.ASCII)
_NUMBER = re.compile(r"(=|=?[+-])?(\d{1,20}(?:\.\d{1,12})?)(%)?", re.ASCII)
_TIMES = re.compile(r"\)x(\d+)", re.ASCII)
_GROUP_FIX = "write items in parentheses and how often, such as (+1% -1%)x20"
_FIX = "write a number, a change such as -1% or +20, `=` for the last value, `_` for unknown, each with xN to repeat it"


class SeriesItem(Struct, frozen=True):
    """One item. `value`: the number, the change, or the share of a change; `count` None: until the end."""

    kind: Literal["number", "change", "share", "same", "absent", "unread"]
    value: Decimal = Decimal(0)
    unread: Unread | None = None
    count: int | None = 1
    start: int = 0
    length: int = 1


Value = Decimal | Unread | None
"""The value at a step: a number, why the account could not be read, or None: unknown."""


class ParsedSeries(Struct, frozen=True):
    """The items of a text, and the problems in it; with any problem the items are incomplete."""

    items: tuple[SeriesItem, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it is a single number that never changes."""
        return len(self.items) == 1 and self.items[0].kind == "number" and self.items[0].count == 1

    @property
    def steps(self) -> int | None:
        """The number of its steps; None for a constant, and for one that is repeated until the end."""
        counts = [item.count for item in self.items if item.count is not None]
        return None if self.is_constant or len(counts) < len(self.items) else sum(counts)

    @property
    def least(self) -> int:
        """The least number of steps of a scenario that it fits into."""
        return sum(1 if item.count is None else item.count for item in self.items)


def parse_series(text: str, *, unread: bool = False) -> ParsedSeries:
    """Parse a series; `unread`: whether the words of an account that could not be read are allowed.

    Every problem has its place in the text.
    """
    items: list[SeriesItem] = []
    problems: list[Problem] = []
    group: _Group | None = None
    is_broken = False
    """Whether an item is wrong, so that those after it cannot be compared with those before them."""
    for found in _ITEM.finditer(text):
        written, start = found[0], found.start()
        if written == "(" and group is None:
            group = _Group(len(items), start)
        elif written[0] in "()":
            why = _repeat_group(written, group, items)
            group = None if written[0] == ")" else group
            if why and not (is_broken and why == EMPTY_GROUP):
                problems.append(Problem("KS7010", f"`{written}`: {why}", _GROUP_FIX, start, len(written)))
        else:
            item = _item(written, start, unread=unread)
            if isinstance(item, Problem):
                problems.append(item)
                is_broken = True
            elif why := _misplaced(item, items):
                if not is_broken:
                    problems.append(Problem("KS7010", f"`{written}`: {why}", _FIX, start, len(written)))
                is_broken = True
            else:
                items.append(item)
    if group is not None:
        problems.append(Problem("KS7010", "`(`: the group does not end", _GROUP_FIX, group.start, 1))
    if not items and not problems:
        problems.append(Problem("KS7010", "the series is empty", _FIX))
    if _steps_of(items) > MOST_STEPS:
        fix = "use longer steps, or several scenarios"
        problems.append(Problem("KS7010", f"the series has more than {MOST_STEPS} steps", fix))
    return ParsedSeries(tuple(items), tuple(problems))


class _Group(Struct, frozen=True):
    """A group that is open: the index of its first item, and its place in the text."""

    first: int
    start: int


EMPTY_GROUP = "the group is empty"


def _repeat_group(written: str, group: _Group | None, items: list[SeriesItem]) -> str:
    """Repeat the items of the group that `written` ends; returns why it cannot, or an empty text."""
    if written == "(":
        return "a group is inside of another"
    if group is None:
        return "no group begins before it"
    times = _TIMES.fullmatch(written)
    inside = items[group.first :]
    if times is None or not 1 <= int(times[1][:9]) <= MOST_STEPS:
        return "it does not say how often the group is repeated"
    if not inside or any(each.count is None for each in inside):
        return EMPTY_GROUP if not inside else "an item of the group is repeated until the end"
    if _steps_of(items[: group.first]) + _steps_of(inside) * int(times[1]) > MOST_STEPS:
        return f"the series has more than {MOST_STEPS} steps"
    items += inside * (int(times[1]) - 1)
    return ""


def _steps_of(items: Sequence[SeriesItem]) -> int:
    return sum(item.count or 1 for item in items)


def _item(written: str, start: int, *, unread: bool) -> SeriesItem | Problem:
    repeated = _REPEATED.fullmatch(written)
    word, times = (repeated[1], repeated[2]) if repeated else (written, "1")
    try:
        named = _item_of(word, times, unread=unread)
    except MistakeError as error:
        return Problem(error.code, error.message, error.fix, start, len(written))
    return replace(named, count=None if times == "*" else int(times), start=start, length=len(written))


def _item_of(word: str, times: str, *, unread: bool) -> SeriesItem:
    """The item of a word that is repeated `times`. MistakeError."""
    if times != "*" and not 1 <= int(times[:9]) <= MOST_STEPS:
        fix = f"write x1 to x{MOST_STEPS}, or x* until the end"
        raise MistakeError("KS7010", f"`{word}` is repeated {times} times", fix)
    if word in UNREAD and not unread:
        fix = f"write `{word}` in its `equity`, or `_` for unknown here"
        raise MistakeError("KS7010", f"`{word}` is of a whole account", fix)
    return _named(word) or _number(word)


def _named(word: str) -> SeriesItem | None:
    """The item of a word that is no number; None for any other."""
    if word in ("=", "_"):
        return SeriesItem("same" if word == "=" else "absent")
    return next((SeriesItem("unread", unread=each) for each in UNREAD if word == each), None)


def _number(word: str) -> SeriesItem:
    """The item of a number or a change. MistakeError."""
    number = _NUMBER.fullmatch(word)
    if number is None:
        if word.lower().strip("+-=") in ("nan", "inf", "infinity"):
            message = f"`{word}` is not a number that an account can have"
            raise MistakeError("KS7010", message, "write `_` for an unknown value")
        raise MistakeError("KS7010", f"{quoted(word)} is not an item of a series", _FIX)
    sign, digits, percent = number[1] or "", number[2], number[3]
    value = -Decimal(digits) if sign.endswith("-") else Decimal(digits)
    if percent and sign not in ("+", "-"):
        raise MistakeError("KS7010", f"`{word}` is a share of nothing", f"write +{digits}% or -{digits}%")
    if percent:
        return SeriesItem("share", value / 100)
    return SeriesItem("change" if sign in ("+", "-") else "number", value)


def _misplaced(item: SeriesItem, before: Sequence[SeriesItem]) -> str:
    """Why the item cannot follow those before it; empty if it can."""
    if before and before[-1].count is None:
        return "nothing follows an item that is repeated until the end"
    if item.kind in ("change", "share", "same") and not any(each.kind == "number" for each in before):
        return "no number comes before it"
    return ""


def values(series: ParsedSeries, steps: int) -> list[Value]:
    """The value at each of `steps` steps of a series without problems that fits into them."""
    found: list[Value] = []
    last = Decimal(0)
    for item in series.items:
        count = steps - len(found) if item.count is None or series.is_constant else item.count
        for _ in range(count):
            match item.kind:
                case "number":
                    last = item.value
                case "change":
                    last += item.value
                case "share":
                    last *= 1 + item.value
            found.append(None if item.kind == "absent" else item.unread if item.kind == "unread" else last)
    return found
