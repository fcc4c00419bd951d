"""Typed arguments of signals: declared once, written by position in expressions and by key in threshold triggers.

A key has one type and one meaning in the whole catalogue; which of the declared words it takes depends on the signal.
None has a default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from decimal import Decimal
from functools import lru_cache
from math import isinf
from typing import Literal

from msgspec import Struct

from killswitch.model.instant import HOUR, MINUTE, SECOND
from killswitch.signals.written_forms import Form

ArgumentKind = Literal["duration", "fraction", "number", "money", "word", "name", "reference"] | Form


class Declared(Struct, frozen=True):
    """What a document declares under a name, as signals read it: a group of symbols, a session."""

    name: str


class EstimatedCorrelations(Struct, frozen=True):
    """How the correlations of a group are estimated: grid and window in microseconds, and the least returns.

    `residual_to`: the symbol whose returns are taken out of all others; None: of none.
    """

    every: int
    window: int
    least: int
    method: Literal["winsorised", "spearman"]
    residual_to: str | None = None


class SymbolGroup(Declared, frozen=True):
    """A correlation group: symbols as the venues write them, or patterns, and what is known of their correlations.

    Without `correlations` (two symbols and their number) and `estimate` all of them are one group. Symbols are in one
    group from `join`, and leave it below `leave`.
    """

    symbols: tuple[str, ...]
    correlations: tuple[tuple[str, str, float], ...] = ()
    estimate: EstimatedCorrelations | None = None
    join: float = 0.7
    leave: float = 0.6

    @property
    def is_whole(self) -> bool:
        """Whether its symbols are one group whatever their correlations are."""
        return not self.correlations and self.estimate is None

    def has(self, symbol: str) -> bool:
        """Whether the symbol is one of the group's."""
        return is_among(symbol, self.symbols)


def is_among(symbol: str, symbols: Collection[str]) -> bool:
    """Whether the symbol is one of these symbols and patterns, in which `*` is any text."""
    return symbol in symbols or any("*" in each and _pattern(each).fullmatch(symbol) for each in symbols)


@lru_cache(maxsize=1_024)
def _pattern(written: str) -> re.Pattern[str]:
    """The expression of a pattern in which `*` is any text."""
    return re.compile(".*".join(map(re.escape, written.split("*"))))


class LegOfHedge(Struct, frozen=True):
    """One leg of a hedge; `ratio`: base units of the hedge in one base unit of the leg."""

    account: str
    symbol: str
    ratio: Decimal


class HedgeLegs(Declared, frozen=True):
    """A hedge group: the positions that hedge each other."""

    legs: tuple[LegOfHedge, ...]


Value = int | float | str | Decimal | Declared
"""A duration in microseconds (int), a fraction or number (float), money (Decimal), a word or a name (str), or what the
document of a reference declares."""


RelationKind = Literal["below", "other_than", "twice_in"]


class Relation(Struct, frozen=True):
    """What a value must be to that of another argument, whose key is `to`, or the signal says nothing.

    `below`: smaller. `other_than`: different. `twice_in`: a duration that the other one has room for twice.
    """

    kind: RelationKind
    to: str

    def holds(self, value: Value, other: Value) -> bool:
        """Whether it holds for two values. TypeError if they have no order or are no durations."""
        match self.kind:
            case "other_than":
                return value != other
            case "below" if isinstance(value, int | float) and isinstance(other, int | float):
                return value < other
            case "twice_in" if isinstance(value, int) and isinstance(other, int):
                return 2 * value <= other
        raise TypeError(f"{value!r} and {other!r} cannot be compared: {self.kind}")


class Argument(Struct, frozen=True, kw_only=True):
    """One argument of a signal.

    `key`: its key in a threshold trigger. `kind`: `word` is one of `words`, `name` any name without spaces, `reference`
    the name of a document of the kind `document`, or one of `words` if there are any; a `Form` is a text that
    `written_forms` can parse. `example`: as written in a threshold trigger. `range`: least and greatest number, both
    included, microseconds of a duration; None for texts. `looks_back`: a duration over which the scope's history is
    kept. `relations`: to other arguments of a signal, where that has them. `is_priced`: a currency whose price in the
    policy's reference currency is read. `mistaken`: words that are written for one of its special names, and what is
    meant; taken for the name of a symbol, they would be one that nobody trades.
    """

    key: str
    kind: ArgumentKind
    meaning: str
    example: str
    words: tuple[str, ...] = ()
    document: str | None = None
    range: tuple[float, float] | None = None
    looks_back: bool = False
    relations: tuple[Relation, ...] = ()
    is_priced: bool = False
    mistaken: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "word" and not self.words) or (self.words and self.kind not in ("word", "reference")):
            raise TypeError(f"the argument {self.key}: `words` belong to the kinds `word` and `reference`")
        if (self.kind == "reference") != (self.document is not None):
            raise TypeError(f"the argument {self.key}: `document` belongs to the kind `reference`, and to no other")


