"""Immediate-or-cancel and conditional orders, and exits that block each other."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from killswitch.market.rules import MarketRules
from killswitch.market.terms import VenueTerms
from killswitch.model.venue import OrderRejectedError
from tests.markets import FREE, Desk, bar, instrument

D = Decimal
DEEP = MarketRules(
    taker_fee=D(0), maker_fee=D(0), half_spread=D("0.001"), impact=D("0.1"), participation=D(1), liquidates=False
)
"""The book of a bar of 1,000 at 100: ask 100.10, and each further unit costs 0.02 more (2 · 0.1 · 100 ÷ 1,000)."""
BLOCKING = VenueTerms(resting_exits_block=True)


def _refused(send: Callable[[], object]) -> str:
    with pytest.raises(OrderRejectedError) as caught:
        send()
    return caught.value.reason


def test_an_immediate_or_cancel_limit_fills_from_the_book_up_to_it_and_expires() -> None:
    """Up to 101.10 the book has (101.10 − 100.10) ÷ 0.02 = 50, at 100.10 + 50 × 0.01 = 100.60 on average."""
    desk = Desk(rules=DEEP)
    report = desk.send("buy", "80", price="101.10", ioc=True)
    assert (report.state, report.filled, report.average_price) == ("expired", 50, D("100.60"))
    assert desk.market.open_orders("main") == ()


def test_the_next_order_fills_from_what_the_first_has_left() -> None:
    """The same limit again fills nothing; one that is 0.20 higher fills ten."""
    desk = Desk(rules=DEEP)
    desk.send("buy", "80", price="101.10", ioc=True)
    assert desk.send("buy", "80", price="101.10", ioc=True).filled == 0
    assert desk.send("buy", "80", price="101.30", ioc=True).filled == 10


def test_an_immediate_or_cancel_sale_fills_from_the_bids() -> None:
    """Down to 98.90 the book has (99.90 − 98.90) ÷ 0.02 = 50."""
    desk = Desk(rules=DEEP)
    desk.send("buy", "200")
    report = desk.send("sell", "200", price="98.90", ioc=True, reduce_only=True)
    assert (report.state, report.filled) == ("expired", 50)
    assert desk.position().contracts == 150


def test_an_immediate_or_cancel_that_does_not_reach_the_book_expires_unfilled() -> None:
    """A bid below the ask fills nothing and does not rest."""
    desk = Desk(rules=DEEP)
    report = desk.send("buy", "1", price="100.09", ioc=True)
    assert (report.state, report.filled, report.average_price) == ("expired", 0, None)
    desk.pass_bar(A=bar("90"))
    assert desk.seen.positions == ()


def test_an_immediate_or_cancel_market_order_does_not_continue() -> None:
    """Of 170 the bar has 100; the rest does not fill in the next bar either."""
    desk = Desk(wallet="1e6", volume="100")
    assert desk.send("buy", "170", ioc=True).state == "expired"
    desk.pass_bar(A=bar("100"))
    assert desk.position().contracts == 100


def test_a_stop_is_listed_with_its_trigger_and_sells_at_market_when_triggered() -> None:
    """The bar goes from 100 through 95 to 90: the stop sells at 95, where it was reached, and not at the low."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, falls_to="95")
    (resting,) = desk.market.open_orders("main")
    assert (resting.trigger_price, resting.type, resting.price, resting.reduce_only) == (95, "market", None, True)
    desk.pass_bar(A=bar("100", low="90", close="98"))
    assert (desk.report("c2").state, desk.report("c2").average_price) == ("filled", 95)
    assert desk.seen.positions == ()


def test_touching_the_trigger_is_enough_and_a_tick_above_it_is_not() -> None:
    """A low of 95.01 does not trigger the stop at 95, a low of 95 does."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, falls_to="95")
    desk.pass_bar(A=bar("100", low="95.01"))
    assert desk.position().contracts == 3
    desk.pass_bar(A=bar("100", low="95"))
    assert desk.seen.positions == ()


def test_after_a_gap_a_stop_sells_at_the_open() -> None:
    """The price opens at 80: there was no 95 to sell at."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, falls_to="95")
    desk.pass_bar(A=bar("80", high="99", close="99"))
    assert desk.report("c2").average_price == 80


def test_a_take_profit_waits_for_the_price_to_rise() -> None:
    """Of a long from 100, 110 is reached on the way to 120; a short is bought back at 90 on the way down."""
    desk = Desk(instrument("A"), instrument("B"))
    desk.send("buy", "3")
    desk.send("sell", "3", symbol="B")
    desk.send("sell", "3", reduce_only=True, rises_to="110")
    desk.send("buy", "3", symbol="B", reduce_only=True, falls_to="90")
    desk.pass_bar(A=bar("100", high="120"), B=bar("100", low="80"))
    assert (desk.report("c3").average_price, desk.report("c4", "B").average_price) == (110, 90)
    assert desk.seen.equity == 10000 + 3 * 10 + 3 * 10


