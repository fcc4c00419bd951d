"""Declarations of signals. Every part is required and has no default.

A declaration is one of four kinds, by the result of its reader: `ScopeSignal` (a number of the scope), `BoolSignal`
(true or false), `TextSignal` (a text), `PositionSignal` (a number of one position). Each has typed arguments
in an order, which follow the history and the view when its reader is called. Every property of a signal is a part of
its declaration; no other code depends on its name.

Importing the catalogue must be fast, because `ksctl validate` does so at every save: histories, views and arrays are
imported only for type checking.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from killswitch.signals.arguments import Argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from killswitch.signals.history.collector import Collector
    from killswitch.signals.history.scope import History
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

    Instants = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bounds = tuple[Floats, Floats]
    CollectorClass = type[Collector]
    # The history of the scope, its view, and the arguments in their order.
    ScopeReader = Callable[..., Interval]
    BoolReader = Callable[..., bool | None]
    TextReader = Callable[..., str | None]
    # The ranked position, and the arguments in their order.
    PositionReader = Callable[..., float | None]

SignalType = Literal["number", "bool", "text"]
Unit = Literal[
    "fraction", "money", "money per hour", "seconds", "milliseconds", "count", "ratio", "score", "word", "truth"
]
Level = Literal["scope", "position"]
Measures = Literal["loss", "condition"]
"""Whether a signal measures a loss, or a condition of the book or the venue."""
Range = tuple[float, float]
"""Least and greatest value, both included."""

FRACTION: Range = (0.0, 1.0)
NOT_NEGATIVE: Range = (0.0, math.inf)
UNBOUNDED: Range = (-math.inf, math.inf)

PARTS: Mapping[str, str] = {
    "name": "SUBJECT.QUANTITY, as written in policies; the subject of a position signal is `position`",
    "unit": "the unit of its values, which determines how a threshold is written",
    "arguments": "its arguments in the order in which an expression gives them, or ()",
    "measures": "`loss`: fires again only after a new loss; `condition`: when it was false and is true again",
    "meaning": "its description for the reference, one or two sentences with the formula",
    "partly_known": "when only bounds of it are known, or `never`",
    "unknown": "when it is unknown, or `never`",
    "range": "least and greatest value: FRACTION, NOT_NEGATIVE, UNBOUNDED or a pair of numbers",
    "values": "its possible texts",
    "collects": "the collectors of what its reader needs beyond equity and the current view, or ()",
    "axioms": "what a proof may assume of it besides its range: `Axioms(…)`, or NO_AXIOMS",
    "reader": "the function that computes it; returns UNKNOWN, or None for a text or a position, if it is unknown",
    "look_ahead": "its values at future bars of a backtest: NO_LOOK_AHEAD, UNCHANGED or a function of an EquityPath",
    "equity_at": "the equity at which it has a given value while all else stays: a function of history, view, value "
    "and the arguments (`equity_levels.py`); or the reason why no formula gives it, for people",
    "is_loss_size": "whether its value is the size of a loss, so that half a threshold is half the loss",
    "counts_unexplained": "whether it counts unexplained transfers",
    "keeps_highest": "whether its reader uses the highest unit value of the window (`UnitValueTrack.fall`)",
    "needs_equity": "whether it is unknown in a scope without an equity, as a strategy that shares an account",
    "reads_pnl": "whether it is unknown if the P&L of a position is unknown",
}
"""Every part with its description, which the message about a missing part quotes."""

_NAME = re.compile(r"[a-z]+\.[a-z_]+")


class Axioms(Struct, frozen=True, kw_only=True):
    """What a proof may assume of a signal besides its range. Each holds for both ends of the interval.

    `grows_with`: keys of arguments; with a larger one and all others equal, neither end is lower. `falls_with`: neither
    end is higher. `within`: (key of an argument, a word, a wider word); with the first word neither end is higher than
    with the second. `at_most`: names of signals that it never exceeds, with the arguments of equal keys.
    `tests/property/test_signal_axioms.py` compares them with the readers.
    """

    grows_with: tuple[str, ...] = ()
    falls_with: tuple[str, ...] = ()
    within: tuple[tuple[str, str, str], ...] = ()
    at_most: tuple[str, ...] = ()
    is_kept: bool = False
    """Whether closing cannot lower it: a loss from a start, a capital or a peak stays until an operator resets."""


NO_AXIOMS = Axioms()

NOT_OF_EQUITY: Final = "it does not depend on equity"
"""Why no equity gives a signal a value, for people."""


class LookAhead(Enum):
    """How a backtest treats a signal at future bars without a look-ahead function."""

    UNCHANGED = "as the last tick left it, while nothing is traded"
    NO_LOOK_AHEAD = "nothing: a policy that reads it is ticked at every bar"


UNCHANGED = LookAhead.UNCHANGED
NO_LOOK_AHEAD = LookAhead.NO_LOOK_AHEAD


class BookPath(Protocol):
    """The open positions of a scope at future bars if nothing is traded, in the order of the view's columns.

    Arrays of (positions × bars), or with a number for each position; money is in the scope's currency.
    """

    @property
    def symbols(self) -> tuple[str, ...]: ...

    @property
    def sign(self) -> Floats:
        """+1 for a long position, −1 for a short one."""

    @property
    def entry_value(self) -> Floats:
        """Absolute notionals at the entry prices."""

    @property
    def notional(self) -> Floats:
        """Absolute notionals at each bar."""

    @property
    def unrealised(self) -> Floats:
        """Unrealised P&L at each bar."""

    @property
    def made(self) -> Floats:
        """Unrealised and realised P&L at every bar of `EquityPath.since`; NaN where it is unknown."""


class EquityPath(Protocol):
    """A scope's equity at future bars if nothing is traded: arrays with one number for each bar.

    Numbers are floats with rounding errors: callers treat a comparison that is that close as a change. What a signal
    gives where it is partly known is bounded as the signal bounds it. NaN at a bar: only a tick can tell.
    """

    @property
    def at(self) -> Instants:
        """When the bars are (microseconds)."""

    @property
    def since(self) -> Instants:
        """When the rows of the history are, then the bars from the last tick on up to the last of `at`."""

    @property
    def values_since(self) -> Floats:
        """The unit value at each of `since`."""

    @property
    def history(self) -> History:
        """The scope's history after the last tick, which nothing may change."""

    @property
    def view(self) -> ScopeView | None:
        """The scope's view at the last tick."""

    @property
    def book(self) -> BookPath | None:
        """The open positions; None if bars alone do not give them in the scope's currency."""

    def closes(self, account: str, symbol: str) -> Floats | None:
        """The prices of a symbol at the bars after the last tick; None if the bars lack it."""

    @property
    def equity(self) -> Floats:
        """In the scope's currency."""

    @property
    def highest(self) -> Floats:
        """The highest unit value since the start or the last reset by hand, up to each bar."""

    @property
    def start(self) -> float:
        """The unit value at the start, or at the last reset by hand."""

    @property
    def are_exact(self) -> bool:
        """Whether unit values are equal to those of ticks to the last bit."""

    def highest_in(self, window: int) -> Floats:
        """The highest unit value of the window (microseconds) that ends at each bar."""

    def fall_from(self, highest: Floats | float) -> Floats:
        """The fall of the unit value from `highest` to each bar, 0…1; 0 where it is above."""

    def within(self, window: int, value: Floats, most: float, least: Floats | float | None = None) -> Bounds:
        """`value`, or the bounds `least` and `most` at bars whose window is partly known; `least` None is `value`."""