_UNITS = (("d", 24 * HOUR), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", SECOND // 1000), ("us", 1))


def span(micros: int) -> str:
    """Format a time as in policies: `1h30m`, `1m30s`, `0s`."""
    parts = []
    for unit, size in _UNITS:
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def in_expression(argument: Argument, value: Value) -> str:
    """The value as an expression takes it: texts and durations in quotes, numbers as they are."""
    match value:
        case int() if argument.kind == "duration":
            return f'"{span(value)}"'
        case Declared():
            return f'"{value.name}"'
        case str():
            return f'"{value}"'
        case Decimal():
            return f"{value:f}"
        case _:
            return f"{value:.12g}"


def in_key(argument: Argument, value: Value) -> str:
    """The value as the key of a threshold trigger takes it."""
    match value:
        case int() if argument.kind == "duration":
            return span(value)
        case Declared():
            return value.name
        case float():
            return f"{value:.12g}"
        case Decimal():
            return f"{value:f}"
        case _:
            return f"{value}"


def end_text(argument: Argument, end: float) -> str:
    """An end of the range of an argument as its key takes it."""
    match argument.kind:
        case "duration":
            return span(int(end))
        case "money":
            return f"{Decimal(str(end)):f}"
        case _:
            return f"{end:g}"


def call_text(name: str, arguments: tuple[Argument, ...], values: tuple[Value, ...]) -> str:
    """A signal as in expressions: `equity.drawdown("15m")`."""
    written = [in_expression(argument, value) for argument, value in zip(arguments, values, strict=True)]
    return f"{name}({', '.join(written)})" if written else name


def example_text(name: str, arguments: tuple[Argument, ...]) -> str:
    """An example of the signal in an expression: `market.move("BTC_USDT", "1h")`."""
    written = [_example(each) for each in arguments]
    return f"{name}({', '.join(written)})" if written else name


def _example(argument: Argument) -> str:
    """The example as an expression takes it: `0.005` for `0.5%`."""
    if argument.kind == "fraction":
        percent = argument.example.removesuffix("%")
        return argument.example if percent == argument.example else f"{Decimal(percent) / 100:f}"
    return argument.example if argument.kind in ("number", "money") else f'"{argument.example}"'


def argument_text(argument: Argument) -> str:
    """An argument with its meaning, its words or its range, and an example."""
    text = f"{argument.key}: {argument.meaning}"
    if argument.kind == "word":
        return f"{text} One of {', '.join(argument.words)}."
    if argument.range is not None:
        least, most = (None if isinf(end) else end_text(argument, end) for end in argument.range)
        limits = [least and f"at least {least}", most and f"at most {most}"]
        text = " ".join([text, *(f"{each.capitalize()}." for each in limits if each)])
    return f"{text} Such as {argument.example}."


WINDOW = Argument(
    key="window",
    kind="duration",
    meaning="The time [t − window, t] that it covers, both ends included.",
    example="15m",
    looks_back=True,
)
EVERY = Argument(
    key="every",
    kind="duration",
    meaning=(
        "The grid of samples, from the Unix epoch: the first price at or after each point. In a backtest a multiple of "
        "the bars' length."
    ),
    example="1m",
    range=(SECOND, math.inf),
    relations=(Relation("twice_in", "window"), Relation("twice_in", "short"), Relation("twice_in", "long")),
)
GROUP = Argument(
    key="group",
    kind="reference",
    document="CorrelationGroup",
    meaning="A CorrelationGroup of the policy set; its symbols are the venues'.",
    example="majors",
)
HEDGE = Argument(
    key="hedge",
    kind="reference",
    document="HedgeGroup",
    meaning="A HedgeGroup of the policy set.",
    example="cash-and-carry",
)
SYMBOL = Argument(
    key="symbol",
    kind="name",
    meaning="A symbol as the venue writes it, held or on the account's watch list.",
    example="BTC_USDT",
)
NAME = Argument(
    key="name",
    kind="name",
    meaning="The name of a heartbeat, an external alert or a flag, as its sender writes it.",
    example="market-maker",
)
