"""The equity that the paper venue reports: its components, their time, and when rows are listed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.terms import LONGEST_LAG, VenueTerms, read_terms
from killswitch.model.snapshot import AccountSnapshot, Mark, Rate
from killswitch.model.venue import Prices
from tests.markets import FREE, START, Desk, bar, instrument

D = Decimal
SECOND = timedelta(seconds=1)
COSTLY = MarketRules(
    taker_fee=D("0.001"), maker_fee=D(0), half_spread=D("0.01"), impact=D(0), participation=D(1)
)  # fmt: skip


def sum_of_components(seen: AccountSnapshot) -> D:
    assert seen.unrealized is not None and seen.balances is not None
    wallets = [each.wallet * each.price for each in seen.balances if each.wallet is not None and each.price is not None]
    assert len(wallets) == len(seen.balances)
    return sum(wallets, D(0)) + seen.unrealized


def test_the_equity_of_a_margin_account_is_wallet_plus_unrealised_profit() -> None:
    """10 bought at 100 and priced at 110: 10,000 in the wallet, 100 unrealised, 10,100 in total."""
    desk = Desk()
    desk.send("buy", "10")
    desk.pass_bar(A=bar("110"))
    seen = desk.seen
    (money,) = seen.balances or ()
    assert (money.wallet, money.equity, seen.unrealized, seen.equity) == (10000, 10100, 100, 10100)
    assert sum_of_components(seen) == seen.equity
    assert seen.observed_at is not None
    assert {seen.wallet_as_of, seen.positions_as_of, seen.marked_at} == {seen.observed_at}
    assert {money.price_at, *(p.mark_at for p in seen.positions or ())} == {None}  # `marked_at` dates them all
    assert (seen.complete, seen.row_lag_s) == (True, 0)


def test_a_cash_account_has_no_unrealised_profit() -> None:
    """4 bought at 100 of 1,000 and priced at 150: 600 of cash and 4 × 150; none of it is unrealised."""
    desk = Desk(instrument("A/USDT"), wallet="1000", market="spot")
    desk.send("buy", "4", symbol="A/USDT")
    desk.pass_bar(**{"A/USDT": bar("150")})
    seen = desk.seen
    assert [(b.asset, b.wallet, b.equity, b.price) for b in seen.balances or ()] == [
        ("USDT", 600, 600, 1), ("A", 4, 4, 150),
    ]  # fmt: skip
    assert (seen.unrealized, sum_of_components(seen), seen.equity) == (0, 1200, 1200)


def test_a_fill_is_dated_by_the_clock_and_not_by_the_bar() -> None:
    """A snapshot half a minute after the bar, then a sale: the fill is dated after the snapshot, not before it."""
    desk = Desk()
    desk.send("buy", "1")
    bar_closed = START + timedelta(minutes=1)
    seen_at = bar_closed + 30 * SECOND
    before = desk.market.snapshot("main", seen_at)
    desk.market.move_clock(seen_at + SECOND)
    desk.send("sell", "1", reduce_only=True)
    after = desk.market.snapshot("main", seen_at + 2 * SECOND)
    assert [fill.at for fill in after.fills or ()] == [bar_closed, seen_at + SECOND]
    assert before.fills_as_of is not None and after.fills_as_of is not None
    assert before.fills_as_of < seen_at + SECOND <= after.fills_as_of


def test_the_clock_never_goes_back() -> None:
    """A caller whose clock was set back gets the venue's time; a bar that closes in the clock's past is dated by it."""
    desk = Desk()
    desk.send("buy", "1")
    desk.send("sell", "1", price="110")
    ahead = START + timedelta(minutes=5)
    assert desk.market.snapshot("main", ahead).observed_at == ahead
    assert desk.market.snapshot("main", START).observed_at == ahead
    desk.pass_bar(A=bar("100", high="120"))
    assert desk.market.now == START + timedelta(minutes=2)
    assert [fill.at for fill in desk.seen.fills or ()] == [START + timedelta(minutes=1), ahead]


def test_the_clock_cannot_be_moved_before_the_first_bar() -> None:
    """A clock that is moved too early has no effect."""
    market = PaperMarket([instrument("A")], seed=1)
    market.move_clock(START)
    assert market.clock is None


def test_a_closed_position_keeps_its_mark_for_five_minutes() -> None:
    """Closed at 100; a minute later the mark is 90, and after more than five minutes it is no longer listed."""
    desk = Desk()
    desk.send("buy", "1")
    assert desk.seen.marks == ()
    desk.send("sell", "1", reduce_only=True)
    desk.pass_bar(A=bar("90"))
    assert desk.seen.marks == (Mark("A", D(90)),)
    closed = START + timedelta(minutes=1)
    assert desk.market.snapshot("main", closed + timedelta(minutes=5)).marks == (Mark("A", D(90)),)
    assert desk.market.snapshot("main", closed + timedelta(minutes=5, microseconds=1)).marks == ()


def test_a_reopened_position_has_only_its_own_mark() -> None:
    """Closed and bought again within a minute: its mark is the position's."""
    desk = Desk()
    desk.send("buy", "1")
    desk.send("sell", "1", reduce_only=True)
    desk.send("buy", "2")
    assert desk.seen.marks == ()


