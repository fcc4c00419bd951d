"""Signals of a made-up book, evaluated as an interpreter evaluates them."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import Position
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, position


def values_of(signal: str, positions: Sequence[Position] | None, equity: str = "100000") -> tuple[float, float]:
    """The interval of a signal without a window, for one account with these positions; None: they are unknown."""
    view = ScopeView(to_micros(START), True, (account(equity, positions),), {}, None)
    history = History((), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    history.observe(view)
    columns = ColumnReader([SignalRef(signal)]).read(history, view)
    return columns.lo[0], columns.hi[0]


def held(*notionals: str) -> list[Position]:
    """Positions with these notionals, alternately long and short."""
    return [position(f"S{i}", "short" if i % 2 else "long", "0", notional=each) for i, each in enumerate(notionals)]
