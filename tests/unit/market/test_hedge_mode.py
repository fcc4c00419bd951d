"""Hedge mode: both sides of a symbol are two positions, each with its own orders (C8)."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

import pytest

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.terms import VenueTerms, read_terms
from killswitch.model.snapshot import Position
from killswitch.model.venue import OrderRejectedError
from tests.markets import FREE, Desk, bar, instrument

D = Decimal
RATE = D("0.005")


def _desk(wallet: str = "10000", terms: VenueTerms | None = None, rules: MarketRules = FREE) -> Desk:
    """A at 100 in an account in hedge mode, leverage 10, with 5 long and 3 short."""
    desk = Desk(rules=rules)
    desk.market = PaperMarket([instrument("A")], seed=1, rules=rules, terms=terms)
    desk.market.add_account("main", market="swap", currency="USDT", wallet=D(wallet), leverage=D(10), hedge=True)
    desk.pass_bar(A=bar("100"))
    desk.send("buy", "5", position_side="long")
    desk.send("sell", "3", position_side="short")
    return desk


def _held(desk: Desk) -> dict[str, Position]:
    return {position.side: position for position in desk.seen.positions or ()}


def test_c8_both_sides_are_held_with_their_own_profit() -> None:
    """5 long and 3 short at 100, price 110: +50 and −30, and the snapshot is in hedge mode."""
    desk = _desk()
    desk.pass_bar(A=bar("110"))
    assert desk.seen.position_mode == "hedge"
    earned = {side: (held.symbol, held.contracts, held.unrealized_pnl) for side, held in _held(desk).items()}
    assert earned == {"long": ("A", 5, 50), "short": ("A", 3, -30)}
    assert desk.seen.equity == 10020


@pytest.mark.parametrize("reduce_only", [True, False])
def test_c8_closing_one_side_leaves_the_other_and_opens_no_position(reduce_only: bool) -> None:
    """Selling 7 of a long of 5 sells 5, with and without reduce-only: the short is unchanged."""
    desk = _desk()
    report = desk.send("sell", "7", position_side="long", reduce_only=reduce_only)
    assert (report.state, report.filled) == ("expired", 5)
    assert {side: held.contracts for side, held in _held(desk).items()} == {"short": 3}
    fill = (desk.seen.fills or ())[-1]
    assert (fill.position_side, fill.side, fill.amount) == ("long", "sell", 5)


def test_c8_the_second_close_is_accepted_too() -> None:
    """After the long the short; then either is refused as flat."""
    desk = _desk()
    desk.send("sell", "5", position_side="long")
    assert desk.send("buy", "3", position_side="short").state == "filled"
    assert desk.seen.positions == ()
    with pytest.raises(OrderRejectedError) as caught:
        desk.send("buy", "3", position_side="short")
    assert caught.value.reason == "already_flat"


def test_a_reduce_only_order_on_the_wrong_side_is_refused() -> None:
    """A reduce-only sale reduces no short."""
    with pytest.raises(OrderRejectedError, match="cannot reduce a short"):
        _desk().send("sell", "1", position_side="short", reduce_only=True)


def test_stops_belong_to_their_side() -> None:
    """The long's stop fills at 95 and the short stays; the short's stop expires when the short is closed."""
    desk = _desk()
    desk.send("sell", "5", position_side="long", falls_to="95")
    desk.send("buy", "3", position_side="short", rises_to="120")
    desk.pass_bar(A=bar("100", low="94"))
    assert (desk.report("c3").average_price, list(_held(desk))) == (95, ["short"])
    desk.send("buy", "3", position_side="short")
    assert desk.report("c4").state == "expired"


def test_c6_exits_of_one_side_do_not_block_the_other() -> None:
    """A take-profit reserves the long; its close is blocked, that of the short is not."""
    desk = _desk(terms=VenueTerms(resting_exits_block=True))
    desk.send("sell", "5", position_side="long", price="120")
    with pytest.raises(OrderRejectedError) as caught:
        desk.send("sell", "5", position_side="long")
    assert caught.value.reason == "blocked_by_order"
    assert desk.send("buy", "3", position_side="short").state == "filled"


def test_exits_reserve_no_margin_and_are_accepted_where_entries_are_not() -> None:
    """In a reduce-only symbol an order that closes its side is accepted although it is not marked reduce-only."""
    desk = _desk()
    free = desk.seen.free
    desk.send("sell", "5", position_side="long", price="120")
    assert desk.seen.free == free
    desk.market.set_state("A", "reduce_only")
    with pytest.raises(OrderRejectedError, match="reduce-only orders only"):
        desk.send("sell", "1", position_side="short")
    assert desk.send("buy", "3", position_side="short").state == "filled"


def test_the_liquidation_price_depends_on_both_sides() -> None:
    """Net 5 − 3, gross 8: 100 − (100 − 4) ÷ (2 − 8 · 0.005) with 100 in the wallet; the short gains on the way there.

    At that price the venue begins to liquidate, with the larger position."""
    rules = MarketRules(
        taker_fee=D(0), maker_fee=D(0), half_spread=D(0), impact=D(0), participation=D(1), maintenance=RATE
    )
    desk = _desk(wallet="100", rules=rules)
    exact = 100 - (100 - 8 * 100 * RATE) / (2 - 8 * RATE)
    assert _held(desk)["long"].liquidation_price == exact.quantize(D("0.01"), ROUND_CEILING)
    assert _held(desk)["short"].liquidation_price is None
    desk.pass_bar(A=bar("100", low="50"))
    first = next(fill for fill in desk.seen.fills or () if fill.cause == "liquidation")
    assert (first.position_side, abs(first.price - exact) <= D("0.01")) == ("long", True)


def test_equal_sides_have_no_liquidation_price_in_the_fall() -> None:
    """What one side loses the other gains: only the maintenance of both grows, and with the price."""
    desk = _desk(wallet="1000", rules=MarketRules(taker_fee=D(0), half_spread=D(0), impact=D(0), maintenance=RATE))
    desk.send("sell", "2", position_side="short")
    prices = {side: held.liquidation_price for side, held in _held(desk).items()}
    assert prices["long"] is None and prices["short"] is not None and prices["short"] > 10_000


def test_interventions_of_the_venue_name_their_side() -> None:
    """ADL of 1 of the short; a whole-book close then takes both sides; so does a delivery."""
    desk = _desk(terms=read_terms({"whole_book": True}))
    desk.market.deleverage("main", "A", D(1), D(90), side="short")
    fill = (desk.seen.fills or ())[-1]
    assert (fill.side, fill.position_side, fill.realized_pnl) == ("buy", "short", 10)
    assert {side: held.contracts for side, held in _held(desk).items()} == {"long": 5, "short": 2}
    desk.market.close_book("main")
    assert desk.seen.positions == ()
    other = _desk()
    other.market.delist("A", D(100))
    assert other.seen.positions == ()


def test_a_book_is_opened_on_both_sides() -> None:
    """Without orders, one after the other; the same side twice is refused."""
    desk = _desk()
    desk.send("buy", "3", position_side="short")
    desk.market.open_position("main", "A", "short", D(200))
    assert {side: held.contracts for side, held in _held(desk).items()} == {"long": 5, "short": 2}
    with pytest.raises(ValueError, match="held already"):
        desk.market.open_position("main", "A", "short", D(200))


def test_a_cash_account_has_one_side() -> None:
    """A cash account has no hedge mode."""
    with pytest.raises(ValueError, match="one side only"):
        Desk().market.add_account("spot", market="spot", currency="USDT", wallet=D(1), hedge=True)