def test_a_late_row_is_shown_late_and_dated_when_it_happened() -> None:
    """With lags of 10 and 15 s: the money has left at once, the rows follow."""
    desk = Desk(terms=read_terms({"fill_lag": 10, "flow_lag": 15}))
    opened = START + timedelta(minutes=1)
    desk.market.flow("main", "withdrawal", D(-3000))
    desk.send("buy", "1")
    shown = {
        after: (seen.balances[0].wallet, len(seen.fills or ()), len(seen.flows or ()), seen.row_lag_s)
        for after in (0, 9, 10, 14, 15)
        if (seen := desk.market.snapshot("main", opened + after * SECOND)).balances
    }
    assert shown == {
        0: (7000, 0, 0, 15), 9: (7000, 0, 0, 15), 10: (7000, 1, 0, 15), 14: (7000, 1, 0, 15), 15: (7000, 1, 1, 15),
    }  # fmt: skip
    (row,) = desk.seen.flows or ()
    assert (row.at, row.kind, row.amount) == (opened, "withdrawal", -3000)


def test_fills_queried_by_order_are_listed_at_once() -> None:
    """The lag applies to the rows in snapshots."""
    desk = Desk(terms=VenueTerms(fill_lag=30.0))
    desk.send("buy", "1", client_order_id="mine")
    assert desk.seen.fills == ()
    assert len(desk.market.fills("main", "A", "mine")) == 1


def test_a_row_can_be_later_than_the_declared_lag() -> None:
    """For rehearsals: the row of this one transfer comes after 61 s, and the venue does not declare it."""
    desk = Desk()
    opened = START + timedelta(minutes=1)
    desk.market.flow("main", "transfer", D(-1), lag=61 * SECOND)
    assert desk.market.snapshot("main", opened + 60 * SECOND).flows == ()
    seen = desk.market.snapshot("main", opened + 61 * SECOND)
    assert (len(seen.flows or ()), seen.row_lag_s) == (1, 0)


def test_late_rows_are_forgotten_after_they_were_listed() -> None:
    """A row that is due only after the recall is listed all the same, and then forgotten like other rows."""
    market = PaperMarket([instrument("A")], seed=1, rules=FREE, recall=timedelta(minutes=2))
    market.add_account("main", market="swap", currency="USDT", wallet=D(100))
    market.advance(START, {"A": bar("100")})
    market.flow("main", "deposit", D(5), lag=timedelta(minutes=3))
    counts = []
    for minute in range(1, 8):
        market.advance(START + timedelta(minutes=minute), {"A": bar("100")})
        counts.append(len(market.snapshot("main").flows or ()))
    assert counts == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("lag", [-1, LONGEST_LAG + 1, float("inf"), float("nan")])
