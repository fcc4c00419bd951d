"""Unit value: flows are never a gain or a loss, and unexplained changes are kept separate."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.pnl_explain.explanation import ChangeEvent as News
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.rows import encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, drawdown_from_peak, loss_from_start, pnl_change, unit_value
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.unit_value import UnitValueTrack
from tests.worlds import account, after, fill, flow, position, rules

WINDOWS = (15 * MINUTE, HOUR)


def history() -> History:
    return History(WINDOWS, HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))


def observe(past: History, at: datetime, *accounts: AccountSnapshot) -> list[News]:
    """Observe the accounts; the events, without the ids of their changes."""
    found = past.observe(ScopeView(to_micros(at), True, accounts, {}, None))
    return [replace(each, change=None) for each in found]


def drawdown_of(past: History) -> float:
    low, high = drawdown_from_peak(past)
    assert low == high, "the fall should be known"
    return low


def test_d3_a_withdrawal_is_no_drawdown_and_a_loss_after_it_counts_in_full() -> None:
    """100,000; withdraw 90,000; lose 5,000: the drawdown is 50%, and was 0 before the loss."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "0")]))
    withdrawn = account("10000", [position("BTC", "long", "0")], flows=[flow("w", after(seconds=30), "-90000")])
    observe(past, after(minutes=1), withdrawn)
    assert drawdown_of(past) == 0
    observe(past, after(minutes=2), account("5000", [position("BTC", "long", "-5000")]))
    assert drawdown_of(past) == pytest.approx(0.5)


def test_d3_a_deposit_after_a_loss_does_not_reduce_the_drawdown() -> None:
    """100,000; lose 20,000; deposit 80,000: the drawdown stays 20%."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "0")]))
    observe(past, after(minutes=1), account("80000", [position("BTC", "long", "-20000")]))
    paid_in = flow("d", after(seconds=90), "80000", "deposit")
    observe(past, after(minutes=2), account("160000", [position("BTC", "long", "-20000")], flows=[paid_in]))
    assert drawdown_of(past) == pytest.approx(0.2)


def test_a_flow_reported_twice_counts_once() -> None:
    """Every row has an id, and an id counts once."""
    past = history()
    observe(past, after(), account("100000"))
    out = flow("w", after(seconds=30), "-50000")
    observe(past, after(minutes=1), account("50000", flows=[out]))
    observe(past, after(minutes=2), account("50000", flows=[out]))
    assert drawdown_of(past) == 0
    assert past.track.value == 100_000


def test_d2_equity_at_or_below_zero_is_a_full_drawdown() -> None:
    """A wiped-out account is not an empty one, and negative equity is not an error."""
    for wiped in ("0", "-1500"):
        past = history()
        observe(past, after(), account("100000", [position("BTC", "long", "0")]))
        observe(past, after(minutes=1), account(wiped, [position("BTC", "long", str(Decimal(wiped) - 100000))]))
        assert drawdown(past, 15 * MINUTE) == (1.0, 1.0)
        assert loss_from_start(past) == (1.0, 1.0)


def test_an_account_emptied_by_its_owner_has_not_lost() -> None:
    """A profit, then everything withdrawn: the unit value is unchanged."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "0")]))
    taken = flow("w", after(seconds=30), "-110000")
    gain = fill("f", after(seconds=20), "BTC", "sell", "1", "1", realized_pnl="10000", fee="0", fee_currency="USDT")
    observe(past, after(minutes=1), account("0", [], flows=[taken], fills=[gain]))
    assert drawdown_of(past) == 0
    assert past.track.value == pytest.approx(110_000)


def test_d3_an_unexplained_fall_is_a_flow_for_any_duration() -> None:
    """12% is gone at unchanged positions and prices, and no row ever comes: elapsed time makes no loss of it."""
    past = history()
    flat = [position("BTC", "long", "0")]
    observe(past, after(), account("100000", flat))
    assert observe(past, after(seconds=10), account("88000", flat)) == [News("appeared", Decimal(-12000))]
    for seconds in (60, 70, 600, 6000):
        assert observe(past, after(seconds=seconds), account("88000", flat)) == []
        assert drawdown_of(past) == pytest.approx(0)
    assert past.changes.sum == -12000


