"""Unexplained changes: late rows, repeated falls, and what a restart must remember."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Flow
from killswitch.pnl_explain.explanation import ChangeEvent as News
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.pnl_explain.pending_changes import UnexplainedChange, UnexplainedChanges
from killswitch.signals.history.rows import StoredUnitValueRow, encode_row
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, drawdown_from_peak, loss_from_start
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, fill, flow, position

TERMS = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND)
EXACT = EquityTerms(10 * MINUTE, 1e-9, 60 * SECOND)
FLAT = [position("BTC", "long", "0")]


class StoredHistory(History):
    """A history whose rows are stored as they are appended, as a runner does."""

    def __init__(self, terms: EquityTerms = TERMS) -> None:
        super().__init__((15 * MINUTE, HOUR), HOUR, terms)
        self.terms = terms
        self.stored: list[StoredUnitValueRow] = []


def history() -> StoredHistory:
    return StoredHistory()


def observe(past: StoredHistory, at: datetime, *accounts: AccountSnapshot) -> list[News]:
    news = past.observe(ScopeView(to_micros(at), True, accounts, {}, None))
    if past.unknown is None:
        past.stored.append(encode_row(past.rows[-1]))
    return news


def see(past: StoredHistory, seconds: float, equity: str, *flows: Flow, pnl: str = "0") -> list[News]:
    return observe(past, after(seconds=seconds), account(equity, [position("BTC", "long", pnl)], flows=flows))


def restarted(past: StoredHistory) -> StoredHistory:
    """The same history in another process: state and rows through their stored form."""
    again = StoredHistory(past.terms)
    again.restore(past.state(), past.stored)
    again.stored = past.stored
    return again


def fall(past: StoredHistory) -> float:
    low, high = drawdown_from_peak(past)
    assert low == pytest.approx(high)
    return low


def test_a_deposit_with_a_late_row_is_no_peak_after_a_restart() -> None:
    """The jump was a flow: the windows, the peak and the attribution all exclude it."""
    past = history()
    see(past, 0, "100000")
    see(past, 60, "200000")
    (news,) = see(past, 70, "200000", flow("d", after(seconds=59), "100000", "deposit"))
    assert (news.kind, [it.factor for it in past.corrected_now]) == ("explained", [2.0])
    past = restarted(past)
    see(past, 80, "200000")
    assert fall(past) == 0
    assert [round(row.value) for row in past.rows] == [100_000] * 4
    see(past, 90, "180000", pnl="-20000")
    assert fall(past) == pytest.approx(0.1)


def test_flows_during_stale_data_survive_a_restart() -> None:
    """Flows that were collected and could not be applied yet are stored with the ids that mark them as seen."""
    past = history()
    see(past, 0, "100000")
    gone = flow("w", after(seconds=59), "-60000")
    observe(past, after(seconds=60), account("40000", FLAT, quality="stale", reason="slow", flows=[gone]))
    past = restarted(past)
    assert see(past, 120, "40000", gone) == []
    assert fall(past) == 0


def test_d21_a_series_of_unexplained_falls_counts_as_loss() -> None:
    """−300 every two seconds, never a row: no transfers leave so fast, and each is a loss after a minute of silence."""
    past = history()
    see(past, 0, "100000")
    for step in range(1, 61):
        see(past, 2 * step, str(100_000 - 300 * step))
    see(past, 185, str(100_000 - 300 * 60))
    assert drawdown_from_peak(past) == pytest.approx((0.18, 0.18))


def test_infrequent_unexplained_falls_are_flows_for_any_duration() -> None:
    """−300 every ten seconds, never a row: no elapsed time makes a loss of them."""
    past = history()
    see(past, 0, "100000")
    for step in range(1, 121):
        see(past, 10 * step, str(100_000 - 300 * step))
    see(past, 1300, str(100_000 - 300 * 120))
    assert fall(past) == pytest.approx(0, abs=1e-9)
    assert past.changes.sum == -36_000


def test_d21_an_unexplained_rise_and_a_later_unexplained_fall_are_both_flows() -> None:
    """+20,000 without a row, an hour later −20,000 without a row: nothing was lost, and neither explains the other."""
    past = history()
    see(past, 0, "100000")
    see(past, 60, "120000")
    see(past, 3660, "100000")
    see(past, 3720, "100000")
    assert fall(past) == pytest.approx(0, abs=1e-9)
    assert [change.amount for change in past.changes.unexplained] == [20_000, -20_000]


def test_each_fall_is_explained_by_its_own_row() -> None:
    """An unexplained −200, then a withdrawal of 50,000 whose row is late: the row explains only its own fall."""
    past = history()
    see(past, 0, "100000")
    see(past, 5, "99800")
    see(past, 60, "49800")
    see(past, 75, "49800", flow("w", after(seconds=59), "-50000"))
    assert past.changes.sum == -200
    assert fall(past) == pytest.approx(0, abs=1e-9)


def test_a_row_after_the_write_off_redeems_at_the_value_before_the_withdrawal() -> None:
    """100k, 40k withdrawn (row after the grace period), then a real loss of a third: 33.3% from the start."""
    past = history()
    see(past, 0, "100000")
    see(past, 10, "60000")
    see(past, 80, "60000")
    see(past, 90, "60000", flow("w", after(seconds=9), "-40000"))
    see(past, 100, "40000", pnl="-20000")
    assert loss_from_start(past) == pytest.approx((1 / 3, 1 / 3))


def test_a_fill_of_a_symbol_without_rules_bounds_nothing() -> None:
    """60% is gone, and one contract of unknown size was sold: the withdrawal's row comes later."""
    past = history()
    see(past, 0, "100000")
    odd = fill("f", after(seconds=9), "BTC", "sell", "1", "1")
    observe(past, after(seconds=10), account("40000", FLAT, fills=[odd]))
    assert fall(past) == pytest.approx(0, abs=1e-9)
    see(past, 15, "40000", flow("w", after(seconds=9), "-60000"))
    assert fall(past) == 0


