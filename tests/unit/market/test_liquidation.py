"""Margin and liquidation, compared with the closed forms that venues publish."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest

from killswitch.market.rules import MarketRules
from killswitch.model.snapshot import Fill
from tests.markets import Desk, bar, instrument

RATE = Decimal("0.005")
RULES = MarketRules(
    taker_fee=Decimal(0), maker_fee=Decimal(0), half_spread=Decimal(0), impact=Decimal(0),
    participation=Decimal(1), maintenance=RATE, liquidation_fee=Decimal("0.01"),
)  # fmt: skip
CENT = Decimal("0.01")


def _liquidated(desk: Desk) -> list[Fill]:
    return [fill for fill in desk.seen.fills or () if fill.cause == "liquidation"]


@pytest.mark.parametrize("leverage", [2, 5, 10, 25])
def test_a_single_long_is_liquidated_at_the_isolated_formula(leverage: int) -> None:
    """With nothing but its initial margin, a long is liquidated at entry × (1 − 1/leverage) ÷ (1 − rate)."""
    desk = Desk(wallet="1000", leverage=str(leverage), rules=RULES)
    desk.send("buy", str(10 * leverage))
    exact = 100 * (1 - Decimal(1) / leverage) / (1 - RATE)
    assert desk.position().liquidation_price == exact.quantize(CENT, ROUND_CEILING)


@pytest.mark.parametrize("leverage", [2, 5, 10, 25])
def test_a_single_short_is_liquidated_at_the_isolated_formula(leverage: int) -> None:
    """With nothing but its initial margin, a short is liquidated at entry × (1 + 1/leverage) ÷ (1 + rate)."""
    desk = Desk(wallet="1000", leverage=str(leverage), rules=RULES)
    desk.send("sell", str(10 * leverage))
    exact = 100 * (1 + Decimal(1) / leverage) / (1 + RATE)
    assert desk.position().liquidation_price == exact.quantize(CENT, ROUND_FLOOR)


def test_in_cross_margin_the_other_positions_count() -> None:
    """Binance's cross formula: (WB − TMM of others + uPnL of others − q·entry) ÷ (|q|·rate − q), worked by hand.

    Wallet 1,000; long 50 A at 100; short 20 B at 100, B now at 95: others' P&L 100, their maintenance 9.5.
    (1000 − 9.5 + 100 − 5000) ÷ (0.25 − 50) = 78.58….
    """
    desk = Desk(instrument("A"), instrument("B"), wallet="1000", rules=RULES)
    desk.send("buy", "50")
    desk.send("sell", "20", symbol="B")
    desk.pass_bar(A=bar("100"), B=bar("95"))
    exact = (1000 - Decimal("9.5") + 100 - 5000) / (Decimal("0.25") - 50)
    assert desk.position().liquidation_price == exact.quantize(CENT, ROUND_CEILING)


def test_a_position_that_no_price_can_liquidate_has_no_liquidation_price() -> None:
    """A long of 10 with a wallet of 10,000 survives a price of zero."""
    desk = Desk(rules=RULES)
    desk.send("buy", "10")
    assert desk.position().liquidation_price is None


def test_margin_is_notional_over_leverage_and_maintenance_its_rate() -> None:
    """50 at 100 with 10×: 500 of initial margin, 25 of maintenance, and 500 of 1,000 free."""
    desk = Desk(wallet="1000", rules=RULES)
    desk.send("buy", "50")
    seen = desk.seen
    assert (seen.margin_used, seen.maintenance_margin, seen.free) == (500, 25, 500)
    assert desk.position().margin == 500


def test_it_is_liquidated_at_its_liquidation_price_and_not_at_the_low() -> None:
    """Long 100 at 100 with 1,000: the bar falls to 80, but the venue liquidates at 90.45…"""
    desk = Desk(wallet="1000", rules=RULES)
    desk.send("buy", "100")
    announced = desk.position().liquidation_price
    assert announced is not None
    desk.pass_bar(A=bar("100", low="80", close="99"))
    first = _liquidated(desk)[0]
    assert abs(first.price - announced) <= CENT
    assert first.amount == 25
    assert first.fee == first.amount * first.price / 100


def test_a_bar_above_the_liquidation_price_liquidates_nothing() -> None:
    """A low of one tick above the liquidation price leaves the position unchanged."""
    desk = Desk(wallet="1000", rules=RULES)
    desk.send("buy", "100")
    announced = desk.position().liquidation_price
    assert announced is not None
    desk.pass_bar(A=bar("100", low=str(announced + CENT), close="99"))
    assert _liquidated(desk) == []
    assert desk.position().contracts == 100


def test_liquidation_cancels_the_orders_first() -> None:
    """A resting entry does not survive the liquidation of its account."""
    desk = Desk(wallet="1000", rules=RULES)
    desk.send("buy", "90")
    desk.send("buy", "1", price="50")
    desk.pass_bar(A=bar("100", low="80", close="99"))
    assert _liquidated(desk)
    assert desk.market.open_orders("main") == ()


def test_after_a_gap_the_insurance_fund_pays_the_debt() -> None:
    """The price opens at 50: 100 × 50 of loss against 1,000. Equity ends at zero, and the flow has the cause."""
    desk = Desk(wallet="1000", rules=RULES)
    desk.send("buy", "100")
    desk.pass_bar(A=bar("50"))
    seen = desk.seen
    assert (seen.equity, seen.positions) == (0, ())
    paid = [flow for flow in seen.flows or () if flow.kind == "insurance"]
    assert len(paid) == 1
    fees = sum(fill.fee or 0 for fill in _liquidated(desk))
    assert paid[0].amount == 5000 + fees - 1000


def test_the_position_with_the_largest_maintenance_is_liquidated_first() -> None:
    """Of two positions the larger one is reduced first."""
    desk = Desk(instrument("A"), instrument("B"), wallet="1000", rules=RULES)
    desk.send("buy", "30")
    desk.send("buy", "60", symbol="B")
    desk.pass_bar(A=bar("100", close="87"), B=bar("100", close="87"))
    assert _liquidated(desk)[0].symbol == "B"


def test_without_liquidation_equity_goes_below_zero() -> None:
    """A market that does not liquidate shows negative equity (D2)."""
    desk = Desk(wallet="1000", rules=MarketRules(liquidates=False, participation=Decimal(1), impact=Decimal(0),
                half_spread=Decimal(0), taker_fee=Decimal(0)))  # fmt: skip
    desk.send("buy", "100")
    desk.pass_bar(A=bar("50"))
    assert desk.seen.equity == -4000


def test_prices_that_move_together_are_followed_from_point_to_point() -> None:
    """Long 100 A, short 50 B, wallet 1,000; both rise to 106, then A falls to 85 and B to 99.

    On that way a = 106 − 21t, b = 106 − 7t, equity 1300 − 1750t, maintenance 79.5 − 12.25t: they meet at
    t = 1220.5 ÷ 1737.75, where A is at 91.25."""
    desk = Desk(instrument("A"), instrument("B"), wallet="1000", leverage="25", rules=RULES)
    desk.send("buy", "100")
    desk.send("sell", "50", symbol="B")
    desk.pass_bar(A=bar("100", "106", "85", "85"), B=bar("100", "106", "99", "99"))
    first = _liquidated(desk)[0]
    assert (first.symbol, first.price) == ("A", Decimal("91.25"))
