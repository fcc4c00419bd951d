"""Positions, P&L and fees, compared with sums worked out by hand."""

from decimal import Decimal

from killswitch.market.rules import MarketRules
from tests.markets import FREE, Desk, bar, instrument


def test_a_long_earns_quantity_times_the_move() -> None:
    """Long 3 at 100, price 110: +30, and equity is the wallet plus that."""
    desk = Desk()
    desk.send("buy", "3")
    desk.pass_bar(A=bar("110"))
    assert desk.position().unrealized_pnl == 30
    assert desk.seen.equity == 10030


def test_a_short_earns_when_the_price_falls() -> None:
    """Short 3 at 100, price 90: +30."""
    desk = Desk()
    desk.send("sell", "3")
    desk.pass_bar(A=bar("90"))
    assert (desk.position().side, desk.position().unrealized_pnl) == ("short", 30)


def test_adding_averages_the_entry() -> None:
    """1 at 100 and 2 at 130 make 3 at 120."""
    desk = Desk()
    desk.send("buy", "1")
    desk.pass_bar(A=bar("130"))
    desk.send("buy", "2")
    assert desk.position().entry_price == 120


def test_reducing_realises_its_part_and_keeps_the_entry() -> None:
    """3 at 100, one sold at 130: realised 30, the rest still entered at 100, equity unchanged by the sale."""
    desk = Desk()
    desk.send("buy", "3")
    desk.pass_bar(A=bar("130"))
    before = desk.seen.equity
    report = desk.send("sell", "1", reduce_only=True)
    (fill,) = desk.market.fills("main", "A", report.client_order_id or "")
    assert fill.realized_pnl == 30
    assert (desk.position().contracts, desk.position().entry_price) == (2, 100)
    assert desk.seen.equity == before == 10090


def test_an_order_larger_than_the_position_reverses_it() -> None:
    """In one-way mode selling 5 against a long of 3 leaves a short of 2, entered at the fill."""
    desk = Desk()
    desk.send("buy", "3")
    desk.pass_bar(A=bar("110"))
    desk.send("sell", "5")
    held = desk.position()
    assert (held.side, held.contracts, held.entry_price, held.unrealized_pnl) == ("short", 2, 110, 0)
    assert desk.seen.equity == 10030


def test_closing_thirds_of_an_indivisible_cost_is_exact() -> None:
    """Closing 3 lots of a cost that does not divide by 3, one by one, realises the exact profit to the last digit."""
    desk = Desk(instrument("A", price_step="0.0001"))
    desk.send("buy", "0.001")
    desk.pass_bar(A=bar("100.0001"))
    desk.send("buy", "0.002")
    desk.pass_bar(A=bar("101.0007"))
    for _ in range(3):
        desk.send("sell", "0.001", reduce_only=True)
    paid = Decimal("0.001") * 100 + Decimal("0.002") * Decimal("100.0001")
    assert desk.seen.equity == 10000 + Decimal("0.003") * Decimal("101.0007") - paid
    assert desk.seen.positions == ()


def test_the_taker_fee_and_the_maker_fee_apply_to_their_orders() -> None:
    """0.05% of 300 is 0.15 for a market order; 0.02% of 3 × 99 is 0.0594 for an order that rested."""
    fees = MarketRules(half_spread=Decimal(0), impact=Decimal(0), participation=Decimal(1))
    desk = Desk(rules=fees)
    assert desk.send("buy", "3").fee == Decimal("0.15")
    resting = desk.send("buy", "3", price="99")
    desk.pass_bar(A=bar("100", low="98"))
    report = desk.market.find_order("main", "A", resting.client_order_id or "")
    assert report is not None
    assert (report.state, report.fee, report.average_price) == ("filled", Decimal("0.0594"), 99)
    assert desk.seen.balances is not None
    assert desk.seen.balances[0].amount == 10000 - Decimal("0.15") - Decimal("0.0594")


def test_contracts_are_not_coins() -> None:
    """With a contract size of 0.01, 300 contracts at 100 are a notional of 300 (C10)."""
    desk = Desk(instrument("A", contract_size="0.01", amount_step="1", min_amount="1"))
    desk.send("buy", "300")
    held = desk.position()
    assert (held.contracts, held.notional) == (300, 300)
    desk.pass_bar(A=bar("110"))
    assert desk.position().unrealized_pnl == 30


def test_the_equity_of_a_spot_account_is_cash_plus_holdings() -> None:
    """10,000 of cash, 20 bought at 100, price 90: 8,000 + 20 × 90 = 9,800, as the balances show."""
    desk = Desk(market="spot", rules=FREE)
    desk.send("buy", "20")
    desk.pass_bar(A=bar("90"))
    seen = desk.seen
    assert seen.equity == 9800
    assert seen.balances is not None
    assert [(b.asset, b.amount) for b in seen.balances] == [("USDT", 8000), ("A", 20)]
    assert sum(b.amount * (b.price or 0) for b in seen.balances) == seen.equity
    held = desk.position()
    assert (held.side, held.liquidation_price, held.margin, held.leverage) == ("long", None, None, None)


def test_flows_change_equity_and_are_listed_with_an_id() -> None:
    """A withdrawal of 4,000 leaves 6,000, and the snapshot lists it until it is too old."""
    desk = Desk()
    desk.market.flow("main", "withdrawal", Decimal(-4000))
    seen = desk.seen
    assert seen.equity == 6000
    assert seen.flows is not None
    assert [(f.kind, f.amount, f.currency) for f in seen.flows] == [("withdrawal", -4000, "USDT")]
