"""Interventions of the venue itself, and the liquidity that it reports for its markets."""

from __future__ import annotations

from decimal import Decimal
from math import log, sqrt

import pytest

from killswitch.market.rules import MarketRules
from killswitch.market.terms import VenueTerms, read_terms
from killswitch.model.snapshot import Liquidity
from killswitch.model.venue import OrderRejectedError
from tests.markets import FREE, Desk, bar, instrument

D = Decimal
WHOLE_BOOK = read_terms({"whole_book": True})


def test_c21_adl_reduces_a_position_at_its_price_without_a_fee() -> None:
    """4 of 10 at 120 from a long entered at 100: 80 realised, 6 left, no fee, and the fill has the cause."""
    desk = Desk()
    desk.send("buy", "10")
    desk.market.deleverage("main", "A", D(4), D(120))
    fill = (desk.seen.fills or ())[-1]
    assert (fill.cause, fill.side, fill.amount, fill.price, fill.fee, fill.realized_pnl) == (
        "adl",
        "sell",
        4,
        120,
        0,
        80,
    )
    assert (fill.order, fill.position_side) == (None, "long")
    assert (desk.position().contracts, desk.seen.equity) == (6, 10080)


def test_c21_a_forced_liquidation_costs_its_fee_and_ends_the_exits() -> None:
    """All of a short of 10 at 110 with a fee of 1%: −100 and −11; its stop expires with it."""
    desk = Desk(rules=MarketRules(taker_fee=D(0), half_spread=D(0), impact=D(0), liquidation_fee=D("0.01")))
    desk.send("sell", "10")
    desk.send("buy", "10", reduce_only=True, rises_to="130")
    desk.market.deleverage("main", "A", None, D(110), "liquidation")
    assert (desk.seen.equity, desk.seen.positions, desk.seen.orders) == (10000 - 100 - 11, (), ())
    assert desk.report("c2").state == "expired"


@pytest.mark.parametrize(("contracts", "text"), [("11", "holds 10"), ("0", "not 0")])
def test_a_reduction_beyond_the_position_is_refused(contracts: str, text: str) -> None:
    """Nor a reduction by nothing."""
    desk = Desk()
    desk.send("buy", "10")
    with pytest.raises(ValueError, match=text):
        desk.market.deleverage("main", "A", D(contracts), D(100))


def test_a_cash_account_is_not_liquidated() -> None:
    """It has no debt."""
    desk = Desk(market="spot")
    desk.send("buy", "10")
    with pytest.raises(ValueError, match="cannot be liquidated or deleveraged"):
        desk.market.deleverage("main", "A", D(1), D(100))


def test_c12_a_delisting_with_a_price_delivers_and_without_one_strands() -> None:
    """Orders are cancelled in both cases; delivered at 90 a long of 10 from 100 loses 100."""
    for price, left, equity in ((D(90), 0, 9900), (None, 10, 10000)):
        desk = Desk()
        desk.send("buy", "10")
        desk.send("buy", "1", price="80")
        desk.market.delist("A", price)
        assert desk.seen.orders == ()
        assert sum(p.contracts for p in desk.seen.positions or ()) == left
        assert desk.seen.equity == equity
        with pytest.raises(OrderRejectedError, match="delisted"):
            desk.send("sell", "10", reduce_only=True)


def test_a_whole_book_is_closed_in_one_call() -> None:
    """Long and short close, also above the largest order and although exits rest; orders that are not exits stay."""
    terms = VenueTerms(WHOLE_BOOK.traits, resting_exits_block=True)
    desk = Desk(instrument("A", max_amount="5"), instrument("B"), terms=terms)
    for _ in range(2):
        desk.send("buy", "5")
    desk.send("sell", "7", symbol="B")
    desk.send("sell", "5", reduce_only=True, price="120")
    desk.send("sell", "5", reduce_only=True, falls_to="80")
    entry = desk.send("buy", "1", price="90")
    desk.market.close_book("main")
    assert desk.seen.positions == ()
    assert [order.id for order in desk.seen.orders or ()] == [entry.id]


