"""A cash account that sells for another asset than its money: X/BTC, and BTC/USDT beside it (C19)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.model.venue import OrderRejectedError
from tests.markets import FREE, Desk, bar, instrument

D = Decimal
X, BTC = (
    instrument("X/BTC", price_step="0.00000001"),
    instrument("BTC/USDT", amount_step="0.00001", min_amount="0.00001"),
)


def _desk(rules: MarketRules = FREE, *more: str, wallet: str = "20000") -> Desk:
    """X at 0.01 BTC and BTC at 50,000 USDT, so X at 500 USDT; 10 X held, 15,000 USDT left."""
    symbols = [X, BTC, *(instrument(name) for name in more)]
    desk = Desk(*symbols, wallet=wallet, market="spot", rules=rules)
    desk.pass_bar(**{"X/BTC": bar("0.01"), "BTC/USDT": bar("50000")}, **{name: bar("500") for name in more})
    return desk


def _holding(desk: Desk, symbol: str = "X/BTC", notional: str = "5000") -> None:
    desk.market.open_position("main", symbol, "long", D(notional))


def _held(seen: AccountSnapshot) -> dict[str, Position]:
    return {position.symbol: position for position in seen.positions or ()}


def test_a_holding_quoted_in_another_asset_is_valued_by_both_prices() -> None:
    """10 X at 0.01 BTC at 50,000 USDT are 5,000 USDT; when BTC rises to 60,000 they are 6,000."""
    desk = _desk()
    _holding(desk)
    desk.pass_bar(**{"BTC/USDT": bar("60000")})
    held = _held(desk.seen)["X/BTC"]
    assert (held.contracts, held.mark_price, held.notional, held.unrealized_pnl) == (10, D("0.01"), 6000, 1000)
    assert held.entry_price is None
    assert desk.seen.equity == 21000
    balances = {balance.asset: (balance.amount, balance.price) for balance in desk.seen.balances or ()}
    assert balances == {"USDT": (15000, 1), "X": (10, 600)}


def test_a_sale_credits_the_other_asset_less_the_fee() -> None:
    """4 X at 0.01 with a fee of 0.05%: 0.04 − 0.00002 = 0.03998 BTC, held at its price; the money is unchanged.

    The order's report has the fee in the account's currency: 1 USDT."""
    rules = MarketRules(half_spread=D(0), impact=D(0), participation=D(1))
    desk = _desk(rules)
    _holding(desk)
    report = desk.send("sell", "4", symbol="X/BTC")
    assert (report.average_price, report.fee) == (D("0.01"), D("0.00002") * 50000)
    (fill,) = desk.market.fills("main", "X/BTC", report.client_order_id or "")
    assert (fill.fee, fill.fee_currency, fill.realized_pnl) == (D("0.00002"), "BTC", 0)
    held = _held(desk.seen)
    assert (held["X/BTC"].contracts, held["BTC/USDT"].contracts) == (6, D("0.03998"))
    assert (held["BTC/USDT"].entry_price, held["BTC/USDT"].notional) == (50000, 1999)
    assert desk.seen.balances is not None
    assert desk.seen.balances[0].amount == 15000
    assert desk.seen.equity == 20000 - D("0.00002") * 50000


def test_c19_the_second_hop_sells_only_the_proceeds_of_the_first() -> None:
    """Of 0.1 BTC from before and 0.04 from the sale, 0.04 are sold: 0.1 are left, and 2,000 USDT came in."""
    desk = _desk()
    _holding(desk)
    desk.market.open_position("main", "BTC/USDT", "long", D(5000))
    desk.send("sell", "4", symbol="X/BTC")
    assert _held(desk.seen)["BTC/USDT"].contracts == D("0.14")
    desk.send("sell", "0.04", symbol="BTC/USDT")
    assert _held(desk.seen)["BTC/USDT"].contracts == D("0.1")
    assert desk.seen.balances is not None
    assert desk.seen.balances[0].amount == 10000 + 2000
    assert desk.seen.equity == 20000


def test_profit_is_realised_in_the_accounts_currency_at_the_current_price() -> None:
    """10 X that cost 5,000 USDT sold at 0.012 BTC at 60,000: 7,200, so the profit is 2,200."""
    desk = _desk()
    _holding(desk)
    desk.pass_bar(**{"X/BTC": bar("0.012"), "BTC/USDT": bar("60000")})
    report = desk.send("sell", "10", symbol="X/BTC")
    (fill,) = desk.market.fills("main", "X/BTC", report.client_order_id or "")
    assert fill.realized_pnl == 2200
    assert list(_held(desk.seen)) == ["BTC/USDT"]
    assert desk.seen.equity == 22200


def test_c12_a_holding_of_a_halted_market_can_be_sold_in_another() -> None:
    """X is held as X/USDT, which is halted; X/BTC accepts it, up to the amount held."""
    desk = _desk(FREE, "X/USDT")
    _holding(desk, "X/USDT")
    desk.market.set_state("X/USDT", "halted")
    with pytest.raises(OrderRejectedError, match="halted"):
        desk.send("sell", "10", symbol="X/USDT")
    with pytest.raises(OrderRejectedError, match="only 10"):
        desk.send("sell", "10.001", symbol="X/BTC")
    assert desk.send("sell", "10", symbol="X/BTC", reduce_only=True).state == "filled"
    assert {symbol: held.contracts for symbol, held in _held(desk.seen).items()} == {"BTC/USDT": D("0.1")}
    assert desk.seen.equity == 20000


def test_an_amount_reserved_in_one_market_cannot_be_sold_in_another() -> None:
    """8 of 10 X rest in X/USDT: X/BTC accepts 2 and not 3, and the exits of both expire with the holding."""
    desk = _desk(FREE, "X/USDT")
    _holding(desk, "X/USDT")
    desk.send("sell", "8", symbol="X/USDT", price="600", reduce_only=True)
    with pytest.raises(OrderRejectedError, match="only 2"):
        desk.send("sell", "3", symbol="X/BTC")
    assert desk.send("sell", "2", symbol="X/BTC").state == "filled"


def test_buying_for_another_asset_is_refused() -> None:
    """The paper venue has routes out, not in."""
    with pytest.raises(OrderRejectedError, match="can only be sold"):
        _desk().send("buy", "1", symbol="X/BTC")


def test_without_a_connecting_market_the_quote_counts_as_the_currency() -> None:
    """A book in USD with symbols in USDT keeps its value."""
    market = PaperMarket([instrument("A_USDT")], seed=1, rules=FREE)
    market.add_account("main", market="spot", currency="USD", wallet=D(1000))
    desk = Desk()
    desk.market = market
    desk.pass_bar(A_USDT=bar("100"))
    desk.send("buy", "2", symbol="A_USDT")
    assert (desk.seen.equity, desk.position("A_USDT").entry_price) == (1000, 100)