def test_a_full_withdrawal_with_a_late_row_is_no_loss() -> None:
    """Equity zero, then the row: nothing fell, in the window and from the peak, neither before the row nor after it."""
    past = history()
    see(past, 0, "100000")
    see(past, 10, "0")
    assert (fall(past), drawdown_from_peak(past)) == (0, (0, 0))
    see(past, 20, "0", flow("w", after(seconds=9), "-100000"))
    assert fall(past) == 0


def test_d2_an_emptied_account_that_falls_into_debt_is_wiped_out() -> None:
    """Withdrawing everything is no loss; a debt of 20,000 after it is a loss of everything."""
    past = history()
    see(past, 0, "100000")
    see(past, 10, "0", flow("w", after(seconds=9), "-100000"))
    assert fall(past) == 0
    see(past, 20, "-20000", pnl="-20000")
    assert fall(past) == 1


def test_an_account_that_joins_the_scope_brings_its_equity_as_a_flow() -> None:
    """A portfolio of one account becomes one of two: no gain, no loss, nothing unexplained."""
    past = history()
    observe(past, after(), account("100000", [position("BTC", "long", "-5000")], name="a"))
    both = [account("100000", [position("BTC", "long", "-5000")], name="a"),
            account("50000", [position("ETH", "long", "-7000")], name="b")]  # fmt: skip
    assert observe(past, after(seconds=10), *both) == []
    assert fall(past) == 0


def test_a_history_that_keeps_no_window_is_corrected_too() -> None:
    """As of a policy that only locks on the equity itself: the late row of a deposit raises nothing."""
    past = History((), 0, TERMS)
    for second, equity, rows in ((0, "100000", ()), (10, "150000", ()), (70, "150000", ())):
        answer = account(equity, [], flows=rows)
        past.observe(ScopeView(to_micros(after(seconds=second)), True, (answer,), {}, None))
    assert [row.value for row in past.rows] == [100_000]


def test_a_row_older_than_48_hours_does_not_count() -> None:
    """Ids may be forgotten after 48 hours because rows that old no longer count."""
    past = history()
    paid = flow("d", after(seconds=5), "50000", "deposit")
    see(past, 0, "100000")
    see(past, 10, "150000", paid)
    for hour in range(1, 60):
        see(past, hour * 3600, "150000")
    see(past, 60 * 3600, "150000", paid)
    assert fall(past) == 0
    assert past.changes.sum == 0


kinds = st.sampled_from(["pnl", "flow", "late", "withheld"])
amounts = st.integers(-20_000, 20_000).filter(lambda amount: abs(amount) > 500)


@given(st.lists(st.tuples(kinds, amounts), min_size=1, max_size=30), st.booleans())
def test_for_any_delay_of_rows_the_truth_lies_inside_the_interval(moves: list[tuple[str, int]], restart: bool) -> None:
    """Visible profit and loss, flows at once, late or never reported: the real fall from the peak is never outside."""
    past = StoredHistory(EXACT)
    equity, pnl, units, peak = 1_000_000, 0, 1.0, 1_000_000.0
    late: list[Flow] = []
    see(past, 0, str(equity))
    for number, (kind, amount) in enumerate(moves, start=1):
        flows, late = late, []
        if kind == "pnl":
            pnl += amount
        else:
            units += amount / (equity / units)
            row = flow(f"w{number}", after(seconds=number), str(amount), "transfer")
            if kind == "flow":
                flows = [*flows, row]
            elif kind == "late":
                late = [row]
        equity += amount
        peak = max(peak, equity / units)
        see(past, number, str(equity), *flows, pnl=str(pnl))
        if restart:
            past = restarted(past)
        low, high = drawdown_from_peak(past)
        real = max(0.0, 1 - equity / units / peak)
        assert low - 1e-9 <= real <= high + 1e-9, (low, real, high)