def test_d21_a_fall_that_trades_may_explain_counts_after_the_grace_period() -> None:
    """A position of 100,000 vanishes without a fill and 12% with it: pending for 60 s without a row, then a loss."""
    past = history()
    held = [position("BTC", "long", "0", notional="100000", mark_price="100000")]
    observe(past, after(minutes=7), account("100000", held))
    news = observe(past, after(minutes=7, seconds=10), account("88000", []))
    assert news == [News("appeared", Decimal(-12000), pending=True)]
    assert drawdown_from_peak(past) == pytest.approx((0.0, 0.12))
    assert observe(past, after(minutes=8), account("88000", [])) == []
    assert observe(past, after(minutes=8, seconds=10), account("88000", [])) == [News("lost", Decimal(12000))]
    assert drawdown_of(past) == pytest.approx(0.12)


def test_a_fall_with_a_late_row_is_a_withdrawal() -> None:
    """The row comes one snapshot after the money left: no drawdown, before or after."""
    past = history()
    flat = [position("BTC", "long", "0")]
    observe(past, after(), account("100000", flat))
    observe(past, after(seconds=10), account("40000", flat))
    late = flow("w", after(seconds=5), "-60000")
    (news,) = observe(past, after(seconds=20), account("40000", flat, flows=[late]))
    assert (news.kind, news.amount) == ("explained", Decimal(-60000))
    assert [it.factor for it in past.corrected_now] == [pytest.approx(0.4)]
    assert drawdown_of(past) == pytest.approx(0)


def test_a_row_after_the_grace_period_reverses_the_loss() -> None:
    """A loss after 60 s without a row, explained at 90 s: the drawdown becomes 0 again."""
    past = history()
    held = [position("BTC", "long", "0", notional="400000", mark_price="100000")]
    observe(past, after(minutes=7), account("100000", held))
    observe(past, after(minutes=7, seconds=10), account("40000", []))
    observe(past, after(minutes=8, seconds=10), account("40000", []))
    assert drawdown_of(past) == pytest.approx(0.6)
    row = flow("w", after(minutes=7, seconds=5), "-60000")
    (news,) = observe(past, after(minutes=8, seconds=30), account("40000", [], flows=[row]))
    assert (news.kind, news.amount) == ("explained", Decimal(-60000))
    assert drawdown_of(past) == pytest.approx(0)


def test_an_unexplained_rise_is_a_deposit_and_hides_no_loss() -> None:
    """50% more without a row, then a real fall of a fifth: it is a fifth of the whole."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "0")]))
    observe(past, after(minutes=1), account("150000", [position("BTC", "long", "0")]))
    assert unit_value(past, to_micros(after())) == pytest.approx((100_000, 100_000))
    observe(past, after(minutes=2), account("120000", [position("BTC", "long", "-30000")]))
    assert drawdown_from_peak(past) == pytest.approx((0.2, 0.2))


def test_funding_and_fees_are_profit_or_loss_not_flows() -> None:
    """Only deposits, withdrawals and transfers issue or redeem units."""
    past = history()
    observe(past, after(), account("100000"))
    observe(past, after(minutes=1), account("99000", flows=[flow("f", after(seconds=5), "-1000", "funding")]))
    assert drawdown_of(past) == pytest.approx(0.01)
    assert past.changes.sum == 0


def test_d4_profit_taking_is_no_loss() -> None:
    """Half of a winner is closed: unrealised profit halves, realised profit takes its place."""
    past = history()
    observe(past, after(), account("110000", [position("BTC", "long", "10000", contracts="2")]))
    taken = fill("f", after(seconds=9), "BTC", "sell", "1", "1", realized_pnl="5000", fee="0", fee_currency="USDT")
    observe(past, after(minutes=1), account("110000", [position("BTC", "long", "5000")], fills=[taken]))
    assert past.changes.sum == 0
    assert past.track.value == pytest.approx(110_000)
    key = ("main", "BTC", "long")
    assert past.rows[-1].pnl == {key: Decimal(10000)}


def test_equity_without_position_pnl_is_taken_from_the_venue() -> None:
    """What cannot be checked is not called unexplained."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long")]))
    assert observe(past, after(minutes=1), account("90000", [position("BTC", "long")])) == []
    assert drawdown_of(past) == pytest.approx(0.1)
    assert not past.explanation.complete


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pnl", "flow"]),
            st.decimals(min_value=-9000, max_value=9000, places=2),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_unit_value_is_the_chain_of_returns(moves: list[tuple[str, Decimal]]) -> None:
    """Whatever flows in or out, the unit value is the product of the returns between flows (GIPS)."""
    past = history()
    equity = Decimal(500_000)
    pnl = Decimal(0)
    expected = 1.0
    observe(past, after(), account(str(equity), [position("BTC", "long", "0")]))
    for number, (kind, amount) in enumerate(moves, start=1):
        flows = []
        if kind == "flow":
            flows = [flow(f"w{number}", after(seconds=number), str(amount), "transfer")]
        else:
            expected *= float((equity + amount) / equity)
            pnl += amount
        equity += amount
        observe(past, after(seconds=number), account(str(equity), [position("BTC", "long", str(pnl))], flows=flows))
    assert past.track.value == pytest.approx(500_000 * expected, rel=1e-9)


