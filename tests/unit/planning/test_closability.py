"""Positions that could not be closed as they are, and each reason by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import Order
from killswitch.planning.closability import Closability, closability_of
from tests import worlds

BTC = "BTC/USDT:USDT"


def long_closability(
    held: str, mark: str | None = "50000", *, guarded: bool = True, orders: Any = (), **rules: Any
) -> Closability:
    """Of one long position under rules of step and minimum 0.001, unless stated otherwise."""
    more = {} if mark is None else {"mark_price": mark}
    position = worlds.position(BTC, "long", contracts=held, **more)
    account = worlds.account("1000", [position], orders=orders, instruments=[worlds.rules(BTC, **rules)])
    found = closability_of(account, reduce_only=guarded)
    assert found is not None
    return found[0]


def kinds(found: Closability) -> list[tuple[str, str]]:
    return [(each.kind, each.severity) for each in found.hindrances]


def test_a_plain_position_has_no_hindrance() -> None:
    """One order closes it completely."""
    found = long_closability("1.5")
    assert (found.orders, found.leaves, len(found.hindrances)) == (1, Decimal(0), 0)


def test_a_position_below_the_venues_minimum_is_dust() -> None:
    """0.0004 at a minimum of 0.001: no order can close it."""
    found = long_closability("0.0004")
    assert (found.orders, found.leaves) == (0, Decimal("0.0004"))
    assert kinds(found) == [("dust", "warning")]
    assert found.hindrances[0].text == f"dust: 0.0004 of {BTC} is below the venue's minimum of 0.001"


def test_the_minimum_notional_binds_where_closes_are_plain_orders() -> None:
    """Worth 50 at a minimum of 100: dust on a spot market; a reduce-only order is exempt, which a note says."""
    spot = long_closability("0.001", guarded=False, min_notional="100")
    assert kinds(spot) == [("dust", "warning")]
    swap = long_closability("0.001", min_notional="100")
    assert kinds(swap) == [("below notional", "note")]
    assert swap.orders == 1
    assert swap.hindrances[0].text.startswith("worth 50.000, below the venue's minimum notional of 100")


def test_above_the_maximum_it_takes_several_orders() -> None:
    """2.5 with at most 1 in an order: three orders, and nothing is left."""
    found = long_closability("2.5", max_amount="1")
    assert (found.orders, found.leaves, kinds(found)) == (3, Decimal(0), [("above maximum", "note")])
    assert found.hindrances[0].text == f"2.5 {BTC} takes 3 orders; the venue takes at most 1 in one"


def test_a_remainder_finer_than_the_step_stays() -> None:
    """1.0004 in steps of 0.001: 0.0004 cannot be sold."""
    found = long_closability("1.0004")
    assert (found.orders, found.leaves, kinds(found)) == (1, Decimal("0.0004"), [("wrong step", "warning")])
    assert found.hindrances[0].text == "0.0004 of 1.0004 is finer than the step of 0.001, and stays"


@pytest.mark.parametrize("state", ["halted", "delisted", "cancel_only"])
def test_a_market_that_does_not_trade_is_a_warning(state: str) -> None:
    """The hindrance names the market's state."""
    found = long_closability("1", state=state)
    assert found.shut
    assert kinds(found) == [("state", "warning")]
    assert f"the market is {state}" in found.hindrances[0].text


@pytest.mark.parametrize(
    ("state", "expected"),
    [("limit_only", [("state", "warning")]), ("post_only", [("state", "warning")]),
     ("reduce_only", [("state", "note")]), ("open", []), (None, [])],
)  # fmt: skip
def test_other_market_states_are_reported_by_their_effect_on_a_close(
    state: str | None, expected: list[tuple[str, str]]
) -> None:
    """A market without market orders is a warning; one that only reduces is a note, because a close reduces."""
    found = long_closability("1", state=state)
    assert (kinds(found), found.shut) == (expected, False)