def test_of_rows_that_arrive_together_only_the_late_part_explains_the_past() -> None:
    """A deposit of 100,000 now, and the row of an earlier one of 50,000: no unit value moved in either."""
    past = history()
    see(past, 0, "100000")
    see(past, 10, "150000")
    both = (flow("d1", after(seconds=9), "50000", "deposit"), flow("d2", after(seconds=19), "100000", "deposit"))
    see(past, 20, "250000", *both)
    assert past.changes.sum == 0
    assert fall(past) == 0
    assert [round(row.value) for row in past.rows] == [100_000] * 3


def test_a_reversed_position_realises_only_its_old_size() -> None:
    """Long 1 at 100,000, sold 2 at 99,000: the loss is 1,000, and the rest opens a short."""
    from killswitch.model.snapshot import Instrument
    from tests.worlds import rules

    past = history()
    known: dict[tuple[str, str], Instrument] = {("main", "BTC"): rules("BTC")}

    def show(seconds: float, *accounts: AccountSnapshot) -> list[News]:
        return past.observe(ScopeView(to_micros(after(seconds=seconds)), True, accounts, known, None))

    show(0, account("100000", [position("BTC", "long", "0", entry_price="100000")]))
    turned = fill("f", after(seconds=9), "BTC", "sell", "2", "99000", fee="0", fee_currency="USDT")
    news = show(10, account("99000", [position("BTC", "short", "0", entry_price="99000")], fills=[turned]))
    assert news == []
    assert past.rows[-1].pnl == {("main", "BTC", "long"): Decimal(-1000), ("main", "BTC", "short"): Decimal(0)}


def test_a_restart_after_a_reset_does_not_bring_back_what_the_reset_forgot() -> None:
    """Stored rows from before the reset stay out of the windows."""
    past = history()
    see(past, 0, "100000")
    see(past, 60, "80000", pnl="-20000")
    past.rebase(accept=True)
    past = restarted(past)
    see(past, 120, "80000", pnl="-20000")
    assert drawdown(past, 15 * MINUTE) == (0.0, 0.0)


def test_rows_from_before_an_account_was_first_seen_are_in_its_equity_already() -> None:
    """An earlier deposit reported after the start, and a transfer reported by both ends: nothing is counted twice."""
    past = history()
    see(past, 10, "100000")
    assert see(past, 20, "100000", flow("d", after(seconds=5), "50000", "deposit")) == []
    two = history()
    observe(two, after(), account("100000", FLAT, name="a"))
    out = flow("t", after(seconds=9), "-60000", "transfer")
    into = flow("t", after(seconds=9), "60000", "transfer")
    both = [account("40000", FLAT, name="a", flows=[out]), account("60000", FLAT, name="b", flows=[into])]
    assert observe(two, after(seconds=10), *both) == []
    assert fall(two) == 0


def test_a_fresh_row_does_not_hide_a_late_one_of_the_other_sign() -> None:
    """+50,000 unexplained; then its row and a withdrawal of 50,000 in one snapshot: nothing was lost."""
    past = history()
    see(past, 0, "100000")
    see(past, 10, "150000")
    rows = (flow("d", after(seconds=9), "50000", "deposit"), flow("w", after(seconds=19), "-50000"))
    see(past, 20, "100000", *rows)
    assert past.changes.sum == 0
    assert fall(past) == 0


def test_a_profit_beyond_the_number_range_is_unknown_and_raises_nothing() -> None:
    """1E+99999999 overflows a sum, 1E+400 a float."""
    for odd in ("1E+99999999", "1E+400", "-1E+400"):
        past = history()
        see(past, 0, "100000")
        see(past, 10, "90000", pnl=odd)
        assert not past.explanation.complete
        low, high = drawdown_from_peak(past)
        assert (low, high) == (0, pytest.approx(0.1)), "it may be a loss, or money that moved"
        see(past, 80, "90000", pnl=odd)
        assert fall(past) == pytest.approx(0.1), "the ledger was silent for the grace"


@pytest.mark.parametrize("odd", ["1E+99999999", "sNaN"])
def test_a_non_finite_position_profit_does_not_affect_the_equitys_own(odd: str) -> None:
    """The equity's answer shows a loss of 10,000: a non-finite value of a position takes nothing from it."""
    past = history()
    observe(past, after(), account("100000", FLAT, unrealized=Decimal(0)))
    observe(past, after(seconds=10), account("90000", [position("BTC", "long", odd)], unrealized=Decimal(-10_000)))
    assert fall(past) == pytest.approx(0.1)


def test_the_remainder_of_a_netted_change_stays_pending() -> None:
    """A rise of 100 is netted with falls of 30 and 10: what no fall offsets stays pending, also after the second."""
    rise, first, second = (
        UnexplainedChange(SECOND, Decimal(amount), 1000.0, 1.0, 0.0, account="main", kind="trade")
        for amount in (100, -30, -10)
    )
    changes = UnexplainedChanges([first, second, rise])
    changes.net(rise, SECOND)
    assert [change.amount for change in changes.all] == [-30, -10, 10, 20, 70]
    assert [change.amount for change in changes.open] == [20, 70]
