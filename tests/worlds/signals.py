"""Signals of a made-up book, evaluated as an interpreter evaluates them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import Position
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.arguments import Argument, SymbolGroup, Value
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader, collector_needs, kept_highest
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, position

WINDOW = 2 * MINUTE


def some_value(argument: Argument) -> Value:
    """A value that the argument takes: two minutes, the middle of a range, the first word, or the symbol A."""
    least, most = argument.range or (0.0, 1.0)
    match argument.kind:
        case "duration":
            return int(min(max(WINDOW, least), most)) if argument.range else WINDOW
        case "money":
            return Decimal(100)
        case "word":
            return argument.words[0]
        case "name":
            return "A"
        case "reference" if argument.words:
            return argument.words[0]
        case "reference":
            return SymbolGroup("majors", ("A", "B"))
        case _:
            return (least + most) / 2 if most < math.inf else max(least, 1.0)


def arguments_of(spec: SignalSpec) -> tuple[Value, ...]:
    """A value for each argument of the signal."""
    return tuple(some_value(each) for each in spec.arguments)


def history_of(references: Sequence[SignalRef], keep: int = HOUR, max_gap: int = 10 * MINUTE) -> History:
    """An empty history that collects what these signals read."""
    terms = EquityTerms(max_gap, 0.001, 60 * SECOND)
    return History(kept_highest(references), keep, terms, collectors=collector_needs(references))


def values_of(
    signal: str, positions: Sequence[Position] | None, equity: str = "100000", arguments: Sequence[Value] = ()
) -> tuple[float, float]:
    """The interval of a signal after one snapshot of one account with these positions; None: they are unknown."""
    reference = SignalRef(signal, tuple(arguments))
    view = ScopeView(to_micros(START), True, (account(equity, positions),), {}, None)
    history = history_of([reference])
    history.observe(view)
    columns = ColumnReader([reference]).read(history, view)
    return columns.lo[0], columns.hi[0]


def held(*notionals: str) -> list[Position]:
    """Positions with these notionals, alternately long and short."""
    return [position(f"S{i}", "short" if i % 2 else "long", "0", notional=each) for i, each in enumerate(notionals)]
