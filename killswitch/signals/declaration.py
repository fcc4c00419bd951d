"""What a signal's declaration consists of: its parts, of which none has a default and none may be left out.

A declaration is one of four kinds, by what its reader is given: `ScopeSignal` (a number of the scope now),
`WindowSignal` (a number over a window), `TextSignal` (a text over a window), `PositionSignal` (a number of one
position). Everything that is not the same for all signals is a part; nothing else names a signal.

Importing the catalogue must cost next to nothing, because `ksctl validate` reads it at every save: histories, views and
arrays are imported for their types only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from killswitch.model.record import Record, record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.signals.view import ScopeView

    Floats = NDArray[np.float64]
    Bounds = tuple[Floats, Floats]
    ScopeReader = Callable[[History, ScopeView], Interval]
    WindowReader = Callable[[History, int], Interval]
    TextReader = Callable[[History, int], str | None]

SignalType = Literal["number", "text"]
Unit = Literal["fraction", "money", "seconds", "milliseconds", "count", "ratio", "score", "source"]
Level = Literal["scope", "position"]
Measures = Literal["loss", "condition"]
"""A loss, or a condition of the book or the venue."""
Range = tuple[float, float]
"""Least and greatest value, both included."""

FRACTION: Range = (0.0, 1.0)
NOT_NEGATIVE: Range = (0.0, math.inf)
UNBOUNDED: Range = (-math.inf, math.inf)

PARTS: Mapping[str, str] = {
    "name": "SUBJECT.QUANTITY, as policies write it; of a signal of a position the subject is `position`",
    "unit": "what its values are in, which decides how a threshold is written",
    "windowed": "whether it is taken over a window",
    "measures": "`loss`: fires again only after a new loss; `condition`: when it was false and is true again",
    "meaning": "one or two sentences for the reference, with the formula",
    "partly_known": "when it is between two bounds, or `never`",
    "unknown": "when it can be anything, or `never`",
    "range": "least and greatest value: FRACTION, NOT_NEGATIVE, UNBOUNDED or a pair of numbers",
    "values": "the texts that it can be",
    "reader": "the function that computes it; unknown is UNKNOWN, and None for a text or a position",
    "look_ahead": "its values at bars to come: NO_LOOK_AHEAD, UNCHANGED or a function of an EquityPath",
    "is_loss_size": "whether its value is the size of a loss, so that half of a threshold is half of that loss",
    "counts_unexplained": "whether it grows with money that moved without an explanation",
    "keeps_highest": "whether its reader asks for the highest unit value of the window (`Track.fall`)",
    "reads_pnl": "whether it is unknown where positions do not say what they made",
}
"""Every part with what it says, as the sentence on a part that is missing repeats it."""

_NAME = re.compile(r"[a-z]+\.[a-z_]+")


class LookAhead(Enum):
    """What a backtest can know of a signal at bars to come without a function of their prices."""

    UNCHANGED = "as the last tick left it, while nothing is traded"
    NO_LOOK_AHEAD = "nothing: a policy that reads it is ticked at every bar"


UNCHANGED = LookAhead.UNCHANGED
NO_LOOK_AHEAD = LookAhead.NO_LOOK_AHEAD


class EquityPath(Protocol):
    """A scope's equity at the bars to come, if nothing is traded: arrays with one number for each bar.

    Numbers are floats and may be off by their last bits: whoever asks takes a comparison that is that close for a
    change. What is not surely known is bounded.
    """

    @property
    def equity(self) -> Floats:
        """In the scope's currency."""

    @property
    def highest(self) -> Floats:
        """The highest unit value since the start or the last reset by hand, up to each bar."""

    @property
    def start(self) -> float:
        """The unit value at the start, or at the last reset by hand."""

    def highest_in(self, window: int) -> Floats:
        """The highest unit value of the window (microseconds) that ends at each bar."""

    def fall_from(self, highest: Floats | float) -> Floats:
        """The fall of the unit value from `highest` to each bar, 0…1; 0 where it is above."""

    def within(self, window: int, value: Floats, most: float) -> Bounds:
        """`value`; at least `value` and at most `most` at bars whose window is not wholly known."""