def test_the_unfilled_part_of_a_whole_book_close_continues() -> None:
    """The bar has 10% of 1,000: of 150 now 100, and 50 from the next bar; a halted symbol stays."""
    rules = MarketRules(taker_fee=D(0), half_spread=D(0), impact=D(0), participation=D("0.1"))
    desk = Desk(instrument("A"), instrument("B"), terms=WHOLE_BOOK, rules=rules)
    desk.market.open_position("main", "A", "long", D(15000))
    desk.market.open_position("main", "B", "long", D(100))
    desk.market.set_state("B", "halted")
    desk.market.close_book("main")
    assert desk.position("A").contracts == 50
    desk.pass_bar(A=bar("100"), B=bar("100"))
    assert [p.symbol for p in desk.seen.positions or ()] == ["B"]


def test_a_whole_book_close_is_refused_where_it_is_not_supported() -> None:
    """By a venue without it, and in a cash account."""
    with pytest.raises(OrderRejectedError, match="does not close whole books"):
        Desk().market.close_book("main")
    with pytest.raises(OrderRejectedError, match="no book to close"):
        Desk(market="spot", terms=WHOLE_BOOK).market.close_book("main")


def test_a_batch_is_answered_order_by_order() -> None:
    """The second of three is rejected with its reason; the first and the third are executed, in their places."""
    desk = Desk(terms=read_terms({"batch": 3}))
    orders = [desk.order("buy", "1"), desk.order("buy", "0"), desk.order("sell", "1", reduce_only=True)]
    first, second, third = desk.market.submit_batch("main", orders)
    assert not isinstance(first, OrderRejectedError) and not isinstance(third, OrderRejectedError)
    assert (first.client_order_id, first.state, third.client_order_id, third.state) == ("c1", "filled", "c3", "filled")
    assert isinstance(second, OrderRejectedError) and second.reason == "below_minimum"
    assert desk.seen.positions == ()


def test_a_batch_that_is_too_large_does_nothing() -> None:
    """Two orders where one is the most: neither is processed."""
    desk = Desk()
    with pytest.raises(OrderRejectedError, match="at most 1"):
        desk.market.submit_batch("main", [desk.order("buy", "1"), desk.order("buy", "1")])
    assert desk.market.find_order("main", "A", "c1") is None


def _shown(desk: Desk) -> Liquidity:
    (shown,) = desk.seen.liquidity or ()
    return shown


def test_liquidity_is_reported_only_by_a_venue_that_declares_it() -> None:
    """A plain venue's snapshot has none, so that recordings are unchanged."""
    assert Desk().seen.liquidity is None


def test_depth_is_the_remaining_participation_and_volume_is_the_bars() -> None:
    """10% of 500 base units are 50, or 5,000 contracts of 0.01; after 2,000 are bought 3,000 are left.

    Buying them all moves the price by 2 · 0.2 · 10% = 4%."""
    rules = MarketRules(participation=D("0.1"), impact=D("0.2"))
    desk = Desk(
        instrument("A", contract_size="0.01", amount_step="1"), rules=rules, terms=VenueTerms(shows_liquidity=True)
    )
    assert (_shown(desk).volume, _shown(desk).over) == (None, None)
    desk.pass_bar(A=bar("100", volume="500"))
    shown = _shown(desk)
    assert (shown.bid_depth, shown.ask_depth, shown.volume, shown.over) == (5000, 5000, 50000, 60.0)
    assert shown.within == D("0.04")
    desk.send("buy", "2000")
    assert _shown(desk).bid_depth == 3000


def test_the_volatility_of_a_day_is_that_of_the_closes() -> None:
    """Closes that go up and down by the same return r each minute: r · √1440; with fewer than ten returns unknown."""
    desk = Desk(rules=FREE, terms=VenueTerms(shows_liquidity=True))
    for number in range(9):
        desk.pass_bar(A=bar("101" if number % 2 == 0 else "100"))
    assert _shown(desk).volatility is None
    for number in range(9, 80):
        desk.pass_bar(A=bar("101" if number % 2 == 0 else "100"))
    assert _shown(desk).volatility == pytest.approx(log(1.01) * sqrt(1440))