def test_a_triggered_limit_is_a_limit_order() -> None:
    """Triggered at 95 with a limit of 96 it rests, without a trigger, and fills at 96 when the price comes back."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, price="96", falls_to="95")
    desk.pass_bar(A=bar("97", low="95", close="95.50"))
    (resting,) = desk.market.open_orders("main")
    assert (resting.trigger_price, resting.price, resting.filled) == (None, 96, 0)
    desk.pass_bar(A=bar("95.50", high="97"))
    assert desk.report("c2").average_price == 96


def test_an_untriggered_limit_does_not_fill_at_any_price() -> None:
    """A buy limit of 99 with a trigger of 110 is in no book while the price is at 90."""
    desk = Desk()
    desk.send("buy", "1", price="99", rises_to="110")
    desk.pass_bar(A=bar("100", low="90"))
    assert desk.seen.positions == ()
    assert desk.report("c1").state == "open"


def test_conditional_exits_expire_with_the_position() -> None:
    """Stop and take-profit of a position that was closed manually do not open another one."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, falls_to="95")
    desk.send("sell", "3", reduce_only=True, rises_to="105")
    desk.send("sell", "3", reduce_only=True)
    assert [desk.report(c).state for c in ("c2", "c3")] == ["expired", "expired"]
    assert desk.market.open_orders("main") == ()


def test_of_two_stops_the_nearer_is_reached_first() -> None:
    """Sent in the other order, 97 sells before 95, and the second one fills only from what is left."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "2", reduce_only=True, falls_to="95")
    desk.send("sell", "2", reduce_only=True, falls_to="97")
    desk.pass_bar(A=bar("100", low="90"))
    assert [(f.price, f.amount) for f in desk.seen.fills or ()] == [(100, 3), (97, 2), (95, 1)]
    assert desk.report("c2").state == "expired"


def test_a_conditional_order_can_be_cancelled() -> None:
    """A cancelled order is not triggered."""
    desk = Desk()
    desk.send("buy", "3")
    stop = desk.send("sell", "3", reduce_only=True, falls_to="95")
    desk.market.cancel("main", "A", stop.id)
    desk.pass_bar(A=bar("90"))
    assert (desk.report("c2").state, desk.position().contracts) == ("canceled", 3)


def test_liquidation_precedes_a_stop_below_its_price() -> None:
    """Long 100 at 100 with 1,000, liquidated from about 90.45 on: a stop at 85 is cancelled, one at 95 works."""
    rules = MarketRules(
        taker_fee=D(0), maker_fee=D(0), half_spread=D(0), impact=D(0), participation=D(1), liquidation_fee=D("0.01")
    )
    for stop, cause in (("85", "liquidation"), ("95", "trade")):
        desk = Desk(wallet="1000", rules=rules)
        desk.send("buy", "100")
        desk.send("sell", "100", reduce_only=True, falls_to=stop)
        desk.pass_bar(A=bar("100", low="80", close="99"))
        assert [f.cause for f in (desk.seen.fills or ())[1:2]] == [cause]
    assert desk.seen.equity == 500


def test_an_entry_on_the_way_up_is_not_liquidated_by_prices_before_it() -> None:
    """Long 200 from 110 on with 1,000 at 25×: at 100, where the bar began, it would have lost 2,000."""
    desk = Desk(wallet="1000", leverage="25", rules=MarketRules(
        taker_fee=D(0), maker_fee=D(0), half_spread=D(0), impact=D(0), participation=D(1)))  # fmt: skip
    desk.send("buy", "200", rises_to="110")
    desk.pass_bar(A=bar("100", high="120", close="120"))
    assert (desk.position().entry_price, desk.position().contracts, desk.seen.equity) == (110, 200, 3000)


@pytest.mark.parametrize(
    ("more", "text"),
    [({"falls_to": "100"}, "would trigger at once"), ({"rises_to": "99.99"}, "would trigger at once"),
     ({"falls_to": "94.999"}, "not a multiple"), ({"falls_to": "0"}, "above zero")],
)  # fmt: skip
def test_an_invalid_conditional_order_is_refused(more: dict[str, str], text: str) -> None:
    """A trigger at the current price, off the tick, or at no price."""
    desk = Desk()
    desk.send("buy", "3")
    with pytest.raises(OrderRejectedError, match=text):
        desk.send("sell", "3", reduce_only=True, **more)  # type: ignore[arg-type] # the names decide


def test_c6_resting_exits_block_a_close_until_they_are_cancelled() -> None:
    """A take-profit over the whole position: the close is refused as blocked until it is cancelled."""
    desk = Desk(terms=BLOCKING)
    desk.send("buy", "3")
    exit_order = desk.send("sell", "3", reduce_only=True, price="120")
    assert _refused(lambda: desk.send("sell", "3", reduce_only=True)) == "blocked_by_order"
    desk.market.cancel("main", "A", exit_order.id)
    assert desk.send("sell", "3", reduce_only=True).state == "filled"


def test_c6_trigger_orders_block_too_and_do_not_block_each_other() -> None:
    """Stop and take-profit over the whole position may coexist, and a close is blocked by either."""
    desk = Desk(terms=BLOCKING)
    desk.send("buy", "3")
    stops = [
        desk.send("sell", "3", reduce_only=True, falls_to="95"),
        desk.send("sell", "3", reduce_only=True, rises_to="105"),
    ]
    for stop in stops:
        assert _refused(lambda: desk.send("sell", "3", reduce_only=True)) == "blocked_by_order"
        desk.market.cancel("main", "A", stop.id)
    assert desk.send("sell", "3", reduce_only=True).state == "filled"


def test_an_exit_over_a_part_blocks_nothing_and_neither_does_an_entry() -> None:
    """Two of three reserved, and a resting buy: the close is accepted."""
    desk = Desk(terms=BLOCKING)
    desk.send("buy", "3")
    desk.send("sell", "2", reduce_only=True, price="120")
    desk.send("buy", "5", price="80")
    assert desk.send("sell", "3", reduce_only=True).state == "filled"


def test_c6_in_spot_every_sale_is_an_exit() -> None:
    """What a resting sale reserves blocks another; without that strictness the venue calls it insufficient."""
    for terms, reason in ((BLOCKING, "blocked_by_order"), (None, "insufficient_margin")):
        desk = Desk(market="spot", terms=terms)
        desk.send("buy", "3")
        desk.send("sell", "3", price="120")
        assert _refused(lambda desk=desk: desk.send("sell", "3")) == reason  # type: ignore[misc] # bound in the loop


def test_c11_a_limit_only_symbol_accepts_a_crossing_limit() -> None:
    """No market order, but an exit exists."""
    desk = Desk()
    desk.send("buy", "3")
    desk.market.set_state("A", "limit_only")
    assert _refused(lambda: desk.send("sell", "3", reduce_only=True)) == "market_closed"
    assert desk.send("sell", "3", price="99", ioc=True, reduce_only=True).state == "filled"


def test_c11_a_post_only_symbol_accepts_only_resting_orders() -> None:
    """Neither an immediate order nor a limit that crosses; one behind the best price is accepted."""
    desk = Desk()
    desk.send("buy", "3")
    desk.market.set_state("A", "post_only")
    assert _refused(lambda: desk.send("sell", "3", price="101", ioc=True, reduce_only=True)) == "market_closed"
    assert _refused(lambda: desk.send("sell", "3", price="99", reduce_only=True)) == "market_closed"
    desk.send("sell", "3", price="101", reduce_only=True)
    desk.pass_bar(A=bar("100", high="102"))
    assert desk.seen.positions == ()


def test_c11_a_price_band_can_be_set_while_the_market_runs() -> None:
    """1% from 100: a limit at 98 is refused, one at 99 is accepted."""
    desk = Desk()
    desk.send("buy", "3")
    desk.market.set_state("A", "open", price_band=D("0.01"))
    assert _refused(lambda: desk.send("sell", "3", price="98", ioc=True, reduce_only=True)) == "price_band"
    assert desk.send("sell", "3", price="99", ioc=True, reduce_only=True).state == "filled"


@pytest.mark.parametrize(("state", "order"), [("limit_only", {}), ("post_only", {}), ("post_only", {"price": "94"})])
def test_a_stop_that_triggers_in_a_state_that_refuses_it_is_rejected(state: str, order: dict[str, str]) -> None:
    """The venue reports it, and the position is unchanged."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "3", reduce_only=True, falls_to="95", **order)  # type: ignore[arg-type] # the names decide
    desk.market.set_state("A", state)  # type: ignore[arg-type] # one of the two
    desk.pass_bar(A=bar("94"))
    assert (desk.report("c2").state, desk.position().contracts) == ("rejected", 3)


