"""What must not hide a loss, count it twice, or turn a flow into one.

One contract of X is worth its price. Expected falls are worked out by hand: a deposit is a flow, so that a loss is a
fraction of the equity with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.instant import HOUR, MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Fill, Flow, Instrument, Mark, Position
from killswitch.model.words import ReferenceCurrency
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown_from_peak, unit_value
from killswitch.valuation.scope_view import ScopeView

X = "X/USDT:USDT"
RULES = {("main", X): Instrument(X, contract_size=Decimal(1)), ("other", X): Instrument(X, contract_size=Decimal(1))}
NOON = datetime(2026, 1, 1, 12, 20, tzinfo=UTC)
"""Far from a full hour, at which funding may be booked."""


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def history(*, closes: bool = False) -> History:
    return History([15 * MINUTE], HOUR, EquityTerms(MINUTE, 0.001, MINUTE, closes))


def held(amount: int, price: str, entry: str = "100") -> Position:
    size, mark, paid = Decimal(amount), Decimal(price), Decimal(entry)
    return Position(
        X, "long", size, mark_price=mark, entry_price=paid, notional=size * mark, unrealized_pnl=(mark - paid) * size
    )


def account(
    seconds: float, wallet: str, positions: Sequence[Position] = (), *, profit: str | None = None, **more: Any
) -> AccountSnapshot:
    """All parts are of one moment; `profit`: of the answer that has the equity, else that of the positions."""
    own = sum((it.unrealized_pnl or Decimal(0) for it in positions), Decimal(0)) if profit is None else Decimal(profit)
    amount = Decimal(wallet)
    told: dict[str, Any] = {
        "equity": amount + own,
        "unrealized": own,
        "balances": (Balance("USDT", amount, wallet=amount),),
        "positions": tuple(positions),
        "marks": (Mark(X, Decimal(100)),),
        **dict.fromkeys(("observed_at", "wallet_as_of", "positions_as_of", "fills_as_of", "flows_as_of"), at(seconds)),
    }
    return AccountSnapshot("main", "v", "swap", "USDT", "ok", **(told | more))


def observe(past: History, seconds: float, *accounts: AccountSnapshot, reference: str | None = None) -> None:
    rates = None if reference is None else ReferenceCurrency(reference, 1, Decimal("0.01"))
    past.observe(ScopeView(to_micros(at(seconds)), True, accounts, RULES, None, reference=rates))


def fall(past: History) -> float:
    """The lower bound of the drawdown from the peak."""
    return drawdown_from_peak(past)[0]


def other_account(wallet: str, *balances: Balance) -> AccountSnapshot:
    """Another account, which holds no position."""
    amount = Decimal(wallet)
    own = Balance("USDT", amount, wallet=amount)
    parts: dict[str, Any] = {"balances": (own, *balances), "unrealized": Decimal(0), "positions": ()}
    return AccountSnapshot("other", "v", "swap", "USDT", "ok", equity=amount, **parts)


def deposit(seconds: float, amount: str, name: str = "d") -> Flow:
    return Flow(name, at(seconds), "deposit", Decimal(amount), "USDT")


def sold(seconds: float, amount: int, price: str) -> Fill:
    made = (Decimal(price) - 100) * amount
    return Fill("f", at(seconds), X, "sell", Decimal(amount), Decimal(price), realized_pnl=made)


@pytest.mark.parametrize("came", [9_000, 10_000, 12_000])
def test_a_deposit_in_the_same_tick_hides_no_loss_of_a_stop_with_a_late_fill(came: int) -> None:
    """1,000 contracts sold at 90 with the mark at 100, reported 4 s later: 10,000 of 100,000 and the deposit."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1000, "100")]))
    after = str(100_000 - 10_000 + came)
    observe(past, 5, account(5, after, flows=(deposit(4.5, str(came)),)))
    for second in range(6, 80):
        fills = (sold(4.4, 1000, "90"),) if second == 9 else ()
        observe(past, second, account(second, after, fills=fills))
    assert fall(past) == pytest.approx(10_000 / (100_000 + came))


def test_a_deposit_with_a_late_row_hides_no_loss_of_a_stop_with_a_late_fill() -> None:
    """Equity shows 1,000 less; the row of 9,000 comes after 3 s and the fill, of 10,000, after 4 s."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1000, "100")]))
    for second in range(5, 80):
        flows = (deposit(4.5, "9000"),) if second == 8 else ()
        fills = (sold(4.4, 1000, "90"),) if second == 9 else ()
        observe(past, second, account(second, "99000", flows=flows, fills=fills))
    assert fall(past) == pytest.approx(10_000 / 109_000)


def test_flows_of_one_tick_leave_no_remainder_that_hides_a_later_loss() -> None:
    """10,000 left and 20,000 came; 25 s later 10,000 of 110,000 are lost in a trade that nothing reports."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(2000, "100")]))
    went = Flow("w", at(4.5), "withdrawal", Decimal(-10_000), "USDT")
    observe(past, 5, account(5, "110000", [held(2000, "100")], flows=(went, deposit(4.5, "20000"))))
    for second in range(6, 30):
        observe(past, second, account(second, "110000", [held(2000, "100")]))
    for second in range(30, 80):
        observe(past, second, account(second, "100000"))
    assert fall(past) == pytest.approx(1 / 11)


