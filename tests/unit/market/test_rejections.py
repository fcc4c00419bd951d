"""Orders that the paper venue rejects, with the reason."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from killswitch.model.venue import OrderRejectedError
from tests.markets import Desk, bar, instrument


def _refused(desk: Desk, send: Callable[[Desk], object]) -> str:
    with pytest.raises(OrderRejectedError) as caught:
        send(desk)
    return caught.value.reason


CASES: list[tuple[str, dict[str, str], Callable[[Desk], object], str]] = [
    ("an unknown symbol", {}, lambda d: d.send("buy", "1", symbol="B"), "other"),
    ("an amount of zero", {}, lambda d: d.send("buy", "0"), "below_minimum"),
    ("less than the smallest order", {"min_amount": "2"}, lambda d: d.send("buy", "1"), "below_minimum"),
    ("half a lot", {}, lambda d: d.send("buy", "1.0005"), "other"),
    ("more than the largest order", {"max_amount": "5"}, lambda d: d.send("buy", "6"), "above_maximum"),
    ("less than the smallest notional", {"min_notional": "50"}, lambda d: d.send("buy", "0.4"), "below_minimum"),
    ("a limit off the tick", {}, lambda d: d.send("buy", "1", price="99.995"), "other"),
    ("a limit out of the band", {"price_band": "0.05"}, lambda d: d.send("buy", "1", price="94"), "price_band"),
    ("more than the margin allows", {}, lambda d: d.send("buy", "1001"), "insufficient_margin"),
    ("a halted symbol", {"state": "halted"}, lambda d: d.send("buy", "1"), "market_closed"),
    ("an entry where only exits are taken", {"state": "reduce_only"}, lambda d: d.send("buy", "1"), "market_closed"),
    ("a market order where only limits are", {"state": "limit_only"}, lambda d: d.send("buy", "1"), "market_closed"),
    ("an exit without a position", {}, lambda d: d.send("sell", "1", reduce_only=True), "already_flat"),
    ("an exit of the other side", {},
     lambda d: d.send("sell", "1", reduce_only=True, position_side="short"), "other"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rules", "send", "reason"), CASES, ids=[case[0] for case in CASES])
def test_an_invalid_order_is_rejected(
    name: str, rules: dict[str, str], send: Callable[[Desk], object], reason: str
) -> None:
    """Each mistake is rejected with its own reason, and nothing changes."""
    desk = Desk(instrument("A", **rules))
    assert _refused(desk, send) == reason, name
    assert (desk.seen.equity, desk.seen.positions, desk.seen.orders) == (10000, (), ())


def test_a_client_order_id_can_be_used_only_once() -> None:
    """Sent again after it was filled, the same id is refused and the position stays as it is (C2)."""
    desk = Desk()
    desk.send("buy", "1", client_order_id="x")
    assert _refused(desk, lambda d: d.send("buy", "1", client_order_id="x")) == "duplicate_client_order_id"
    assert desk.position().contracts == 1


def test_the_id_of_a_rejected_order_may_be_used_again() -> None:
    """A rejection changes nothing: no such order exists, and its id is free."""
    desk = Desk()
    _refused(desk, lambda d: d.send("buy", "5000", client_order_id="x"))
    assert desk.market.find_order("main", "A", "x") is None
    assert desk.send("buy", "1", client_order_id="x").state == "filled"


def test_exits_are_accepted_where_entries_are_not() -> None:
    """A symbol in reduce-only state lets a position out (L4)."""
    desk = Desk()
    desk.send("buy", "1")
    desk.market.set_instrument(instrument("A", state="reduce_only"))
    assert desk.send("sell", "1", reduce_only=True).state == "filled"


def test_a_change_of_rules_is_announced() -> None:
    """Readers that cache the rules see by the version that they must fetch them again."""
    desk = Desk()
    before = desk.market.rules_version
    desk.market.set_instrument(instrument("A", state="halted"))
    assert desk.market.rules_version > before
    assert desk.market.instruments[0].state == "halted"


def test_spot_sells_no_more_than_it_holds_and_buys_no_more_than_it_can_pay() -> None:
    """There is no short side and no credit; amounts reserved by other orders count."""
    desk = Desk(market="spot")
    desk.send("buy", "20")
    desk.send("sell", "15", price="120")
    assert _refused(desk, lambda d: d.send("sell", "6")) == "insufficient_margin"
    assert _refused(desk, lambda d: d.send("buy", "81")) == "insufficient_margin"
    assert desk.send("sell", "5").state == "filled"


def test_resting_entries_reserve_margin() -> None:
    """10,000 at 10×: a resting buy of 500 at 100 reserves 5,000, so 501 more do not fit and 499 do."""
    desk = Desk()
    desk.send("buy", "500", price="99.99")
    assert _refused(desk, lambda d: d.send("buy", "501")) == "insufficient_margin"
    assert desk.send("buy", "499").state == "filled"


def test_a_symbol_has_no_market_before_its_first_bar() -> None:
    """Without a price no order can be checked."""
    desk = Desk(instrument("A"))
    other = Desk(instrument("A"), instrument("B"))
    assert other.send("buy", "1", symbol="B").state == "filled"
    assert desk.market.now is not None
    with pytest.raises(ValueError, match="later than"):
        desk.market.advance(desk.market.now, {"A": bar("1")})
    assert desk.seen.equity == Decimal(10000)
