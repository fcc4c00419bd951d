"""Signals whose values a scenario gives, whatever its book is: `equity.drawdown("1h")`: `0%x3 7.5% unknown`.

A series of a signal has the items

| item | value at the step |
|---|---|
| `7.5%`, `0.075`, `=-20` | this number |
| `4%..10%`, `4%..`, `..10%` | partly known: between these, both included |
| `unknown`, `_` | unknown |
| `true`, `false`, a word | of a signal that is a truth or a text |
| `=` | the last value |

`xN` repeats an item, `x*` repeats the last one until the end, and a single item never changes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.graph.nodes import SignalRef
from killswitch.graph.problems import Problem, suggestion
from killswitch.graph.wording import signal_text
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import SignalSpec, TextSignal
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader, SignalColumns
from killswitch.valuation.scope_view import ScopeView

MOST_STEPS = 100_000
_REPEATED = re.compile(r"(.+?)x(\d{1,6}|\*)", re.ASCII)
_NUMBER = re.compile(r"=?([+-]?\d{1,310}(?:\.\d{1,340})?)(%)?", re.ASCII)
_LAYOUT = re.compile(r"[\s\"']|\(\)")
_FIX = "write a number, an interval such as 4%..10%, `unknown`, or `=` for the last value, each with xN to repeat it"


class GivenValue(Struct, frozen=True):
    """The value of a signal at a step: an interval, or a text; unknown is an infinite interval, or no text."""

    low: float
    high: float
    text: str | None = None


class _Item(Struct, frozen=True):
    value: GivenValue | None
    """None: the last value."""
    count: int | None


class GivenSeries(Struct, frozen=True):
    """The items of a series of one signal; with any problem they are incomplete."""

    items: tuple[_Item, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it is a single value that never changes."""
        return len(self.items) == 1 and self.items[0].count == 1

    @property
    def steps(self) -> int | None:
        """The number of its steps; None for a constant, and for one that is repeated until the end."""
        counts = [item.count for item in self.items if item.count is not None]
        return None if self.is_constant or len(counts) < len(self.items) else sum(counts)

    @property
    def least(self) -> int:
        """The least number of steps of a scenario that it fits into."""
        return sum(1 if item.count is None else item.count for item in self.items)

    def values(self, steps: int) -> list[GivenValue]:
        """The value at each of `steps` steps, which it fits into."""
        found: list[GivenValue] = []
        for item in self.items:
            count = steps - len(found) if item.count is None or self.is_constant else item.count
            found += [found[-1] if item.value is None else item.value] * count
        return found


def parse_given(text: str, signal: SignalRef) -> GivenSeries:
    """Parse the series of a signal. Every problem has its place in the text."""
    spec = BY_NAME[signal.name]
    items: list[_Item] = []
    problems: list[Problem] = []
    for found in re.finditer(r"\S+", text):
        repeated = _REPEATED.fullmatch(found[0])
        word, times = (repeated[1], repeated[2]) if repeated else (found[0], "1")
        why = ""
        value: GivenValue | None = None
        if items and items[-1].count is None:
            why = "nothing follows an item that is repeated until the end"
        elif times != "*" and not 1 <= int(times) <= MOST_STEPS:
            why = f"it is repeated {times} times"
        elif word == "=":
            why = "" if items else "no value comes before it"
        else:
            value = _value(word, spec)
            why = f"it is no value of `{spec.name}`" if value is None else _impossible(value, spec)
        if why:
            problems.append(Problem("KS7010", f"`{found[0]}`: {why}", _fix(spec), found.start(), len(found[0])))
        else:
            items.append(_Item(value, None if times == "*" else int(times)))
    if not items and not problems:
        problems.append(Problem("KS7010", "the series is empty", _fix(spec)))
    return GivenSeries(tuple(items), tuple(problems))


def _fix(spec: SignalSpec) -> str:
    if isinstance(spec, TextSignal):
        return f"write `unknown`, or one of {', '.join(spec.values)}"
    return "write true, false or unknown" if spec.type == "bool" else _FIX


def _value(word: str, spec: SignalSpec) -> GivenValue | None:
    """The value of a word; None if it is none."""
    if word in ("unknown", "_"):
        return GivenValue(0.0, 1.0) if spec.type == "bool" else GivenValue(-math.inf, math.inf)
    if isinstance(spec, TextSignal):
        return GivenValue(-math.inf, math.inf, word) if word in spec.values else None
    if spec.type == "bool":
        number = {"true": 1.0, "false": 0.0}.get(word)
        return None if number is None else GivenValue(number, number)
    low, is_interval, high = word.partition("..")
    ends = [_number(low), _number(high)] if is_interval else [_number(word)] * 2
    written = [low, high] if is_interval else [word] * 2
    if any(end is None and text for end, text in zip(ends, written, strict=True)) or ends == [None, None]:
        return None
    least = -math.inf if ends[0] is None else ends[0]
    return GivenValue(least, math.inf if ends[1] is None else ends[1])


def _number(word: str) -> float | None:
    """The float nearest to a written number; None if it is none. `7%` is 0.07, rounded once."""
    found = _NUMBER.fullmatch(word)
    if found is None:
        return None
    return float(Decimal(found[1]) / 100 if found[2] else Decimal(found[1]))


def _impossible(value: GivenValue, spec: SignalSpec) -> str:
    """Why the signal never has this value; empty if it may."""
    least, most = spec.range
    is_text = isinstance(spec, TextSignal)
    is_unknown = value.text is None if is_text else (math.isinf(value.low) and math.isinf(value.high))
    if is_unknown or (spec.type == "bool" and value.low != value.high):
        return f"`{spec.name}` is never unknown" if spec.unknown == "never" else ""
    if is_text:
        return ""
    if value.low > value.high:
        return "the interval ends before it begins"
    if value.low < value.high and spec.partly_known == "never":
        return f"`{spec.name}` is never partly known"
    ends = [end for end in (value.low, value.high) if not math.isinf(end)]
    return f"`{spec.name}` is from {least:g} to {most:g}" if any(not least <= end <= most for end in ends) else ""


def signal_named(written: str, signals: Sequence[SignalRef]) -> SignalRef | None:
    """The signal that is written so, with or without quotes, such as `equity.drawdown(1h)`; None if there is none."""
    return next((each for each in signals if _bare(signal_text(each)) == _bare(written)), None)


def nearest_signal(written: str, signals: Sequence[SignalRef]) -> str:
    """The fix for a signal that no policy of the scenario reads."""
    known = [signal_text(each) for each in signals]
    return suggestion(written, known) or f"the policies read {', '.join(f'`{each}`' for each in known)}"


def _bare(text: str) -> str:
    return _LAYOUT.sub("", text)


class GivenReader(ColumnReader):
    """Reads signals as the scenario gives them, and all others from the book."""

    def __init__(
        self, references: Sequence[SignalRef], given: Mapping[SignalRef, Sequence[GivenValue]],
        steps: Mapping[int, int],
    ) -> None:  # fmt: skip
        """`steps`: the time of each step (microseconds) → its number."""
        super().__init__(references)
        self._given = [(index, given[each]) for index, each in enumerate(references) if each in given]
        self._steps = steps

    def read_each(self, scopes: Sequence[tuple[History, ScopeView]]) -> list[SignalColumns]:
        """The columns of each scope, of the step at the time of its view."""
        found = super().read_each(scopes)
        for (_, view), columns in zip(scopes, found, strict=True):
            step = self._steps[view.as_of]
            for index, values in self._given:
                value = values[step]
                columns.lo[index], columns.hi[index] = value.low, value.high
                if columns.text:
                    columns.text[index] = value.text
        return found