def without_parts(seconds: float, equity: str) -> AccountSnapshot:
    """An account without anything that shows what its equity consists of."""
    told = account(seconds, equity)
    return AccountSnapshot(
        "main", "v", "swap", "USDT", "ok", equity=told.equity, observed_at=told.observed_at,
        fills_as_of=told.fills_as_of, flows_as_of=told.flows_as_of,
    )  # fmt: skip


@pytest.mark.parametrize("row_at", [None, 7])
def test_a_tick_without_parts_makes_no_loss_of_a_withdrawal(row_at: int | None) -> None:
    """30,000 leave while the parts of equity are unknown: pending, and a row that arrives explains it."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(10, "100")]))
    observe(past, 5, without_parts(5, "70000"))
    assert drawdown_from_peak(past) == (0, pytest.approx(0.3))
    for second in range(6, 15):
        flows = (Flow("w", at(4.6), "withdrawal", Decimal(-30_000), "USDT"),) if second == row_at else ()
        observe(past, second, account(second, "70000", [held(10, "100")], flows=flows))
        assert fall(past) == 0
    assert drawdown_from_peak(past)[1] == (0 if row_at else pytest.approx(0.3))


def test_a_loss_in_ticks_without_parts_counts_once_the_ledger_has_no_row_for_it() -> None:
    """The same 30,000, lost: rows are known until 16 s past it, and none explains it."""
    past = history()
    observe(past, 0, account(0, "100000", [held(10, "100")]))
    for second in range(1, 19):
        observe(past, second, without_parts(second, "70000"))
    assert fall(past) == pytest.approx(0.3)


def late_positions(past: History, moves: Iterable[tuple[str, str]]) -> None:
    """1,000 contracts; (price of the equity, price of the positions) a second each, and nothing is dated."""
    for second, (price, seen) in enumerate(moves):
        profit = str((Decimal(price) - 100) * 1000)
        undated = {"wallet_as_of": None, "positions_as_of": None}
        observe(past, second, account(second, "100000", [held(1000, seen)], profit=profit, **undated))


JITTER = [("100", "100"), ("100.1", "100"), ("99.9", "100.1"), ("100", "99.9"), ("100", "100")]
"""Prices that moved by 0.1%, seen a second later in the positions than in the worth."""


def test_a_crash_that_positions_show_late_counts_at_once_for_any_earlier_prices() -> None:
    """100 to 80: 20,000 of 100,000 but for the 0.2 a contract by which it had moved both ways."""
    past = history()
    late_positions(past, [*JITTER, ("80", "100")])
    assert fall(past) == pytest.approx(0.2, abs=0.003)


def test_a_crash_that_positions_confirmed_is_not_noise_when_prices_rise_again() -> None:
    """100 to 92 in a second, which positions show a second later, and then up by 0.2: 8,000 stay lost."""
    past = history()
    late_positions(past, [("100", "100"), ("92", "100"), ("92", "92"), ("92.2", "92"), ("92.2", "92.2")])
    assert drawdown_from_peak(past) == (pytest.approx(0.078), pytest.approx(0.078))


def test_a_frozen_list_of_positions_hides_no_falling_equity() -> None:
    """Equity falls by 1% a second to 70, and the positions never change again."""
    past = history()
    late_positions(past, [*JITTER, *((str(100 - fallen), "100") for fallen in range(1, 31))])
    assert fall(past) == pytest.approx(0.3, abs=0.003)


def test_a_loss_that_positions_show_late_is_not_counted_twice() -> None:
    """94 in the equity during a trade, and a second later in the positions: 6,000 of 100,000, and not 12,000."""
    past = history()
    late_positions(past, JITTER)
    undated = {"wallet_as_of": None, "positions_as_of": None}
    observe(past, 5, account(5, "100000", [held(990, "100")], profit="-6000", **undated))
    for second in range(6, 30):
        observe(past, second, account(second, "100000", [held(990, "94", "100")], profit="-6000", **undated))
    assert drawdown_from_peak(past)[1] == pytest.approx(0.06, abs=0.003)


def test_a_pending_loss_is_settled_while_another_account_is_unavailable() -> None:
    """40,000 of 100,000 are gone in a trade without a fill; the other account is down from then on."""
    past = history()
    second_one = other_account("1000")
    for second in range(5):
        observe(past, second, account(second, "100000", [held(3000, "100")]), second_one)
    down = AccountSnapshot("other", "v", "swap", "USDT", "down", reason="no answer")
    observe(past, 5, account(5, "60000"), second_one)
    assert fall(past) == 0
    for second in range(6, 30):
        observe(past, second, account(second, "60000"), down)
    assert fall(past) == pytest.approx(40_000 / 101_000)


def test_a_policy_that_counts_every_fall_counts_it_whatever_a_late_fill_adds() -> None:
    """30,000 gone without a row, 1 contract sold 3,000 better than its mark: 33,000 were lost or withdrawn."""
    past = history(closes=True)
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1, "100")]))
    observe(past, 5, account(5, "70000"))
    better = Fill("f", at(4.4), X, "sell", Decimal(1), Decimal(3100), realized_pnl=Decimal(3000))
    for second in range(6, 40):
        observe(past, second, account(second, "70000", fills=(better,) if second == 7 else ()))
    assert fall(past) == pytest.approx(0.3)


def test_a_lag_of_hours_is_not_waited_for() -> None:
    """A venue whose rows arrived two hours late: the loss of a trade without a fill counts after three minutes."""
    past = history()
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1500, "100")], row_lag_s=7200.0))
    counted = None
    for second in range(5, 200):
        observe(past, second, account(second, "80000", row_lag_s=7200.0))
        if counted is None and fall(past) > 0:
            counted = second
    assert counted == 5 + 180


def test_small_rows_of_one_account_move_a_portfolio_by_their_share_of_it() -> None:
    """Ten rows of 2 in an account of 1,000 beside one of a million, whose equity never shows them: 20 of 1,001,000."""
    past = history()
    rich = other_account("1000000")
    for second in range(90):
        flows = tuple(deposit(4.5, "2", f"d{n}") for n in range(10)) if second == 5 else ()
        observe(past, second, account(second, "1000", flows=flows), rich)
    assert drawdown_from_peak(past)[1] == pytest.approx(0, abs=3e-5)
    assert past.track.units == pytest.approx(1 + 20 / 1_001_000, abs=1e-6)


def test_a_fully_withdrawn_account_keeps_its_unit_value() -> None:
    """Everything leaves without a row, and a part comes back: it buys units at the value of before, 74,000."""
    past = history()
    observe(past, 0, account(0, "74000"))
    fired = to_micros(at(1))
    observe(past, 10, account(10, "0"))
    assert unit_value(past, fired) == (74_000.0, 74_000.0)
    observe(past, 12, account(12, "5000"))
    assert unit_value(past, fired) == (74_000.0, 74_000.0)


def test_a_wallet_that_contradicts_an_unchanged_equity_is_no_flow() -> None:
    """Equity 100,000 in three answers, of which the second gives an empty wallet."""
    past = history()
    observe(past, 0, account(0, "100000"))
    empty = (Balance("USDT", Decimal(0), wallet=Decimal(0)),)
    observe(past, 1, account(1, "100000", balances=empty))
    observe(past, 2, account(2, "100000"))
    assert drawdown_from_peak(past) == (0, 0)


def test_an_answer_without_positions_but_with_unrealised_loss_is_not_trusted() -> None:
    """No positions, and 15,000 of unrealised loss: what is held is unknown, so that it cannot be closed."""
    past = history()
    observe(past, 0, account(0, "100000", [held(1000, "100")]))
    observe(past, 1, account(1, "100000", profit="-15000"))
    assert past.unknown == "main reports no positions, but -15000 USDT of unrealised profit"


def test_noise_of_an_account_in_another_currency_is_removed_in_the_scopes_currency() -> None:
    """Coins worth 50,000 each: equity swings by 0.2 of 10 of them beside its parts, and returns to where it was."""
    past = history()
    for second, coins in enumerate(["10", "10", "9.8", "10", "9.8", "10", "10"]):
        coin = AccountSnapshot(
            "main", "v", "swap", "BTC", "ok", equity=Decimal(coins), unrealized=Decimal(0), positions=(),
            balances=(Balance("BTC", Decimal(10), wallet=Decimal(10)),),
        )  # fmt: skip
        priced = other_account("1000000", Balance("BTC", Decimal(0), Decimal(50_000), wallet=Decimal(0)))
        observe(past, second, coin, priced, reference="USDT")
    assert past.unknown is None
    assert past.track.value == pytest.approx(1_500_000, rel=1e-4)


def test_a_settlement_rescales_the_remembered_values() -> None:
    """30,000 left without a row; what was remembered at 70,000 counts as 100,000 once it is settled as a flow."""
    past = history()
    observe(past, 0, account(0, "100000"))
    factors = []
    for second in range(1, 50):
        observe(past, second, account(second, "70000"))
        factors += [it.factor for it in past.corrected_now]
    assert factors == [pytest.approx(0.7)]
    assert past.track.value == pytest.approx(100_000)