def test_an_impossible_lag_is_refused(lag: float) -> None:
    """Seconds from zero on."""
    with pytest.raises(ValueError, match="flow_lag"):
        VenueTerms(flow_lag=lag)


def test_coins_are_transferred_at_their_price() -> None:
    """4 A at 150 and 600 of cash: 3 A leave (−450), then 1 A comes (+150); no fill, and the cash is unchanged."""
    desk = Desk(instrument("A/USDT"), wallet="1000", market="spot")
    desk.send("buy", "4", symbol="A/USDT")
    desk.pass_bar(**{"A/USDT": bar("150")})
    gone = desk.market.flow("main", "withdrawal", D(-3), asset="A")
    assert (gone.amount, gone.currency) == (-3, "A")
    assert [(b.asset, b.amount) for b in desk.seen.balances or ()] == [("USDT", 600), ("A", 1)]
    assert desk.seen.equity == 750
    desk.market.flow("main", "deposit", D(1), asset="A")
    assert (desk.seen.equity, desk.position("A/USDT").contracts, len(desk.seen.fills or ())) == (900, 2, 1)


def test_an_impossible_transfer_is_refused() -> None:
    """More of a coin than is held, a coin without a market, and any coin of a margin account."""
    desk = Desk(instrument("A/USDT"), wallet="1000", market="spot")
    desk.send("buy", "4", symbol="A/USDT")
    with pytest.raises(ValueError, match="holds 4 A, and cannot withdraw 5"):
        desk.market.flow("main", "withdrawal", D(-5), asset="A")
    with pytest.raises(ValueError, match="Q has no price in USDT"):
        desk.market.flow("main", "deposit", D(5), asset="Q")
    with pytest.raises(ValueError, match="cannot be held there"):
        Desk(instrument("A/USDT")).market.flow("main", "deposit", D(5), asset="A")
    assert desk.seen.flows == ()


def test_the_rate_of_the_accounts_currency_is_given_where_it_has_a_market() -> None:
    """An account in USDT where USDT/USD is traded at 0.9."""
    desk = Desk(instrument("A/USDT"), instrument("USDT/USD"))
    desk.pass_bar(**{"USDT/USD": bar("0.9")})
    assert desk.seen.rates == (Rate("USD", D("0.9")),)
    assert Desk().seen.rates is None


def test_prices_are_current_and_omit_unknown_symbols() -> None:
    """One price for all three, at the venue's time."""
    desk = Desk(instrument("A"), instrument("B"))
    at = START + timedelta(minutes=1, seconds=7)
    desk.market.move_clock(at)
    assert desk.market.prices(["A", "Z"]) == {"A": Prices(D(100), D(100), D(100), at)}


def test_every_change_between_two_snapshots_is_explained() -> None:
    """Closed half a minute after a bar: what was lost is spread and fees, all of it in rows dated between the two.

    By hand: 10 at 100 lose 1% of spread = 10, and 10 × 99 × 0.1% = 0.99 of fees; the mark did not move.
    """
    desk = Desk(rules=COSTLY)
    desk.market.open_position("main", "A", "long", D(1000))
    before = desk.market.snapshot("main", START + timedelta(seconds=90))
    desk.market.move_clock(START + timedelta(seconds=91))
    desk.send("sell", "10", reduce_only=True)
    after = desk.market.snapshot("main", START + timedelta(seconds=92))
    assert before.observed_at is not None and after.observed_at is not None
    rows = [fill for fill in after.fills or () if before.observed_at < fill.at <= after.observed_at]
    known = sum(((fill.realized_pnl or D(0)) - (fill.fee or D(0)) for fill in rows), D(0))
    (held,) = before.positions or ()
    assert held.unrealized_pnl is not None and before.equity is not None and after.equity is not None
    assert known == D("-10.99")
    assert after.equity - before.equity == known - held.unrealized_pnl == D("-10.99")
