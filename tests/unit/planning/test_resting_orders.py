"""Which resting orders are entries, judged together: modes, bounds of venues, partial fills, unknown parts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.planning.resting_orders import entry_indexes, exits_of
from tests.worlds import account, position

BTC = "BTC/USDT:USDT"


def order(side: str, amount: str, name: str = "o1", **more: Any) -> Order:
    return Order(id=name, symbol=more.pop("symbol", BTC), side=side, amount=Decimal(amount), **more)  # type: ignore[arg-type]  # literal


def sale(name: str, amount: str, **more: Any) -> Order:
    return order("sell", amount, name, **more)


def stop(name: str, amount: str, **more: Any) -> Order:
    """A plain sale that is triggered when the mark falls to 90."""
    return sale(name, amount, type="stop_market", trigger_price=Decimal(90), **more)


def holding(
    *held: tuple[str, str], mode: str | None = "one_way", mark: str = "100", symbol: str = BTC, **more: Any
) -> AccountSnapshot:
    """An account with these positions (side, contracts), a row for each."""
    rows = [position(symbol, side, contracts=contracts, mark_price=mark) for side, contracts in held]
    return account("1000", rows, position_mode=mode, **more)


LONG_10 = holding(("long", "10"))


def entries(seen: AccountSnapshot, *orders: Order) -> set[str]:
    """The ids of the entries; the same however the venue lists the orders."""
    listings = [orders, tuple(reversed(orders))]
    found = [{each[i].id for i in entry_indexes(replace(seen, orders=each))} for each in listings]
    assert found[0] == found[1]
    return found[0]


def is_entry(one: Order, seen: AccountSnapshot) -> bool:
    return bool(entries(seen, one))


# One order alone


@pytest.mark.parametrize(
    ("side", "position_side", "entry"),
    [("buy", "long", True), ("sell", "long", False), ("buy", "short", False), ("sell", "short", True)],
)
def test_in_hedge_mode_side_and_position_side_determine_whether_an_order_opens(
    side: str, position_side: str, entry: bool
) -> None:
    """Whatever the size of the position, and where positions are unknown: buying opens a long and closes a short."""
    one = order(side, "9", position_side=position_side)
    assert is_entry(one, holding(("long", "3"), mode="hedge")) is entry
    assert is_entry(one, account("1000", None, position_mode="hedge")) is entry


def test_outside_hedge_mode_the_position_side_is_ignored() -> None:
    """Selling 3 against a long of 3 reduces, whatever its position side; in hedge mode without one too."""
    one_way, hedge = holding(("long", "3")), holding(("long", "3"), mode="hedge")
    assert not is_entry(order("sell", "3", position_side="short"), one_way)
    assert not is_entry(order("sell", "3"), hedge)
    assert is_entry(order("sell", "3.1"), hedge)


@pytest.mark.parametrize(("held", "side", "opposite"), [("long", "sell", "buy"), ("short", "buy", "sell")])
def test_an_order_reduces_as_far_as_the_position_covers_it(held: str, side: str, opposite: str) -> None:
    """3 held: 3 against it reduce, more opens, and so does anything on the same side."""
    seen = holding((held, "3"))
    assert not is_entry(order(side, "3"), seen)
    assert is_entry(order(side, "3.001"), seen)
    assert is_entry(order(opposite, "0.001"), seen)


def test_only_the_unfilled_part_of_an_order_counts() -> None:
    """5, of which 2 are filled, against 3 held: the part that may still fill only reduces."""
    seen = holding(("long", "3"))
    assert not is_entry(order("sell", "5", filled=Decimal(2)), seen)
    assert is_entry(order("sell", "5", filled=Decimal("1.9")), seen)


def test_an_order_that_the_venue_bounds_is_an_exit_of_any_size() -> None:
    """Reduce-only, or of the whole position, which has the amount 0; also where nothing is held."""
    for seen in (LONG_10, holding()):
        for reduce_only in (True, None, False):
            assert not is_entry(sale("whole", "0", reduce_only=reduce_only), seen)
        assert not is_entry(sale("bounded", "99", reduce_only=True), seen)
        assert is_entry(sale("plain", "99"), seen)


@pytest.mark.parametrize("reduce_only", [None, False])
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_with_unknown_positions_no_plain_order_is_an_entry(reduce_only: bool | None, side: str) -> None:
    """Each could reduce an unknown position, with a trigger or without; of no position each is an entry."""
    unseen = account("1000", None, position_mode="one_way")
    plain = order(side, "1", "plain", reduce_only=reduce_only)
    triggered = order(side, "1", "triggered", reduce_only=reduce_only, trigger_price=Decimal(90))
    assert entries(unseen, plain, triggered) == set()
    assert entries(holding(), plain, triggered) == {"plain", "triggered"}


# Several orders of one position


def test_of_two_plain_sales_of_the_whole_position_one_is_an_entry() -> None:
    """Long 10 with two sales of 10: filled both, they leave a short of 10."""
    assert entries(LONG_10, sale("a", "10"), sale("b", "10")) == {"b"}
    assert entries(LONG_10, sale("a", "4"), sale("b", "6")) == set()


def test_a_short_is_judged_like_a_long() -> None:
    """Short 10 with two purchases of 10, and a sale."""
    bought = [order("buy", "10", name) for name in "ab"]
    assert entries(holding(("short", "10")), *bought, sale("c", "1")) == {"b", "c"}


def test_a_plain_sale_next_to_a_reduce_only_one_is_an_entry() -> None:
    """Long 10: the reduce-only order closes it, and then the plain one opens a short."""
    bounded = sale("bounded", "10", reduce_only=True)
    assert entries(LONG_10, bounded, sale("plain", "10")) == {"plain"}
    assert entries(LONG_10, replace(bounded, amount=Decimal(7)), sale("plain", "3")) == set()
    assert entries(LONG_10, replace(bounded, amount=Decimal(7)), sale("plain", "4")) == {"plain"}
    assert entries(LONG_10, replace(bounded, amount=Decimal(0)), sale("plain", "1")) == {"plain"}


def test_everything_that_the_venue_bounds_stays() -> None:
    """A reduce-only stop and a reduce-only target of the whole position each, and a third."""
    bounded = [sale(name, "10", reduce_only=True) for name in "abc"]
    assert entries(LONG_10, *bounded) == set()


def test_a_plain_order_fits_what_earlier_fills_left_of_the_others() -> None:
    """Long 10, and 12 of which 7 are filled: 5 are left for others, and 6 are not."""
    partly = stop("stop", "12", filled=Decimal(7))
    assert entries(LONG_10, partly, sale("five", "5")) == set()
    assert entries(LONG_10, partly, sale("six", "6")) == {"six"}
    assert entries(LONG_10, stop("done", "9", filled=Decimal(9)), sale("ten", "10")) == set()


@pytest.mark.parametrize(
    "target",
    [
        sale("a", "10", type="limit", price=Decimal(120)),
        sale("a", "10", type="take_profit_market", trigger_price=Decimal(120)),
        sale("a", "10", type="trigger_market", trigger_price=Decimal(120)),
        sale("a", "10", trigger_price=Decimal(120)),
    ],
    ids=["limit", "take-profit", "trigger above the mark", "unnamed trigger above the mark"],
)
@pytest.mark.parametrize(
    "protection",
    [
        stop("b", "10"),
        sale("b", "10", type="trailing_stop"),
        sale("b", "10", type="trigger_limit", trigger_price=Decimal(90)),
        sale("b", "10", trigger_price=Decimal(90)),
    ],
    ids=["stop", "trailing stop", "trigger below the mark", "unnamed trigger below the mark"],
)
def test_a_stop_stays_before_a_target(protection: Order, target: Order) -> None:
    """Long 10 at a mark of 100, with both of 10: the target is left over."""
    assert entries(LONG_10, target, protection) == {"a"}


def test_a_trigger_of_unknown_direction_counts_as_a_stop() -> None:
    """Without a mark neither a rise nor a fall is known to trigger it."""
    blind = account("1000", [position(BTC, "long", contracts="10")], position_mode="one_way")
    assert entries(blind, sale("a", "10"), sale("b", "10", trigger_price=Decimal(120))) == {"a"}


def test_the_larger_stop_stays_and_what_still_fits() -> None:
    """Long 10 with stops of 4, 7 and 3: 7 and 3 stay. Targets of 6, 6 and 4: one of 6, and 4."""
    assert entries(LONG_10, stop("four", "4"), stop("seven", "7"), stop("three", "3")) == {"four"}
    assert entries(LONG_10, sale("a", "6"), sale("b", "6"), sale("c", "4")) == {"b"}
    assert entries(LONG_10, stop("small", "2"), sale("a", "8"), sale("b", "1")) == {"b"}


def test_orders_of_another_symbol_or_side_take_no_room() -> None:
    """Long 10 with a sale of 10: a sale of another symbol and a purchase are entries, and change nothing."""
    elsewhere = sale("elsewhere", "10", symbol="ETH/USDT:USDT")
    assert entries(LONG_10, sale("a", "10"), elsewhere, order("buy", "10", "more")) == {"elsewhere", "more"}


def test_in_hedge_mode_each_side_has_its_own_room() -> None:
    """Long 10 and short 4: sales are judged against the long, purchases against the short."""
    both = holding(("long", "10"), ("short", "4"), mode="hedge")
    closing = sale("closing", "10", position_side="long")
    assert entries(both, closing, sale("plain", "1"), order("buy", "4", "cover")) == {"plain"}
    assert entries(both, closing, replace(closing, id="second"), order("buy", "5", "cover")) == {"cover"}


def test_rows_of_several_strategies_are_one_position() -> None:
    """6 and 4 long are 10. In one-way mode a short row of 4 leaves 6, as the venue has it; elsewhere it is apart."""
    assert entries(holding(("long", "6"), ("long", "4")), sale("a", "10"), sale("b", "1")) == {"b"}
    rows = (("long", "10"), ("short", "4"))
    assert entries(holding(*rows), sale("a", "7"), order("buy", "4", "b")) == {"a", "b"}
    assert entries(holding(*rows), sale("a", "6")) == set()
    assert entries(holding(*rows, mode=None), sale("a", "10"), order("buy", "4", "b")) == set()


# Spot, margin and shares


def spot(*held: tuple[str, str], market: str = "spot") -> AccountSnapshot:
    """Coins of an account in USDT: (symbol, contracts), negative where borrowed."""
    rows = [
        position(symbol, "short" if amount.startswith("-") else "long", contracts=amount.lstrip("-"))
        for symbol, amount in held
    ]
    return account("1000", rows, market=market)


def test_sales_of_a_spot_account_are_bounded_by_its_balance() -> None:
    """A stop and a target of the same 10 coins, linked at the venue, both stay; a purchase does not."""
    both = stop("stop", "10", symbol="BTC/USDT"), sale("target", "10", symbol="BTC/USDT")
    bought = order("buy", "1", "bought", symbol="BTC/USDT")
    assert entries(spot(("BTC/USDT", "10")), *both, bought) == {"bought"}
    unseen = account("1000", None, market="spot")
    assert entries(unseen, *both, sale("cross", "1", symbol="ETH/BTC"), bought) == {"bought"}


def test_a_sale_for_another_coin_buys_that_coin() -> None:
    """ETH/BTC, also where the venue lists the holding itself so; a sale for a declared stable coin is an exit."""
    cross = sale("cross", "5", symbol="ETH/BTC")
    assert entries(spot(("ETH/USDT", "5")), cross) == {"cross"}
    assert entries(spot(("ETH/BTC", "5")), cross) == {"cross"}
    assert entries(spot(("ETH/USDC", "5")), replace(cross, symbol="ETH/USDC")) == set()
    assert entries(spot(("ETH/BTC", "5")), replace(cross, symbol="ETH/USDT")) == set()


@pytest.mark.parametrize("market", ["margin", "equity"])
def test_where_coins_and_shares_can_be_borrowed_sales_are_judged_by_size(market: str) -> None:
    """Two sales of 10 of the 10 held: the second one borrows."""
    seen = spot(("BTC/USDT", "10"), market=market)
    assert entries(seen, *(sale(name, "10", symbol="BTC/USDT") for name in "ab")) == {"b"}


def test_a_spot_account_with_a_borrowed_coin_is_judged_by_size() -> None:
    """It borrows, so that sales are not bounded; 5 coins bought repay what is borrowed, and 6 do not only."""
    seen = spot(("BTC/USDT", "10"), ("ETH/USDT", "-5"))
    sales = [sale(name, "10", symbol="BTC/USDT") for name in "ab"]
    assert entries(seen, *sales, order("buy", "5", "repay", symbol="ETH/USDT")) == {"b"}
    assert entries(seen, order("buy", "6", "more", symbol="ETH/USDT")) == {"more"}


def test_an_absurd_size_takes_all_the_room() -> None:
    """A bounded order of 1e40 leaves nothing for a plain one, and a plain one is an entry."""
    assert entries(LONG_10, sale("a", "1e40", reduce_only=True), sale("b", "1")) == {"b"}
    assert entries(LONG_10, sale("a", "1e40"), sale("b", "1", filled=Decimal("NaN"))) == {"a"}


def test_exits_are_listed_by_the_position_that_they_reduce() -> None:
    """Without the entries, in the order of the snapshot."""
    bounded, plain, cover = sale("a", "4", reduce_only=True), sale("b", "6"), order("buy", "1", "c", reduce_only=True)
    seen = replace(LONG_10, orders=(plain, sale("d", "3"), bounded, cover))
    assert exits_of(seen) == {(BTC, "long"): [plain, bounded], (BTC, "short"): [cover]}
