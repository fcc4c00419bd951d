"""A signal that is known without an equity of its scope does not need one, and one that needs it is never known."""

from __future__ import annotations

import math

import pytest

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.snapshot import Health, Withdrawals
from killswitch.signals.catalogue import CATALOGUE
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.snapshot_facts import BookPart, SnapshotFacts
from tests.worlds import account, after, position, rules
from tests.worlds.signals import arguments_of, history_of

SPECS = [spec for spec in CATALOGUE if spec.level == "scope"]


def is_known(spec: SignalSpec) -> bool:
    """Whether the signal has a value after five minutes of a scope that is one symbol of an account."""
    reference = SignalRef(spec.name, arguments_of(spec))
    history, reader = history_of([reference]), ColumnReader([reference])
    lo, hi, text = -math.inf, math.inf, None
    for minute in range(6):
        held = position(
            "A", "long", str(minute), contracts="2", entry_price="90", mark_price="100", notional="200",
            liquidation_price="50", margin="20",
        )  # fmt: skip
        whole = account(
            "1000", [held], observed_at=after(minutes=minute), health=Health(5.0, 10, 1, 0, 0),
            maintenance_margin="10", withdrawals=(Withdrawals("USDT", False),),
        )  # fmt: skip
        at, instruments = to_micros(after(minutes=minute)), {("main", "A"): rules("A"), ("main", "B"): rules("B")}
        facts = SnapshotFacts(at, (whole,), instruments)
        view = ScopeView(at, True, (whole,), instruments, 10 * MINUTE, around=facts, part=BookPart("symbol", "A"))
        history.observe(view)
        columns = reader.read(history, view)
        lo, hi, text = columns.lo[0], columns.hi[0], columns.text[0] if columns.text else None
    least, most = spec.range
    return text is not None or lo > least or hi < most


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.needs_equity], ids=lambda spec: spec.name)
def test_a_signal_that_needs_an_equity_is_unknown_without_one(spec: SignalSpec) -> None:
    """The compiler refuses it there; if it had a value there, the refusal would be wrong: `needs_equity=False`."""
    assert not is_known(spec)


@pytest.mark.parametrize("name", ["exposure.gross", "exposure.herfindahl", "venue.latency", "hedge.broken"])
def test_a_signal_of_positions_or_of_the_venue_is_known_without_an_equity(name: str) -> None:
    """What policies of a strategy or a symbol are written with."""
    assert is_known(next(spec for spec in SPECS if spec.name == name))