def test_c12_nothing_trades_in_a_halted_symbol_until_it_reopens() -> None:
    """A stop and a resting limit wait out the halt; then the stop fills at the first available price."""
    desk = Desk()
    desk.send("buy", "3")
    desk.send("sell", "2", reduce_only=True, falls_to="95")
    desk.send("buy", "1", price="96")
    desk.market.set_state("A", "halted")
    desk.pass_bar(A=bar("94"))
    assert _refused(lambda: desk.send("sell", "3", reduce_only=True)) == "market_closed"
    assert (desk.position().contracts, desk.position().mark_price) == (3, 94)
    desk.market.set_state("A", "open")
    desk.pass_bar(A=bar("93"))
    assert (desk.report("c2").average_price, desk.report("c3").average_price) == (93, 96)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [("plain", "ks" + "0" * 30, "ks" + "0" * 31), ("plain", "abc9", "Abc9"), ("hex", "0x" + "6b" * 16, "0x6b73"),
     ("uuid", "6b730000-0000-0000-0000-00000000000a", "6b730000000000000000000000000000")],
)  # fmt: skip
def test_a_venue_with_rules_for_client_order_ids_refuses_others(form: str, good: str, bad: str) -> None:
    """Each form accepts ids by its rule, and nothing else."""
    from killswitch.market.terms import read_terms

    desk = Desk(terms=read_terms({"client_ids": {"form": form, "longest": 32}}), rules=FREE)
    assert desk.send("buy", "1", client_order_id=good).state == "filled"
    assert _refused(lambda: desk.send("buy", "1", client_order_id=bad)) == "other"