def test_a_restored_history_continues_as_if_uninterrupted() -> None:
    """State and rows are all that is remembered: the same later snapshots give the same values."""
    past = history()
    pnls = ["0", "-4000", "2000", "-9000", "-1000", "-7000"]
    for minute, pnl in enumerate(pnls):
        equity = str(100_000 + Decimal(pnl))
        observe(past, after(minutes=minute), account(equity, [position("BTC", "long", pnl)]))
    again = history()
    again.restore(past.state(), [encode_row(row) for row in past.rows])
    for minute, pnl in enumerate(["-12000", "-3000"], start=len(pnls)):
        seen = account(str(100_000 + Decimal(pnl)), [position("BTC", "long", pnl)])
        for each in (past, again):
            observe(each, after(minutes=minute), seen)
        assert drawdown(again, 15 * MINUTE) == drawdown(past, 15 * MINUTE)
        assert pnl_change(again, 2 * MINUTE) == pnl_change(past, 2 * MINUTE)
        assert again.state() == past.state()


def test_d2_a_deposit_into_a_wiped_out_account_begins_a_new_series() -> None:
    """A unit worth nothing cannot be issued: after the deposit, falls count from the deposited amount."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "0")]))
    observe(past, after(minutes=1), account("-1000", [position("BTC", "long", "-101000")]))
    saved = flow("d", after(minutes=1.5), "51000", "deposit")
    observe(past, after(minutes=2), account("50000", [position("BTC", "long", "-101000")], flows=[saved]))
    assert drawdown_of(past) == 0
    observe(past, after(minutes=3), account("45000", [position("BTC", "long", "-106000")]))
    assert drawdown_of(past) == pytest.approx(0.1)


def test_a_change_after_the_one_that_emptied_a_scope_brings_no_units_when_it_is_taken_back() -> None:
    """Nothing was left before it, so nothing comes back with it; what comes next buys units at the value kept."""
    track = UnitValueTrack([])
    track.open(0, 200.0)
    track.correct(1, 0.0, 200.0)
    track.revert_correction(2, 0.0, 200.0, 0.0, 0.0)
    assert track.is_empty
    track.observe(3, 100.0)
    assert (track.units, track.value) == (0.5, 200.0)


def test_a_late_row_after_two_emptyings_does_not_end_the_tick() -> None:
    """200 vanish with a contract, 200 come and vanish, and then come 100 with a row of −200: units are consistent."""
    past = history()
    known = position("A", "long", "0", entry_price="100", notional="100")
    courses = [
        ("200", [known], []),
        ("0", [], []),
        ("200", [], []),
        ("0", [position("A", "long")], []),
        ("100", [], ["-200"]),
    ]
    for minute, (equity, held, rows) in enumerate(courses):
        at = after(minutes=minute)
        flows = [flow(f"w{minute}", at, amount) for amount in rows]
        unrealized = Decimal(0) if known in held else None
        seen = account(
            equity, held, flows=flows, unrealized=unrealized, instruments=[rules("A")],
            observed_at=at, flows_as_of=at, fills_as_of=at,
        )  # fmt: skip
        observe(past, at, seen)
    assert past.track.units * past.track.value == pytest.approx(100.0)