def unsure(path: EquityPath) -> Bounds:
    """The bounds of a signal that only ticks can tell."""
    import numpy as np

    nothing = np.full(len(path.at), np.nan)
    return nothing, nothing


def certain(values: Floats) -> Bounds:
    """The bounds of a signal that has these values."""
    return values, values


class PositionMeasures(Protocol):
    """Measures of a position: floats in the scope's currency or fractions; None means unknown."""

    def pnl_change(self, window: int) -> float | None:
        """The change of its P&L since the highest unit value of a window (microseconds) that a signal in use reads."""

    @property
    def pnl(self) -> float | None:
        """The unrealised P&L."""

    @property
    def liquidation_distance(self) -> float | None: ...

    @property
    def notional_share(self) -> float | None: ...

    @property
    def margin_loss(self) -> float | None: ...

    @property
    def bleed_rate(self) -> float | None:
        """Its loss per hour; None also if no signal in use reads it."""


class RankedPosition(Protocol):
    """A position in the order of closing; a larger `score` is worse."""

    @property
    def candidate(self) -> PositionMeasures: ...

    @property
    def score(self) -> float: ...


_REQUIRED: Any = None
"""Default of the parts that a declaration must give; `__post_init__` names every missing one with its description."""


class SignalSpec(Struct, frozen=True, kw_only=True):
    """The declaration of a signal. TypeError if a part is missing or invalid.

    `level` is `scope` for a signal of the scope that a stage machine watches, `position` for one of a single position.
    Position signals are allowed in `close.where`, `close.all_if` and rankings, not in triggers. `measures` determines
    when the same level can fire again: on a `loss` only after a new loss, on a `condition` when it has been false and
    is true again.
    A part with a default in the class of a kind is the same for all signals of this kind.
    """

    name: str = _REQUIRED
    unit: Unit = _REQUIRED
    measures: Measures = _REQUIRED
    meaning: str = _REQUIRED
    partly_known: str = _REQUIRED
    unknown: str = _REQUIRED
    type: SignalType = _REQUIRED
    level: Level = _REQUIRED
    arguments: tuple[Argument, ...] = _REQUIRED
    range: Range = _REQUIRED
    axioms: Axioms = _REQUIRED
    equity_at: Callable[..., float | None] | str = _REQUIRED
    is_loss_size: bool = _REQUIRED
    counts_unexplained: bool = _REQUIRED
    keeps_highest: bool = _REQUIRED
    needs_equity: bool = _REQUIRED
    reads_pnl: bool = _REQUIRED
    collects: tuple[CollectorClass, ...] = _REQUIRED

    @property
    def windowed(self) -> bool:
        """Whether it is computed over a window."""
        return any(each.key == "window" for each in self.arguments)

    def argument(self, key: str) -> Argument | None:
        """The argument with this key, or None."""
        return next((each for each in self.arguments if each.key == key), None)

    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """The parts that a declaration of this kind must give."""
        defaults = zip(cls.__struct_fields__, cls.__struct_defaults__, strict=True)
        return tuple(name for name, default in defaults if default is _REQUIRED)

    def __post_init__(self) -> None:
        name, wanted = self.name or "without a name", self.parts()
        lacking = [
            part
            for part in wanted
            if getattr(self, part) in (None, "") or (part == "values" and getattr(self, part) == ())
        ]
        if lacking:
            missing = "; ".join(f"`{part}` ({PARTS[part]})" for part in lacking)
            raise TypeError(f"the signal {name} lacks {missing}")
        defaults = zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
        foreign = [part for part, default in defaults if part not in wanted and getattr(self, part) != default]
        if foreign:
            raise TypeError(f"the signal {name} is a {type(self).__name__}, which has no part {', '.join(foreign)}")
        fault = self._fault()
        if fault is not None:
            raise TypeError(f"the signal {name}: {fault}")

    def _fault(self) -> str | None:
        """The message about an invalid part, or None."""
        if _NAME.fullmatch(self.name) is None or self.name.startswith("position.") != (self.level == "position"):
            return f"its `name` is not {PARTS['name']}"
        if not self.range[0] < self.range[1]:
            return f"its `range` {self.range} is empty"
        keys = [each.key for each in self.arguments]
        if len(set(keys)) < len(keys):
            return f"two of its `arguments` have one key: {', '.join(keys)}"
        narrowed = {key for key, _, _ in self.axioms.within}
        assumed = {*self.axioms.grows_with, *self.axioms.falls_with, *narrowed} - set(keys)
        return f"its `axioms` name {', '.join(sorted(assumed))}, which is no argument" if assumed else None


