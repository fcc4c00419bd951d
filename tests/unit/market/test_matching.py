"""Fills of orders: slippage, partial fills by participation, resting limits, reduce-only."""

from decimal import Decimal

from killswitch.market.rules import MarketRules
from tests.markets import Desk, bar

ZERO = Decimal(0)


def _rules(**fields: str) -> MarketRules:
    """No costs and no limits except those given."""
    free = {"taker_fee": "0", "maker_fee": "0", "half_spread": "0", "impact": "0", "participation": "1"}
    return MarketRules(**{name: Decimal(value) for name, value in {**free, **fields}.items()})


def test_slippage_is_linear_in_the_share_of_the_volume() -> None:
    """Impact 0.1: buying 10% of the bar's volume costs 1% on average, 20% costs 2%."""
    assert Desk(rules=_rules(impact="0.1")).send("buy", "100").average_price == 101
    assert Desk(rules=_rules(impact="0.1"), wallet="1e6").send("buy", "200").average_price == 102
    assert Desk(rules=_rules(impact="0.1")).send("sell", "100").average_price == 99


def test_splitting_an_order_makes_it_no_cheaper() -> None:
    """Two halves inside one bar pay together the cost of the whole."""
    whole = Desk(rules=_rules(impact="0.1")).send("buy", "100").average_price
    desk = Desk(rules=_rules(impact="0.1"))
    first, second = desk.send("buy", "50").average_price, desk.send("buy", "50").average_price
    assert first is not None and second is not None
    assert (first, second) == (Decimal("100.5"), Decimal("101.5"))
    assert (first + second) / 2 == whole


def test_a_seller_gets_the_bid_and_a_buyer_pays_the_ask() -> None:
    """Half a spread of 1% each way, rounded to the tick against the trader."""
    desk = Desk(rules=_rules(half_spread="0.01"))
    desk.send("buy", "1")
    assert (desk.position().bid, desk.position().ask) == (99, 101)
    assert desk.send("sell", "1", reduce_only=True).average_price == 99


def test_the_amount_beyond_the_volume_fills_in_the_next_bars() -> None:
    """10% of 1,000 and then of 500 are available: of 170, first 100 fill, then 50, then 20."""
    desk = Desk(rules=_rules(participation="0.1"), wallet="1e6")
    sent = desk.send("buy", "170")
    assert (sent.state, sent.filled) == ("open", 100)
    desk.pass_bar(A=bar("100", volume="500"))
    assert [(o.filled, o.type) for o in desk.market.open_orders("main")] == [(150, "market")]
    desk.pass_bar(A=bar("100", volume="500"))
    report = desk.market.find_order("main", "A", "c1")
    assert report is not None
    assert (report.state, report.filled) == ("filled", 170)
    assert [f.amount for f in desk.market.fills("main", "A", "c1")] == [100, 50, 20]


def test_all_orders_of_a_bar_share_its_volume() -> None:
    """A second order fills only from what the first has left."""
    desk = Desk(rules=_rules(participation="0.1"))
    desk.send("buy", "60")
    assert desk.send("buy", "60").filled == 40


def test_nothing_fills_in_a_bar_without_volume() -> None:
    """The order waits."""
    desk = Desk(volume="0")
    assert desk.send("buy", "1").state == "open"
    desk.pass_bar(A=bar("105"))
    report = desk.market.find_order("main", "A", "c1")
    assert report is not None
    assert (report.state, report.average_price) == ("filled", 105)


def test_a_limit_fills_only_when_the_price_has_gone_through_it() -> None:
    """A buy at 95 rests while the low is 95, and fills at 95, not lower, when the low is 94.99."""
    desk = Desk()
    desk.send("buy", "1", price="95")
    desk.pass_bar(A=bar("100", low="95"))
    assert desk.seen.positions == ()
    desk.pass_bar(A=bar("100", low="94.99"))
    assert desk.position().entry_price == 95
    assert desk.market.open_orders("main") == ()


def test_a_crossing_limit_fills_at_once_and_never_worse_than_its_price() -> None:
    """Impact would make it 101; the limit is 100.5."""
    desk = Desk(rules=_rules(impact="0.1"))
    report = desk.send("buy", "100", price="100.50")
    assert (report.state, report.average_price) == ("filled", Decimal("100.50"))


def test_reduce_only_fills_at_most_the_position() -> None:
    """Selling 5 reduce-only against 3 sells 3 and expires; the position is flat, not short."""
    desk = Desk()
    desk.send("buy", "3")
    report = desk.send("sell", "5", reduce_only=True)
    assert (report.filled, desk.seen.positions) == (3, ())
    assert report.state == "expired"
    assert desk.market.open_orders("main") == ()


def test_two_resting_exits_do_not_reverse_the_position() -> None:
    """Two reduce-only sells of 3 against 3: the first to be reached closes, the other expires."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", price="110", reduce_only=True)
    desk.send("sell", "3", price="120", reduce_only=True)
    desk.pass_bar(A=bar("100", high="130", close="125"))
    assert desk.seen.positions == ()
    states = [desk.market.find_order("main", "A", c) for c in ("c2", "c3")]
    assert [s.state for s in states if s] == ["filled", "expired"]


def test_cancelling_twice_is_no_error() -> None:
    """A cancelled order stays cancelled, with its filled amount."""
    desk = Desk()
    sent = desk.send("buy", "1", price="90")
    desk.market.cancel("main", "A", sent.id)
    desk.market.cancel("main", "A", sent.id)
    report = desk.market.find_order("main", "A", "c1")
    assert report is not None
    assert (report.state, report.filled, report.average_price) == ("canceled", ZERO, None)


def test_jitter_is_drawn_from_the_seed() -> None:
    """The same seed gives the same slippage, another one a different one, both within the bounds."""
    rules = _rules(impact="0.1", jitter="0.5")
    prices = [Desk(rules=rules, seed=seed).send("buy", "100").average_price for seed in (1, 1, 2)]
    assert prices[0] == prices[1] != prices[2]
    assert all(p is not None and Decimal("100.5") <= p <= Decimal("101.5") for p in prices)


def test_spot_fills_only_what_the_cash_can_pay() -> None:
    """10,000 passes the check for 99.9 at 100, but impact makes it 100.9…: the amount beyond the cash is not bought."""
    desk = Desk(market="spot", rules=_rules(impact="0.1"))
    report = desk.send("buy", "99.9")
    assert report.average_price is not None
    assert report.state == "open" and report.filled * report.average_price <= 10000
    assert report.filled > 98
    desk.pass_bar(A=bar("100"))
    final = desk.market.find_order("main", "A", "c1")
    assert final is not None
    assert final.state in {"filled", "expired"}
    assert desk.seen.balances is not None
    assert desk.seen.balances[0].amount >= 0
