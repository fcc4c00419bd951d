"""Corroboration of the prices of collateral: coins and stable coins that are in the balances and no position."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.snapshot import AccountSnapshot, Balance
from killswitch.model.venue import Prices
from killswitch.planning.scopes.collateral import collateral_symbols
from killswitch.planning.scopes.corroboration import PricesOf, corroborate, repriced
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position

D = Decimal


def _balance(asset: str, amount: str, price: str | None = "1", wallet: str | None = None) -> Balance:
    return Balance(asset, D(amount), None if price is None else D(price), wallet=None if wallet is None else D(wallet))


def _view(found: AccountSnapshot) -> ScopeView:
    return ScopeView(7, True, (found,), {}, None)


def _prices(symbol: str, **more: str) -> PricesOf:
    return {"main": {symbol: Prices(**{name: D(value) for name, value in more.items()})}}


FUTURES = account("59000", [], balances=(_balance("USDT", "50000"), _balance("USDC", "10000", "0.9")))
"""A print of 0.9 for a stable coin that is 10,000 of 60,000."""


def test_prices_are_fetched_of_collateral_and_not_of_holdings_or_of_the_currency() -> None:
    """A holding of a spot account is a position; an asset without a price moves no equity."""
    assert collateral_symbols(FUTURES) == {"USDC/USDT"}
    held = position("BTC/USDT", "long", mark_price="50000")
    others = (_balance("BTC", "1", "50000"), _balance("PUMP", "9", None), _balance("XYZ", "1", "5"))
    assert collateral_symbols(account("50005", [held], market="spot", balances=others)) == {"XYZ/USDT"}
    # In a futures account a coin is collateral, whatever contracts of it are held.
    contract = position("BTC/USDT:USDT", "long", mark_price="50000")
    assert collateral_symbols(account("50000", [contract], balances=others[:1])) == {"BTC/USDT"}


def test_collateral_is_valued_at_the_price_that_is_fetched_again() -> None:
    """The venue's index is 1 again: 60,000, and the balance has that price."""
    again = repriced(_view(FUTURES), _prices("USDC/USDT", mark="1", index="1"))
    assert again is not None
    assert again.equity == 60_000
    assert [it.price for it in again.sound[0].balances or ()] == [1, 1]
    assert corroborate(again, _prices("USDC/USDT", mark="1", index="1")).failing == ()


@pytest.mark.parametrize(
    ("index", "last", "equity"),
    [("1", None, 60_000), (None, "1", 60_000), ("0.9", "1", None), (None, "0.92", None), (None, None, None)],
)
def test_a_price_of_collateral_is_held_against_its_index_or_last_trades(
    index: str | None, last: str | None, equity: int | None
) -> None:
    """More than 5% from the index, or from the last trade without one, is a print. A fall that both show is real."""
    prices = _prices("USDC/USDT", **{name: it for name, it in (("index", index), ("last", last)) if it is not None})
    found = corroborate(_view(FUTURES), prices)
    assert found.failing == (() if equity is None else ("USDC price 0.9 against 1 USDT",))
    assert found.view is not None
    assert found.view.equity == (59_000 if equity is None else equity)


def test_only_the_wallet_of_a_coin_moves_with_its_price() -> None:
    """Of 3 BTC one is unrealised profit, which the account states apart: two coins rise by 1,000."""
    short = position("ETH/USDT:USDT", "short", "50000", mark_price="2500", notional="250000")
    held = account("150000", [short], balances=(_balance("BTC", "3", "50000", "2"),), unrealized=D(50_000))
    again = repriced(_view(held), _prices("BTC/USDT", mark="51000"))
    assert again is not None
    assert (again.equity, again.sound[0].unrealized) == (152_000, 50_000)


def test_the_balance_of_a_holding_follows_its_position_and_counts_once() -> None:
    """0.1 BTC and 5,000 USDT: the last price was 40,000, and is 50,000 again. An option's price is of 100 shares."""
    held = position("BTC/USDT", "long", contracts="0.1", mark_price="40000", notional="4000")
    balances = (_balance("USDT", "5000"), _balance("BTC", "0.1", "40000", "0.1"))
    spot = account("9000", [held], market="spot", balances=balances)
    again = repriced(_view(spot), _prices("BTC/USDT", mark="50000", last="50000"))
    assert again is not None
    assert (again.equity, [it.price for it in again.sound[0].balances or ()]) == (10_000, [1, 50_000])
    option = position("AAPL270115C00100000", "long", contracts="1", mark_price="4", notional="400")
    shares = account("400", [option], market="equity", currency="USD",
                     balances=(_balance("AAPL270115C00100000", "1", "400", "1"),))  # fmt: skip
    again = repriced(_view(shares), _prices("AAPL270115C00100000", mark="5"))
    assert again is not None
    assert (again.equity, [it.price for it in again.sound[0].balances or ()]) == (500, [500])


def test_without_equity_collateral_cannot_be_valued() -> None:
    """An account whose equity is unknown is not revalued."""
    unknown = account(None, [], balances=FUTURES.balances)
    assert repriced(_view(unknown), _prices("USDC/USDT", mark="1")) is None
