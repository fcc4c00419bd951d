"""C6–C13, C17: closes under the venue's own rules."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest
from tests.faults.exchange import Actor, Exchange, Key, Market
from tests.faults.scene import Scene, long

BTC, ETH, SOL = long("BTC", "ETH", "SOL")
STOP = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls"}
PROFIT = {"reduce_only": True, "type": "limit", "price": Decimal(120)}


@pytest.mark.parametrize("resting", [STOP, PROFIT], ids=["stop", "take-profit"])
def test_c6_what_blocks_a_close_is_cancelled_and_only_that(resting: dict[str, object]) -> None:
    """The venue refuses while the resting exit covers the position; another symbol's exit is kept until the end."""
    scene = Scene({BTC: 10, ETH: 4}, blocking=True)
    blocks = scene.exchange.rest("BTC", "sell", Decimal(10), **resting)
    other = scene.exchange.rest("SOL", "buy", Decimal(1), type="limit", price=Decimal(1))
    scene.decide({BTC: 0, ETH: 0}, cancels={blocks: ("BTC", "all")})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [0, 0]
    assert [scene.exchange.orders[it].state for it in (blocks, other)] == ["canceled", "open"]


@pytest.mark.parametrize("target", [0, 4])
def test_c6_a_refusal_because_of_resting_orders_costs_two_round_trips(target: int) -> None:
    """Of 40 ms each: the open orders are fetched, the blocking one is cancelled, and the next order arrives in 20 ms.

    The first was refused after one, and the account was polled before it where no tick has done so.
    """
    scene = Scene({BTC: 10}, blocking=True)
    scene.exchange.rest("BTC", "sell", Decimal(10), **STOP)
    scene.decide({BTC: target})
    assert scene.play() == {"d1": "flat"}
    refused, closed = scene.entries("rejected")[0], next(it for it in scene.exchange.deeds if it.actor == "ours")
    assert closed.at - (refused.at - scene.time.start).total_seconds() <= 2 * 0.04 + 0.02 + 0.005


def test_c6_trigger_orders_are_cancelled_like_the_others() -> None:
    """Nothing rests on the account after everything is closed, conditional orders included."""
    scene = Scene({BTC: 10})
    orders = [scene.exchange.rest("BTC", "sell", Decimal(10), **it) for it in (STOP, PROFIT)]
    entry = scene.exchange.rest("BTC", "buy", Decimal(1), trigger_price=Decimal(110), trigger_when="rises")
    scene.decide({BTC: 0}, cancels={orders[0]: ("BTC", "all"), orders[1]: ("BTC", "all"), entry: ("BTC", "entry")})
    assert scene.play() == {"d1": "flat"}
    assert scene.exchange.resting() == ()


def test_c8_both_sides_of_a_symbol_are_closed_in_hedge_mode() -> None:
    """The second close is accepted like the first, and none of the fills opens anything."""
    short: Key = ("BTC", "short")
    scene = Scene({BTC: 10, short: 6}, mode="hedge")
    scene.decide({BTC: 0, short: 3})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, short) == [0, 3]
    assert {(it.key, it.side) for it in scene.orders()} == {(BTC, "sell"), (short, "buy")}


def test_c9_a_remainder_below_the_minimum_is_reported_and_delays_nothing() -> None:
    """Of 0.003 fill 0.002; what is left is below the minimum of 0.002: blocked as dust, and the rest is closed."""
    markets = [Market("BTC", minimum=Decimal("0.002"), shares=[Decimal("0.7")])]
    scene = Scene({BTC: "0.003", ETH: 1}, markets=markets)
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "blocked"}
    (ended,) = scene.entries("finished")
    assert "dust" in (ended.data["reason"] or "")
    assert ended.data["left long BTC"] == str(scene.exchange.held[BTC])
    assert scene.held(ETH) == [0]
    assert len(scene.orders("BTC")) == 1


def test_c10_an_order_above_the_maximum_is_sent_in_parts() -> None:
    """10 at 4 a time, where the venue states its maximum: 4, 4 and 2."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", maximum=Decimal(4))])
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert [order.amount for order in scene.orders()] == [4, 4, 2]


def test_c10_an_unstated_maximum_is_found_by_halving() -> None:
    """The maximum of 3 was unknown: 10 is refused, 5 is refused, 2.5 fits."""
    scene = Scene({BTC: 10}, exchange=UnstatedMaximum)
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert [order.amount for order in scene.orders()] == [Decimal("2.5")] * 4


class UnstatedMaximum(Exchange):
    """Does not state its maximum, and refuses what is beyond it."""

    def admit(self, request: OrderRequest) -> None:
        if request.amount > 3:
            raise OrderRejectedError("above_maximum", "too much")
        super().admit(request)


def test_c12_a_halted_symbol_blocks_nothing_else_and_is_closed_when_it_opens() -> None:
    """The others are flat within a second; the halted one is reported, waits, and is closed after two minutes."""
    scene = Scene({BTC: 10, ETH: 4, SOL: 2}, markets=[Market("BTC", state="halted")])
    seen: list[list[Decimal]] = []
    scene.at(1.0, lambda: seen.append(scene.held(ETH, SOL)))
    scene.at(120.0, lambda: setattr(scene.exchange.markets["BTC"], "state", "open"))
    scene.decide({BTC: 0, ETH: 0, SOL: 0})
    assert scene.play() == {"d1": "flat"}
    assert seen == [[0, 0]]
    assert any("BTC" in text and "market_closed" in text for text in scene.notices)


def test_c12_a_delisted_symbol_of_a_trim_ends_as_blocked_and_is_reported() -> None:
    """Half of it was to be closed; it cannot be traded, and what is left is reported."""
    scene = Scene({BTC: 10, ETH: 4}, markets=[Market("BTC", state="delisted")])
    scene.decide({BTC: 5, ETH: 0})
    assert scene.play() == {"d1": "blocked"}
    (ended,) = scene.entries("finished")
    assert ended.data["left long BTC"] == "5"
    assert scene.held(ETH) == [0]


@pytest.mark.parametrize("second", [0.0, 0.03, 0.07, 0.2])
def test_c13_a_position_closed_by_hand_is_flat_and_no_error(second: float) -> None:
    """Before the first poll, while the order is on its way, or after it: the close ends flat, and opens nothing."""
    scene = Scene({BTC: 10, ETH: 4})
    scene.decide({BTC: 0, ETH: 0})
    scene.at(second, lambda: scene.exchange.trade(BTC, Decimal(-10)))
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ("BTC", "short"), ETH) == [0, 0, 0]


def test_c17_a_close_waits_until_the_cancel_has_taken_effect() -> None:
    """The venue confirms the cancel and executes it half a second later: refusals until then do not end the close."""
    scene = Scene({BTC: 10}, blocking=True, exchange=DelayedCancels)
    stop = scene.exchange.rest("BTC", "sell", Decimal(10), **STOP)
    scene.decide({BTC: 0}, cancels={stop: ("BTC", "all")})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]


class DelayedCancels(Exchange):
    """Executes a cancel half a second after it has confirmed it."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type] # as the base
        self._due: dict[str, float] = {}

    def cancel(self, order: str, symbol: str = "") -> None:
        self._due.setdefault(order, self.now()[0] + 0.5)

    def place(self, request: OrderRequest, by: Actor = "ours") -> OrderReport:
        for order in [order for order, at in self._due.items() if at <= self.now()[0]]:
            super().cancel(order)
        return super().place(request, by)