def test_unknown_rules_are_a_warning() -> None:
    """Without rules of the instrument, and without its step."""
    account = worlds.account("1000", [worlds.position(BTC, "long", mark_price="1")])
    assert [kinds(each) for each in closability_of(account, reduce_only=True) or ()] == [[("rules unknown", "warning")]]
    stepless = worlds.account(
        "1000", [worlds.position(BTC, "long", mark_price="1")], instruments=[worlds.rules(BTC, amount_step="0")]
    )
    assert [kinds(each) for each in closability_of(stepless, reduce_only=True) or ()] == [
        [("rules unknown", "warning")]
    ]


def test_every_warning_names_a_way_out() -> None:
    """Rules that are unknown, dust, a remainder, a maximum that no order satisfies, and markets that do not trade."""
    stepless = worlds.account(
        "1000", [worlds.position(BTC, "long", mark_price="1")], instruments=[worlds.rules(BTC, amount_step="0")]
    )
    (unknown,) = closability_of(stepless, reduce_only=True) or ()
    sizes = [long_closability(held) for held in ("0.0004", "1.0004")]
    states = [long_closability("1", state=state) for state in ("halted", "post_only")]
    found = [unknown, *sizes, long_closability("1", max_amount="0.0005"), *states]
    for warning in (each for one in found for each in one.hindrances if each.severity == "warning"):
        assert warning.text, warning
        assert warning.way_out, warning


@pytest.mark.parametrize(
    ("setting", "severity", "text", "way_out"),
    [
        (None, "warning", "a close is refused", "outside market hours: outside_hours: queue, or extended"),
        ("queue", "note", "a close is held until it opens (outside_hours: queue)", ""),
        ("extended", "warning", "and so is its extended session", "outside_hours: queue holds it instead"),
    ],
)
def test_a_closed_stock_market_is_reported_as_the_account_declares(
    setting: Any, severity: str, text: str, way_out: str
) -> None:
    """A snapshot does not distinguish a closed market from a halted one, so both are named."""
    account = replace(
        worlds.account(
            "1000", [worlds.position("AAPL", "long", contracts="2", mark_price="1")],
            instruments=[worlds.rules("AAPL", state="halted")],
        ),
        market="equity",
    )  # fmt: skip
    (found,) = closability_of(account, reduce_only=False, outside_hours=setting) or ()
    (closed,) = [each for each in found.hindrances if each.kind == "state"]
    assert closed.severity == severity
    assert closed.text.startswith("the market is closed, or halted")
    assert text in closed.text
    assert closed.way_out.endswith(way_out)
    assert bool(closed.way_out) is bool(way_out)


def test_without_a_mark_price_the_price_bound_is_unknown() -> None:
    """On a market with a minimum notional and plain orders it is also unknown whether the value suffices."""
    assert kinds(long_closability("1", None)) == [("no mark price", "warning")]
    assert "it is unknown whether" in long_closability("1", None, guarded=False, min_notional="5").hindrances[0].text


def stop(order_id: str, amount: str, side: str = "sell", **more: Any) -> Order:
    return Order(order_id, BTC, side, Decimal(amount), reduce_only=True, trigger_price=Decimal(1), **more)  # type: ignore[arg-type] # literal by the caller


def test_resting_exits_of_the_position_are_reported() -> None:
    """Two stops commit 1.5 of 2; an order of the other side, an entry and one of another symbol do not count."""
    entry = Order("e", BTC, "buy", Decimal(1))
    elsewhere = Order("x", "ETH/USDT:USDT", "sell", Decimal(1), reduce_only=True)
    found = long_closability("2", orders=[stop("a", "1"), stop("b", "0.5"), stop("c", "9", "buy"), entry, elsewhere])
    assert kinds(found) == [("resting exits", "note")]
    assert found.hindrances[0].text == "2 resting exits promise 1.5 of 2"


def test_unknown_positions_have_no_closability() -> None:
    """None, which is not the same as an empty book."""
    assert closability_of(worlds.account("1000", None), reduce_only=True) is None
    assert closability_of(worlds.account("1000", []), reduce_only=True) == ()