class PositionMeasures(Protocol):
    """A position with what a decision measures of it: floats in the scope's currency or as fractions; None unknown."""

    @property
    def pnl_delta(self) -> float | None:
        """Change of its P&L over the window that the decision is made on."""

    @property
    def pnl(self) -> float | None:
        """Unrealised."""

    @property
    def liquidation_distance(self) -> float | None: ...

    @property
    def notional_share(self) -> float | None: ...

    @property
    def margin_loss(self) -> float | None: ...


class RankedPosition(Protocol):
    """A position in the order of closing; `score` is larger for worse."""

    @property
    def candidate(self) -> PositionMeasures: ...

    @property
    def score(self) -> float: ...


class _Kind(Record):
    """What a signal's kind says of it; a part where a kind leaves it open."""

    type: SignalType
    level: Level
    windowed: bool
    range: Range
    is_loss_size: bool
    counts_unexplained: bool
    keeps_highest: bool
    reads_pnl: bool


@record
class SignalSpec(_Kind):
    """A signal as policies may use it. TypeError, with a sentence, where a part is missing or makes no sense.

    `level` says what it is a quantity of: the scope that a stage machine watches, or one position of it.
    Position signals may be used in `close.all_if` and rankings, not in triggers. `measures` says when the same level
    may fire again: on a `loss` only after a new loss, on a `condition` when it has been false and is true again.
    """

    name: str
    unit: Unit
    measures: Measures
    meaning: str
    partly_known: str
    unknown: str

    def __init__(self, **parts: Any) -> None:
        name, wanted = parts.get("name") or "without a name", type(self).__match_args__
        lacking = [part for part in wanted if parts.get(part) is None or parts[part] in ("", ())]
        if lacking:
            said = "; ".join(f"`{part}` ({PARTS[part]})" for part in lacking)
            raise TypeError(f"the signal {name} lacks {said}")
        foreign = sorted(parts.keys() - set(wanted))
        if foreign:
            raise TypeError(f"the signal {name} is a {type(self).__name__}, which has no part {', '.join(foreign)}")
        super().__init__(**parts)
        fault = self._fault()
        if fault is not None:
            raise TypeError(f"the signal {name}: {fault}")

    def _fault(self) -> str | None:
        """What of the parts makes no sense, or None."""
        if _NAME.fullmatch(self.name) is None or self.name.startswith("position.") != (self.level == "position"):
            return f"its `name` is not {PARTS['name']}"
        if not self.range[0] < self.range[1]:
            return f"nothing is in its `range` {self.range}"
        return None


@record
class ScopeSignal(SignalSpec):
    """A number of the scope, read from its history and from what its accounts show now."""

    type = "number"
    level = "scope"
    windowed = False
    keeps_highest = False
    reads_pnl = False

    range: Range
    reader: ScopeReader
    look_ahead: LookAhead | Callable[[EquityPath], Bounds]
    is_loss_size: bool
    counts_unexplained: bool


@record
class WindowSignal(SignalSpec):
    """A number of the scope over a window (microseconds), read from its history."""

    type = "number"
    level = "scope"
    windowed = True
    counts_unexplained = False

    range: Range
    reader: WindowReader
    look_ahead: LookAhead | Callable[[EquityPath, int], Bounds]
    is_loss_size: bool
    keeps_highest: bool
    reads_pnl: bool


@record
class TextSignal(SignalSpec):
    """One of a few texts, over a window (microseconds); None is unknown. A backtest looks ahead in numbers only."""

    type = "text"
    level = "scope"
    windowed = True
    range = UNBOUNDED  # beside its text its column of numbers says nothing
    is_loss_size = False
    counts_unexplained = False
    keeps_highest = False

    values: tuple[str, ...]
    reader: TextReader
    reads_pnl: bool


@record
class PositionSignal(SignalSpec):
    """A number of one position, read when a stage closes; None is unknown. Between ticks no backtest needs it."""

    type = "number"
    level = "position"
    is_loss_size = False
    counts_unexplained = False
    keeps_highest = False
    reads_pnl = False

    windowed: bool
    range: Range
    reader: Callable[[RankedPosition], float | None]
