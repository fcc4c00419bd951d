"""Prices of the ladder's rungs at their edges: unknown marks, ticks, bands, and markets that take only some orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.closing.ladder import MARKET, Manner, manner, next_rung
from killswitch.model.decision import Rung
from killswitch.model.snapshot import Instrument, OrderSide, Position

D = Decimal
IOC = (Rung("limit_ioc", D(2), 2), Rung("limit", D(3)))


def seen(mark: str | None = "100", bid: str | None = "99", ask: str | None = "101") -> Position:
    known = {"mark_price": mark, "bid": bid, "ask": ask}
    return Position("BTC", "long", D(1), **{name: D(text) for name, text in known.items() if text is not None})


def rules(**words: Any) -> Instrument:
    return Instrument("BTC", **words)


def test_without_a_ladder_two_tries_at_market_come_before_a_limit_and_then_the_market_again() -> None:
    """The second order is still at market, the third a limit, the fourth at market."""
    assert [next_rung(MARKET, 0, tried) for tried in (0, 1, 2, 9)] == [0, 0, 1, 1]
    assert [next_rung(MARKET, 1, tried) for tried in (0, 1, 9)] == [1, 0, 0]
    assert manner(MARKET, 0, "sell", None, seen(), None) == Manner(0, "market", None)
    assert manner(MARKET, 1, "sell", None, seen(), None) == Manner(1, "limit", D(99), rests=True)


def test_a_rung_beyond_a_shorter_ladder_is_its_last() -> None:
    """A journal of a longer ladder."""
    assert next_rung(IOC, 7, 0) == 1


@pytest.mark.parametrize(("side", "price"), [("sell", "98"), ("buy", "102")])
def test_a_bound_is_kept_from_the_mark_and_expires_at_once(side: OrderSide, price: str) -> None:
    """Twice one percent of 100; the next rung rests at thrice."""
    assert manner(IOC, 0, side, D("0.01"), seen(), None) == Manner(0, "limit_ioc", D(price))
    resting = manner(IOC, 1, side, D("0.01"), seen(), None)
    assert (resting.order, resting.rests, resting.rung) == ("limit", True, 1)


@pytest.mark.parametrize(("side", "price"), [("sell", "99"), ("buy", "101")])
def test_without_a_mark_or_a_bound_the_book_prices_it(side: OrderSide, price: str) -> None:
    """The best price of the other side."""
    assert manner(IOC, 0, side, D("0.01"), seen(mark=None), None).price == D(price)
    assert manner(IOC, 0, side, None, seen(), None).price == D(price)
    assert manner(IOC, 0, side, D("0.01"), seen(mark="NaN"), None).price == D(price)


def test_where_the_book_is_unknown_too_it_goes_at_market() -> None:
    """No price, and it says so; the side of the book that is not needed does not help."""
    market = Manner(0, "market", None)
    assert manner(IOC, 0, "sell", None, seen(bid=None), None) == market
    assert manner(IOC, 0, "buy", None, seen(ask=None), None) == market
    assert manner(IOC, 0, "sell", None, None, None) == market
    assert manner(IOC, 1, "sell", None, None, None) == Manner(1, "market", None)
    assert manner(IOC, 0, "sell", None, seen(bid="NaN"), None) == market


@pytest.mark.parametrize("state", ["limit_only", "post_only"])
def test_a_market_rung_is_a_limit_where_market_orders_are_not_taken(state: str) -> None:
    """Without the bound: it exists to get out; it rests."""
    ladder = (Rung("market", D(1), 2),)
    how = manner(ladder, 0, "sell", D("0.01"), seen(), rules(state=state))
    assert (how.order, how.rests) == ("limit", True)
    assert how.price == (D(99) if state == "limit_only" else D(101))


def test_where_only_makers_are_let_in_nothing_expires_at_once() -> None:
    """A bounded rung rests there; where limits are taken it does not."""
    assert manner(IOC, 0, "sell", D("0.01"), seen(), rules(state="post_only")) == Manner(0, "limit", D(98), rests=True)
    assert manner(IOC, 0, "sell", D("0.01"), seen(), rules(state="limit_only")) == Manner(0, "limit_ioc", D(98))
    assert manner(IOC, 0, "buy", None, seen(), rules(state="post_only")).price == D(99)


@pytest.mark.parametrize(("side", "price"), [("sell", "99.5"), ("buy", "100.5")])
def test_the_venues_own_band_holds_wider_prices_in_and_leaves_narrower_ones(side: OrderSide, price: str) -> None:
    """Half a percent is the venue's; five percent more is wider than ours."""
    assert manner(IOC, 0, side, D("0.01"), seen(), rules(price_band=D("0.005"))).price == D(price)
    wide = manner(IOC, 0, side, D("0.01"), seen(), rules(price_band=D("0.05"))).price
    assert wide == (D(98) if side == "sell" else D(102))
    unmarked = manner(IOC, 0, side, None, seen(mark=None), rules(price_band=D("0.005"))).price
    assert unmarked == (D(99) if side == "sell" else D(101))


@pytest.mark.parametrize(("tick", "sell", "buy"), [("0.9", "98.1", "101.7"), ("7", "98", "98"), ("0", "98", "102")])
def test_prices_lie_on_the_tick_and_never_beyond_the_bound(tick: str, sell: str, buy: str) -> None:
    """A sale at 98 rounds up and a purchase at 102 down; a tick of nothing is none."""
    how = rules(price_step=D(tick))
    assert manner(IOC, 0, "sell", D("0.01"), seen(), how).price == D(sell)
    assert manner(IOC, 0, "buy", D("0.01"), seen(), how).price == D(buy)


def test_a_price_of_nothing_is_none() -> None:
    """A purchase that rounds down to 0, and a bound of half and more: at market instead."""
    assert manner(IOC, 0, "buy", D("0.01"), seen(), rules(price_step=D(500))) == Manner(0, "market", None)
    assert manner(IOC, 0, "sell", D("0.5"), seen(), None) == Manner(0, "market", None)
    assert manner(IOC, 0, "sell", D("0.6"), seen(), None) == Manner(0, "market", None)
    small = seen(mark="0.5", bid="0.4", ask="0.6")
    assert manner(IOC, 0, "sell", D("0.01"), small, None).price == D("0.49")
