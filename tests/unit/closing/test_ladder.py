"""By which order the next attempt is made: the bound that was declared, the tick, the venue's band, and a way out."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.closing.ladder import MARKET, manner, next_rung
from killswitch.model.decision import Rung
from killswitch.model.snapshot import Instrument, OrderSide, Position

D = Decimal
LADDER = (Rung("limit_ioc", D(1), 2), Rung("limit_ioc", D(2), 1), Rung("market", D(1), 2), Rung("limit", D(3)))
HELD = Position("BTC", "long", D(1), mark_price=D("100.05"), bid=D("100"), ask=D("100.1"))
RULES = Instrument("BTC", price_step=D("0.5"))


@pytest.mark.parametrize(
    ("side", "rung", "price"),
    [("sell", 0, "99.5"), ("buy", 0, "101.0"), ("sell", 1, "98.5"), ("buy", 1, "102.0"), ("sell", 3, "97.5")],
)
def test_a_rung_is_priced_at_its_multiple_of_the_band_and_never_beyond_it(
    side: OrderSide, rung: int, price: str
) -> None:
    """1% of 100.05, 2% and 3%; on the tick of 0.5 a sale rounds up and a purchase down."""
    assert manner(LADDER, rung, side, D("0.01"), HELD, RULES).price == D(price)


def test_the_venues_own_band_holds_the_price_in() -> None:
    """Three percent are declared and the venue takes two: the order stays within two, instead of being refused."""
    rules = msgspec.structs.replace(RULES, price_band=D("0.02"), price_step=D("0.01"))
    assert manner(LADDER, 3, "sell", D("0.01"), HELD, rules).price == D("98.05")


def test_a_market_that_takes_no_market_orders_is_left_by_the_other_side_of_its_book() -> None:
    """Limit-only: a sale goes to the bid, a purchase to the ask; post-only: to the own side, where it rests."""
    only = msgspec.structs.replace(RULES, state="limit_only", price_step=D("0.1"))
    posting = msgspec.structs.replace(only, state="post_only")
    assert [manner(MARKET, 0, side, None, HELD, only).price for side in ("sell", "buy")] == [D("100"), D("100.1")]
    assert [manner(MARKET, 0, side, None, HELD, posting).price for side in ("sell", "buy")] == [D("100.1"), D("100")]
    assert manner(MARKET, 0, "sell", None, HELD, posting).rests


def test_a_bound_that_cannot_be_priced_is_left_out_and_not_guessed() -> None:
    """Neither mark nor book is known: the order goes at market, and says that it has no price."""
    blind = Position("BTC", "long", D(1))
    assert manner(LADDER, 0, "sell", D("0.01"), blind, None) == manner(LADDER, 0, "sell", D("0.01"), None, None)
    assert manner(LADDER, 0, "sell", D("0.01"), blind, None).price is None
    assert manner(LADDER, 0, "sell", D("0.01"), blind, None).order == "market"


@given(tries=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_rung_gets_its_tries_and_the_last_one_has_no_end(tries: list[int]) -> None:
    """Failing again and again walks the ladder down in the declared numbers of tries, and stays on the last rung."""
    ladder = [Rung("limit_ioc", tries=count) for count in tries]
    seen, rung, tried = [], 0, 0
    for _ in range(sum(tries) + 5):
        wanted = next_rung(ladder, rung, tried)
        rung, tried = wanted, (tried if wanted == rung else 0) + 1
        seen.append(rung)
    assert [seen.count(number) for number in range(len(tries) - 1)] == tries[:-1]
    assert seen[-1] == len(tries) - 1
    assert seen == sorted(seen)


def test_after_the_last_rung_the_market_is_tried_anew() -> None:
    """Two bounded, one at market, one resting, and then the market again: a refusal of a moment ago binds nobody."""
    ladder = [Rung("limit_ioc", tries=2), Rung("market"), Rung("limit")]
    seen, rung, tried = [], 0, 0
    for _ in range(7):
        wanted = next_rung(ladder, rung, tried)
        rung, tried = wanted, (tried if wanted == rung else 0) + 1
        seen.append(ladder[rung].order)
    assert seen == ["limit_ioc", "limit_ioc", "market", "limit", "market", "limit", "market"]
