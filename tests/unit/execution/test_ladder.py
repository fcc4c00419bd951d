"""The execution ladder: steps, price bounds, ticks, the venue's band, and the fallbacks where no price is known."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.execution.decide.ladder import MARKET, ExecutionStyle, execution_style, next_step
from killswitch.model.decision import Rung
from killswitch.model.snapshot import Instrument, OrderSide, Position

D = Decimal
LADDER = (Rung("limit_ioc", D(1), 2), Rung("limit_ioc", D(2), 1), Rung("market", D(1), 2), Rung("limit", D(3)))
HELD = Position("BTC", "long", D(1), mark_price=D("100.05"), bid=D("100"), ask=D("100.1"))
RULES = Instrument("BTC", price_step=D("0.5"))


@pytest.mark.parametrize(
    ("side", "step", "price"),
    [("sell", 0, "99.5"), ("buy", 0, "101.0"), ("sell", 1, "98.5"), ("buy", 1, "102.0"), ("sell", 3, "97.5")],
)
def test_a_step_is_priced_at_its_multiple_of_the_band_and_never_beyond_it(
    side: OrderSide, step: int, price: str
) -> None:
    """1% of 100.05, 2% and 3%; on the tick of 0.5 a sale rounds up and a purchase down."""
    assert execution_style(LADDER, step, side, D("0.01"), HELD, RULES).price == D(price)


def test_the_price_stays_within_the_venues_own_band() -> None:
    """Three percent are declared and the venue accepts two: the order stays within two, instead of being refused."""
    rules = replace(RULES, price_band=D("0.02"), price_step=D("0.01"))
    assert execution_style(LADDER, 3, "sell", D("0.01"), HELD, rules).price == D("98.05")


def test_a_target_without_a_fresh_mark_begins_with_the_first_market_order() -> None:
    """Two bounded steps are skipped; from then on the ladder goes on as for any other target."""
    begins = [next_step(LADDER, 0, attempts, at_market=True) for attempts in (0, 1, 2)]
    assert begins == [2, 2, 2]
    assert [next_step(LADDER, 2, attempts, at_market=True) for attempts in (0, 1, 2)] == [2, 2, 3]
    assert next_step(LADDER, 3, 1, at_market=True) == 2  # after the last step, the market again
    resting = (Rung("limit_ioc"), Rung("limit", D(2)))
    assert [next_step(resting, 0, 0, at_market=True), next_step(resting, 0, 1, at_market=True)] == [0, 1]
    assert next_step(LADDER, 0, 0) == 0


def test_where_market_orders_are_not_accepted_the_book_prices_the_order() -> None:
    """Limit-only: a sale goes to the bid, a purchase to the ask; post-only: to the own side, where it rests."""
    only = replace(RULES, state="limit_only", price_step=D("0.1"))
    posting = replace(only, state="post_only")
    assert [execution_style(MARKET, 0, side, None, HELD, only).price for side in ("sell", "buy")] == [
        D("100"),
        D("100.1"),
    ]
    assert [execution_style(MARKET, 0, side, None, HELD, posting).price for side in ("sell", "buy")] == [
        D("100.1"),
        D("100"),
    ]
    assert execution_style(MARKET, 0, "sell", None, HELD, posting).rests


def test_a_bound_that_cannot_be_priced_is_left_out_and_not_guessed() -> None:
    """Neither mark nor book is known: the order goes at market, and its style has no price."""
    blind = Position("BTC", "long", D(1))
    assert execution_style(LADDER, 0, "sell", D("0.01"), blind, None) == execution_style(
        LADDER, 0, "sell", D("0.01"), None, None
    )
    assert execution_style(LADDER, 0, "sell", D("0.01"), blind, None).price is None
    assert execution_style(LADDER, 0, "sell", D("0.01"), blind, None).order == "market"


@given(tries=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_step_gets_its_tries_and_the_last_one_is_repeated(tries: list[int]) -> None:
    """Repeated failures walk down the ladder in the declared numbers of tries, and stay on the last step."""
    ladder = [Rung("limit_ioc", tries=count) for count in tries]
    seen, index, tried = [], 0, 0
    for _ in range(sum(tries) + 5):
        wanted = next_step(ladder, index, tried)
        index, tried = wanted, (tried if wanted == index else 0) + 1
        seen.append(index)
    assert [seen.count(number) for number in range(len(tries) - 1)] == tries[:-1]
    assert seen[-1] == len(tries) - 1
    assert seen == sorted(seen)


def test_after_a_resting_last_step_the_market_is_tried_again() -> None:
    """Two bounded, one at market, one resting, and then the market again: an earlier refusal may no longer apply."""
    ladder = [Rung("limit_ioc", tries=2), Rung("market"), Rung("limit")]
    seen, index, tried = [], 0, 0
    for _ in range(7):
        wanted = next_step(ladder, index, tried)
        index, tried = wanted, (tried if wanted == index else 0) + 1
        seen.append(ladder[index].order)
    assert seen == ["limit_ioc", "limit_ioc", "market", "limit", "market", "limit", "market"]


IOC = (Rung("limit_ioc", D(2), 2), Rung("limit", D(3)))


def seen(mark: str | None = "100", bid: str | None = "99", ask: str | None = "101") -> Position:
    known = {"mark_price": mark, "bid": bid, "ask": ask}
    return Position("BTC", "long", D(1), **{name: D(text) for name, text in known.items() if text is not None})


def rules(**words: Any) -> Instrument:
    return Instrument("BTC", **words)


def test_without_a_ladder_two_tries_at_market_come_before_a_limit_and_then_the_market_again() -> None:
    """The second order is still at market, the third a limit, the fourth at market."""
    assert [next_step(MARKET, 0, tried) for tried in (0, 1, 2, 9)] == [0, 0, 1, 1]
    assert [next_step(MARKET, 1, tried) for tried in (0, 1, 9)] == [1, 0, 0]
    assert execution_style(MARKET, 0, "sell", None, seen(), None) == ExecutionStyle(0, "market", None)
    assert execution_style(MARKET, 1, "sell", None, seen(), None) == ExecutionStyle(1, "limit", D(99), rests=True)


def test_a_step_beyond_a_shorter_ladder_is_its_last() -> None:
    """A journal of a longer ladder."""
    assert next_step(IOC, 7, 0) == 1


@pytest.mark.parametrize(("side", "price"), [("sell", "98"), ("buy", "102")])
def test_a_bound_is_measured_from_the_mark_and_expires_at_once(side: OrderSide, price: str) -> None:
    """Twice one percent of 100; the next step rests at three times."""
    assert execution_style(IOC, 0, side, D("0.01"), seen(), None) == ExecutionStyle(0, "limit_ioc", D(price))
    resting = execution_style(IOC, 1, side, D("0.01"), seen(), None)
    assert (resting.order, resting.rests, resting.step) == ("limit", True, 1)


@pytest.mark.parametrize(("side", "price"), [("sell", "99"), ("buy", "101")])
def test_without_a_mark_or_a_bound_the_book_prices_the_order(side: OrderSide, price: str) -> None:
    """The best price of the other side."""
    assert execution_style(IOC, 0, side, D("0.01"), seen(mark=None), None).price == D(price)
    assert execution_style(IOC, 0, side, None, seen(), None).price == D(price)
    assert execution_style(IOC, 0, side, D("0.01"), seen(mark="NaN"), None).price == D(price)


def test_without_a_mark_and_a_book_the_order_goes_at_market() -> None:
    """Its style has no price; the side of the book that is not needed does not help."""
    market = ExecutionStyle(0, "market", None)
    assert execution_style(IOC, 0, "sell", None, seen(bid=None), None) == market
    assert execution_style(IOC, 0, "buy", None, seen(ask=None), None) == market
    assert execution_style(IOC, 0, "sell", None, None, None) == market
    assert execution_style(IOC, 1, "sell", None, None, None) == ExecutionStyle(1, "market", None)
    assert execution_style(IOC, 0, "sell", None, seen(bid="NaN"), None) == market


@pytest.mark.parametrize("state", ["limit_only", "post_only"])
def test_a_market_step_is_a_limit_where_market_orders_are_not_accepted(state: str) -> None:
    """Without the bound, since the step exists to get out; it rests."""
    ladder = (Rung("market", D(1), 2),)
    how = execution_style(ladder, 0, "sell", D("0.01"), seen(), rules(state=state))
    assert (how.order, how.rests) == ("limit", True)
    assert how.price == (D(99) if state == "limit_only" else D(101))


def test_in_a_post_only_market_no_order_expires_at_once() -> None:
    """A bounded step rests there; where limits are accepted it does not."""
    assert execution_style(IOC, 0, "sell", D("0.01"), seen(), rules(state="post_only")) == ExecutionStyle(
        0, "limit", D(98), rests=True
    )
    assert execution_style(IOC, 0, "sell", D("0.01"), seen(), rules(state="limit_only")) == ExecutionStyle(
        0, "limit_ioc", D(98)
    )
    assert execution_style(IOC, 0, "buy", None, seen(), rules(state="post_only")).price == D(99)


@pytest.mark.parametrize(("side", "price"), [("sell", "99.5"), ("buy", "100.5")])
def test_the_venues_own_band_limits_wider_prices_and_leaves_narrower_ones(side: OrderSide, price: str) -> None:
    """Half a percent is the venue's; five percent more is wider than ours."""
    assert execution_style(IOC, 0, side, D("0.01"), seen(), rules(price_band=D("0.005"))).price == D(price)
    wide = execution_style(IOC, 0, side, D("0.01"), seen(), rules(price_band=D("0.05"))).price
    assert wide == (D(98) if side == "sell" else D(102))
    unmarked = execution_style(IOC, 0, side, None, seen(mark=None), rules(price_band=D("0.005"))).price
    assert unmarked == (D(99) if side == "sell" else D(101))


