"""The headroom in money is exact: the loss that it states makes the trigger true, and a little less does not.

The loss happens: the next snapshot has it in its equity and in the P&L of a position, and the reader of the signal
observes it as a tick does. What the formulas of `signals/equity_levels.py` compute is not used there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.signals.arguments import Value
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.history.scope import History
from killswitch.signals.signal_values import ColumnReader
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import START, account, flow, position, rules
from tests.worlds.signals import arguments_of, history_of

RULES = {("main", symbol): rules(symbol) for symbol in "AB"}
WITH_FORMULA = [spec.name for spec in CATALOGUE if not isinstance(spec.equity_at, str)]
FALLS = ("equity.value", "equity.profit", "equity.above_floor", "pnl.unrealised", "pnl.unrealised_share",
         "exposure.liquidation_buffer")  # fmt: skip
"""Signals that a loss lowers; it raises all others."""
ARGUMENTS: dict[str, tuple[Value, ...]] = {
    "equity.drawdown": (150 * SECOND,),
    "exposure.turnover": (150 * SECOND,),
    "fills.closed_by_venue_share": (150 * SECOND, "forced"),
    "pnl.funding_paid_share": (150 * SECOND,),
    "equity.expected_move": (HOUR, 630 * SECOND, MINUTE),
    "equity.loss_from_capital": (Decimal(9000),),
    "equity.above_floor": (Decimal(2000), "intraday", Decimal(50_000)),
}


def arguments(name: str, against: str) -> tuple[Value, ...]:
    """The arguments of the signal in these tests."""
    if name == "positions.worst_loss":
        return (against,)
    return ARGUMENTS.get(name) or arguments_of(BY_NAME[name])


def book(equity: Decimal, made: Sequence[Decimal], minute: int, at: datetime) -> AccountSnapshot:
    """Two positions with these profits in an account with funding, fills by the venue, an order and margins."""
    sizes = (("A", "long", "2", "3000"), ("B", "short", "3", "2000"))
    held = [
        replace(
            position(
                symbol,
                side,
                contracts=size,
                mark_price=str(100 + minute % 3),
                notional=notional,
                margin="500",
                entry_price="100",
            ),
            unrealized_pnl=profit,
        )
        for (symbol, side, size, notional), profit in zip(sizes, made, strict=True)
    ]
    fills = [
        Fill(f"f{n}", START + timedelta(minutes=n), "A", "buy", Decimal(1), Decimal(100), cause="liquidation")
        for n in range(minute + 1)
    ]
    paid = [flow(f"p{n}", START + timedelta(minutes=n), "-1", "funding") for n in range(minute + 1)]
    return account(
        str(equity), held, observed_at=at, maintenance_margin="300", fills=fills, flows=paid, fills_as_of=at,
        flows_as_of=at, instruments=[rules("A"), rules("B")],
        orders=[Order("o1", "A", "buy", Decimal(1), price=Decimal(90), filled=Decimal(0))],
    )  # fmt: skip


class Observed:
    """The reader of one signal over snapshots a minute apart, and the last of them a millisecond after another."""

    def __init__(self, name: str, values: tuple[Value, ...]) -> None:
        self.reference = SignalRef(name, values)
        self.history: History = history_of([self.reference])
        self.view: ScopeView | None = None
        self.minute = -1

    def see(self, equity: Decimal, made: Sequence[Decimal], *, at_once: bool = False) -> tuple[float, float]:
        """The value after the next snapshot, a minute later or `at_once`."""
        self.minute += not at_once
        at = START + timedelta(minutes=self.minute, milliseconds=at_once)
        self.view = ScopeView(to_micros(at), True, (book(equity, made, self.minute, at),), RULES, None)
        self.history.observe(self.view)
        columns = ColumnReader([self.reference]).read(self.history, self.view)
        return columns.lo[0], columns.hi[0]

    def level(self, limit: float) -> float | None:
        """The equity at which the signal is said to have the value."""
        formula = BY_NAME[self.reference.name].equity_at
        assert not isinstance(formula, str)
        assert self.view is not None
        return formula(self.history, self.view, limit, *self.reference.arguments)


def test_these_signals_have_a_formula() -> None:
    """What every policy of losses, margins and leverage is written with."""
    assert {"equity.drawdown", "equity.drawdown_from_peak", "equity.value", "exposure.leverage", "pnl.unrealised",
            "exposure.margin_ratio", "positions.worst_loss"} <= set(WITH_FORMULA)  # fmt: skip


def test_a_signal_without_a_formula_gives_its_reason() -> None:
    """`ksctl plan` prints it, so that nobody takes a missing number for a safe one."""
    reasons = [spec.equity_at for spec in CATALOGUE if isinstance(spec.equity_at, str)]
    assert reasons
    assert all(reason and reason[0].islower() and not reason.endswith(".") for reason in reasons)


def reached(name: str, value: float, limit: float) -> bool:
    return value <= limit if name in FALLS else value >= limit


@pytest.mark.parametrize("name", WITH_FORMULA)
@settings(max_examples=15, deadline=None)
@given(
    path=st.lists(st.integers(-200, 200), min_size=15, max_size=30),
    share=st.floats(0.02, 1.5),
    against=st.sampled_from(["entry", "equity", "margin"]),
)
def test_the_stated_loss_reaches_the_threshold_and_a_little_less_does_not(
    name: str, path: list[int], share: float, against: str
) -> None:
    """A book moves at random; then position A loses what is stated, or a hundredth of a per cent less of it."""
    values = arguments(name, against)
    seen, before = Observed(name, values), []
    equity, made = Decimal(10_000), [Decimal(0), Decimal(0)]
    for step in path:
        equity, made[0] = equity + step, made[0] + step
        before.append((equity, tuple(made)))
        now = seen.see(equity, made)
    assume(now[0] == now[1] and abs(now[0]) < 1e9)
    limit = now[0] - share * max(1.0, abs(now[0])) if name in FALLS else now[0] + share * max(0.05, abs(now[0]))
    level = seen.level(limit)
    assume(level is not None and 0 < level < float(equity))
    loss = equity - Decimal(repr(level))
    if name == "positions.worst_loss":
        assume(made[0] <= made[1])  # the loss is one of A, which is the worst by entry value too

    def after(lost: Decimal) -> float:
        again = Observed(name, values)
        for each in before:
            again.see(*each)
        low, high = again.see(equity - lost, (made[0] - lost, made[1]), at_once=True)
        assert low == high
        return low

    margin = Decimal("1e-7") * equity
    assert reached(name, after(loss + margin), limit)
    assert not reached(name, after(loss * Decimal("0.9999") - margin), limit)


def test_positions_of_the_book_are_as_the_reader_needs_them() -> None:
    """The world of these tests has a value for each signal with a formula, so that none is left out unseen."""
    known = []
    for name in WITH_FORMULA:
        seen = Observed(name, arguments(name, "entry"))
        for step in (0, -100, 300, -400, -50) * 3:
            found = seen.see(Decimal(10_000 + step), (Decimal(step), Decimal(0)))
        known += [name] if found[0] == found[1] else []
    assert sorted(known) == sorted(WITH_FORMULA)
