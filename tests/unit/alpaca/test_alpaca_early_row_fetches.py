"""When rows are fetched out of turn, and when a change is explained."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from killswitch.model.snapshot import Fill, OrderSide
from killswitch_alpaca.parts import OutOfTurnReads

D = Decimal
EQUITY = D(100_000)


def _fill(side: OrderSide, amount: str, price: str, symbol: str = "AAPL") -> Fill:
    return Fill("f", datetime(2021, 5, 19, tzinfo=UTC), symbol, side, D(amount), D(price))


def _fetch_times(out_of_turn: OutOfTurnReads, until: int, *, credit: float = 100.0) -> list[int]:
    """The seconds at which rows are fetched, checked each second."""
    return [second for second in range(until) if out_of_turn.reserve(float(second), EQUITY, credit) is not None]


def test_missing_money_causes_fetches_for_twenty_seconds() -> None:
    """At once, and 1, 2, 5, 10 and 20 s later; then no more."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_change(0.0, {}, D(-3000), EQUITY)
    assert _fetch_times(out_of_turn, 60) == [0, 1, 2, 5, 10, 20]


def test_a_sale_with_its_fill_is_an_explained_change() -> None:
    """Ten sold at 100 brought 1,000: no further fetch is due."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_fill(0.0, _fill("sell", "10", "100"))
    out_of_turn.record_change(0.0, {"AAPL": D(-10)}, D(1000), EQUITY)
    assert _fetch_times(out_of_turn, 30) == []


def test_a_sale_whose_proceeds_left_at_once_is_not_explained_by_its_fill() -> None:
    """Closed and withdrawn: the fill explains the shares, but not the missing 1,000. A row of −1,000 does."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_change(0.0, {"AAPL": D(-10)}, D(0), EQUITY)
    assert out_of_turn.reserve(0.0, EQUITY, 100.0) is not None
    out_of_turn.record_fill(0.5, _fill("sell", "10", "100"))
    assert out_of_turn.reserve(1.0, EQUITY, 100.0) is not None
    out_of_turn.record_flow(1.5, D(-1000))
    assert [second for second in range(2, 30) if out_of_turn.reserve(float(second), EQUITY, 100.0) is not None] == []


def test_a_fee_taken_in_coins_is_explained_by_the_fill() -> None:
    """0.5 BTC bought, of which a quarter of a hundredth was kept as a fee: the fill explains it."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_change(0.0, {"BTC/USD": D("0.49875")}, D(-25_000), EQUITY)
    out_of_turn.record_fill(0.0, _fill("buy", "0.5", "50000", "BTC/USD"))
    assert _fetch_times(out_of_turn, 30) == []


def test_a_crash_uses_at_most_the_allowance() -> None:
    """Without credit: five requests at once and five a minute, whatever changes."""
    out_of_turn = OutOfTurnReads()
    taken: list[float] = []
    for tenth in range(1200):
        now = tenth / 10
        out_of_turn.record_change(now, {}, D(-3000), EQUITY)
        if out_of_turn.reserve(now, EQUITY, 0.0, 2) is not None:
            taken += [now, now]
    assert len([at for at in taken if at < 1.0]) == 2
    busiest = max(sum(at <= other < at + 60 for other in taken) for at in taken)
    assert busiest <= 10


def test_without_credit_the_late_fetches_are_kept() -> None:
    """Five requests allowed, two for each fetch: at once, after ten seconds and after twenty."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_change(0.0, {}, D(-3000), EQUITY)
    assert _fetch_times(out_of_turn, 60, credit=0.0) == [0, 10, 20]


def test_credit_is_used_before_the_allowance() -> None:
    """Two requests with a credit of one: one from the credit, one from the allowance."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_change(0.0, {}, D(-3000), EQUITY)
    assert out_of_turn.reserve(0.0, EQUITY, 1.0, 2) == 1.0


def test_an_old_difference_is_forgotten() -> None:
    """A fill that no change followed for 25 s does not explain a later change."""
    out_of_turn = OutOfTurnReads()
    out_of_turn.record_fill(0.0, _fill("sell", "10", "100"))
    more: dict[str, Any] = {"AAPL": D(-10)}
    out_of_turn.record_change(26.0, more, D(1000), EQUITY)
    assert out_of_turn.reserve(26.0, EQUITY, 100.0) is not None
