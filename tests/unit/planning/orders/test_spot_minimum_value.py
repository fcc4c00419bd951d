"""Spot sales at the venue's minimum order value: computed on the market of the sale, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from killswitch.graph.unwinding import SpotRule, UnwindingRule
from killswitch.model.snapshot import Balance, Instrument, Position
from killswitch.planning.orders.unwind import Unwound, unwind
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.planning.targets.selection import SelectedTarget
from tests.unit.planning.orders.test_unwind import close_all, scope_of
from tests.worlds import account, position, rules

D = Decimal
SPOT = UnwindingRule("u", spot=SpotRule(("BTC", "ETH"), ("USDT",), ()))


def orders_of(held: Sequence[Position], *instruments: Instrument, market: str = "spot", **words: Any) -> Unwound:
    return close_all(scope_of(account("100000", held, market=market, **words), instruments=instruments), SPOT)


def shape(found: Unwound) -> list[tuple[str, Decimal, str]]:
    return [(each.symbol, each.contracts, each.purpose) for each in found.intents]


@pytest.mark.parametrize(("market", "reduce_only", "orders"), [("swap", True, 1), ("spot", False, 0)])
def test_the_minimum_order_value_binds_sales_and_not_reduce_only_orders(
    market: str, reduce_only: bool, orders: int
) -> None:
    """5 of X at 10 are worth 50 at a minimum of 100: a holding is dust, a position is not."""
    held = position("X/USDT", "long", contracts="5", mark_price="10", notional="50")
    found = orders_of([held], rules("X/USDT", amount_step="1", min_notional="100"), market=market)
    assert len(found.intents) == orders
    assert [each.dust for each in found.blocked] == [True] * (1 - orders)
    assert all(each.reduce_only is reduce_only for each in found.intents)


@pytest.mark.parametrize(("contracts", "orders"), [("4", 0), ("6", 1)])
def test_a_holding_sold_on_another_market_is_valued_at_that_markets_price(contracts: str, orders: int) -> None:
    """X at 10 USDT, bitcoin at 50,000: X/BTC pays 0.0002, the minimum is 0.001 BTC; four are dust, six are not."""
    held = position("X/USDT", "long", contracts=contracts, mark_price="10", notional=str(10 * int(contracts)))
    other_markets = (
        rules("X/USDT", state="halted"), rules("X/BTC", amount_step="1", min_notional="0.001"), rules("BTC/USDT")
    )  # fmt: skip
    found = orders_of([held], *other_markets, balances=(Balance("BTC", D(1), D(50000)),))
    assert [each.symbol for each in found.intents if each.symbol == "X/BTC"] == ["X/BTC"] * orders


@pytest.mark.parametrize(("contracts", "hops"), [("400", 0), ("600", 1)])
def test_the_second_hop_is_valued_at_its_own_markets_price(contracts: str, hops: int) -> None:
    """400 X at 0.0000002 BTC are 4 USDT at 50,000, below the minimum of 5; 600 are 6."""
    x = position("X/BTC", "long", contracts=contracts, mark_price="0.0000002", notional="4")
    btc = position("BTC/USDT", "long", contracts="3", mark_price="50000", notional="150000")
    other = position("ETH/USDT", "long", contracts="3", mark_price="1", notional="3")
    listed = (
        rules("X/BTC", amount_step="1"), rules("ETH/USDT"),
        rules("BTC/USDT", amount_step="0.000001", min_amount="0.000001", min_notional="5"),
    )  # fmt: skip
    view = scope_of(account("100000", [other, x, btc], market="spot"), instruments=listed)
    ranked = next(each for each in candidates(view, None) if each.position.symbol == "X/BTC")
    found = unwind(view, [SelectedTarget(Ranked(ranked, 1, 0.5), D(0))], SPOT)
    assert [each.purpose for each in found.intents] == ["reduce"] + ["hop"] * hops
    assert [each.dust for each in found.blocked] == [True] * (1 - hops)


def test_a_second_hop_is_an_order_of_the_same_account_and_rank() -> None:
    """Account, rank and score are those of the sale before it; it sells a holding, and is rounded down to steps."""
    x = position("X/BTC", "long", contracts="1001", mark_price="0.0002", notional="10000")
    view = scope_of(
        account("100000", [x], name="cash", market="spot"),
        instruments=(rules("X/BTC", amount_step="1"), rules("BTC/USDT", amount_step="0.01")),
    )
    found = unwind(view, [SelectedTarget(Ranked(candidates(view, None)[0], 4, 0.75), D(0))], SPOT)
    first, hop = found.intents
    assert (hop.account, hop.rank, hop.score, hop.position_side, hop.side) == (
        "cash", first.rank, first.score, "long", "sell"
    )  # fmt: skip
    assert (hop.contracts, hop.exact, hop.target) == (D("0.20"), True, D(0))


def test_proceeds_are_the_sum_of_the_parts_sold() -> None:
    """1,000 X in parts of 400, 400 and 200 bring 0.2 BTC together."""
    x = position("X/BTC", "long", contracts="1000", mark_price="0.0002", notional="10000")
    found = orders_of([x], rules("X/BTC", amount_step="1", max_amount="400"), rules("BTC/USDT"))
    assert shape(found)[-1] == ("BTC/USDT", D("0.2"), "hop")


def test_without_rules_of_the_hops_market_its_size_is_the_proceeds() -> None:
    """Without a step nothing is rounded, and the intent says that it is not exact."""
    x = position("X/BTC", "long", contracts="1001", mark_price="0.0002", notional="10000")
    found = orders_of([x], rules("X/BTC", amount_step="1"), Instrument("BTC/USDT", contract_size=D(1)))
    hop = found.intents[-1]
    assert (hop.symbol, hop.contracts, hop.exact) == ("BTC/USDT", D("0.2002"), False)


def test_an_account_keeps_its_own_currency_and_sells_against_it() -> None:
    """In EUR, the market is X/EUR; in USDT the same holding is sold over bitcoin."""
    x = position("X/EUR", "long", contracts="10", mark_price="10", notional="100")
    listed = (rules("X/EUR", amount_step="1"), rules("X/BTC", amount_step="1"), rules("BTC/USDT"))
    assert [each.symbol for each in orders_of([x], *listed, currency="EUR").intents] == ["X/EUR"]
    assert orders_of([x], *listed).intents[0].symbol == "X/BTC"
