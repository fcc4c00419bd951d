"""Signals of a made-up book, evaluated as an interpreter evaluates them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from msgspec import json as msgjson

from killswitch.graph.nodes import SignalRef
from killswitch.model.flags import NO_FLAGS, Flags
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import Position, Snapshot
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.arguments import Argument, HedgeLegs, LegOfHedge, SymbolGroup, Value
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.history.rows import HistoryState, encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader, collector_needs, kept_highest
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import SnapshotFacts
from tests.worlds import START, account, position

WINDOW = 2 * MINUTE


def some_value(argument: Argument) -> Value:
    """A value that the argument takes: two minutes, the middle of a range, the first word, or the symbol A."""
    if argument.key == "every":
        return MINUTE  # of which the windows have more than one
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
        case "reference" if argument.document == "HedgeGroup":
            return HedgeLegs("pair", (LegOfHedge("main", "A", Decimal(1)), LegOfHedge("main", "B", Decimal(1))))
        case "reference":
            return SymbolGroup("majors", ("A", "B"))
        case "time" | "zone" | "days" | "labels":
            return argument.example
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


def values_after(
    signal: str, arguments: Sequence[Value], snapshots: Sequence[Snapshot], *, restart: bool = False
) -> tuple[float, float]:
    """The interval of a signal after these snapshots of one scope with all their accounts.

    `restart`: the history is stored before the last snapshot, and restored by another run.
    """
    reference = SignalRef(signal, tuple(arguments))
    history, flags = history_of([reference]), NO_FLAGS
    for index, seen in enumerate(snapshots):
        for event in seen.events:
            flags = flags.after(event)
        if restart and index == len(snapshots) - 1:
            stored = msgjson.decode(msgjson.encode(history.state()), type=HistoryState)
            rows = [encode_row(row) for row in history.rows]
            history = history_of([reference])
            history.restore(stored, rows)
        view = view_of(seen, flags)
        history.observe(view)
    columns = ColumnReader([reference]).read(history, view)
    return columns.lo[0], columns.hi[0]


def view_of(seen: Snapshot, flags: Flags = NO_FLAGS) -> ScopeView:
    """The view of one scope with all accounts of the snapshot."""
    now = to_micros(seen.as_of)
    known = {(account.account, rule.symbol): rule for account in seen.accounts for rule in account.instruments or ()}
    flags, _ = flags.without_expired(seen.as_of)
    around = SnapshotFacts(now, seen.accounts, known, tick=seen, flags=flags)
    return ScopeView(now, seen.scheduled, seen.accounts, known, None, around=around)


def held(*notionals: str) -> list[Position]:
    """Positions with these notionals, alternately long and short."""
    return [position(f"S{i}", "short" if i % 2 else "long", "0", notional=each) for i, each in enumerate(notionals)]