class ScopeSignal(SignalSpec, frozen=True, kw_only=True):
    """A number of the scope, computed from its history, its current view and the arguments.

    `look_ahead` as a function takes an `EquityPath` and the arguments.
    """

    type: SignalType = "number"
    level: Level = "scope"

    reader: ScopeReader = _REQUIRED
    look_ahead: LookAhead | Callable[..., Bounds] = _REQUIRED


condition = partial(
    ScopeSignal,
    equity_at=NOT_OF_EQUITY,
    measures="condition",
    arguments=(),
    axioms=NO_AXIOMS,
    look_ahead=NO_LOOK_AHEAD,
    is_loss_size=False,
    counts_unexplained=False,
    keeps_highest=False,
    reads_pnl=False,
    needs_equity=False,
    collects=(),
)
"""The commonest number of a scope: a condition that is read from the current view, without arguments and equity.

A declaration states which of these parts it has otherwise.
"""


class BoolSignal(SignalSpec, frozen=True, kw_only=True):
    """Whether a condition holds; None means unknown. Its column is 1 if it does, 0 if not. It has no look-ahead."""

    type: SignalType = "bool"
    level: Level = "scope"
    unit: Unit = "truth"
    measures: Measures = "condition"
    range: Range = FRACTION
    axioms: Axioms = NO_AXIOMS
    equity_at: Callable[..., float | None] | str = "it is true or false"
    is_loss_size: bool = False
    counts_unexplained: bool = False
    keeps_highest: bool = False
    reads_pnl: bool = False

    reader: BoolReader = _REQUIRED


class TextSignal(SignalSpec, frozen=True, kw_only=True):
    """One of a fixed set of texts; None means unknown. It has no look-ahead."""

    type: SignalType = "text"
    level: Level = "scope"
    unit: Unit = "word"
    range: Range = UNBOUNDED  # the numeric column of a text is not used
    axioms: Axioms = NO_AXIOMS
    equity_at: Callable[..., float | None] | str = "it is a text"
    is_loss_size: bool = False
    counts_unexplained: bool = False
    keeps_highest: bool = False

    values: tuple[str, ...] = _REQUIRED
    reader: TextReader = _REQUIRED


class PositionSignal(SignalSpec, frozen=True, kw_only=True):
    """A number of one position, computed when a stage closes, with the arguments; None means unknown.

    It needs no look-ahead.
    """

    type: SignalType = "number"
    level: Level = "position"
    axioms: Axioms = NO_AXIOMS
    equity_at: Callable[..., float | None] | str = "it is of one position"
    is_loss_size: bool = False
    counts_unexplained: bool = False
    keeps_highest: bool = False
    needs_equity: bool = False
    reads_pnl: bool = False

    reader: PositionReader = _REQUIRED