@pytest.mark.parametrize(("tick", "sell", "buy"), [("0.9", "98.1", "101.7"), ("7", "98", "98"), ("0", "98", "102")])
def test_prices_lie_on_the_tick_and_never_beyond_the_bound(tick: str, sell: str, buy: str) -> None:
    """A sale at 98 rounds up and a purchase at 102 down; a tick of 0 is ignored."""
    how = rules(price_step=D(tick))
    assert execution_style(IOC, 0, "sell", D("0.01"), seen(), how).price == D(sell)
    assert execution_style(IOC, 0, "buy", D("0.01"), seen(), how).price == D(buy)


def test_a_price_of_zero_is_no_price() -> None:
    """A purchase that rounds down to 0, and a bound of half and more: at market instead."""
    assert execution_style(IOC, 0, "buy", D("0.01"), seen(), rules(price_step=D(500))) == ExecutionStyle(
        0, "market", None
    )
    assert execution_style(IOC, 0, "sell", D("0.5"), seen(), None) == ExecutionStyle(0, "market", None)
    assert execution_style(IOC, 0, "sell", D("0.6"), seen(), None) == ExecutionStyle(0, "market", None)
    small = seen(mark="0.5", bid="0.4", ask="0.6")
    assert execution_style(IOC, 0, "sell", D("0.01"), small, None).price == D("0.49")
