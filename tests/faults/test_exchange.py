"""The simulated venue of the other tests: its answers must be true, and its rules must hold."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import Cost, OrderRejectedError, OrderRequest, RateLimit, RateLimitedError, VenueTraits
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.faults.meter import BAN, PATIENCE, Meter
from tests.faults.mishaps import Chance
from tests.virtual_time import START


def exchange(
    positions: Mapping[Key, str], *markets: Market, mode: Mode = "one_way", blocking: bool = False
) -> Exchange:
    held = {key: Decimal(amount) for key, amount in positions.items()}
    return Exchange(held, lambda: (0.0, START), mode=mode, markets=markets, resting_exits_block=blocking)


def order(name: str, symbol: str, amount: str, side: str = "sell", **more: Any) -> OrderRequest:
    fields: dict[str, Any] = {"position_side": "long", "reduce_only": True, **more}
    return OrderRequest(name, symbol, side, amount=Decimal(amount), **fields)  # type: ignore[arg-type] # literals


def test_a_reduce_only_order_stops_at_flat_and_another_turns_the_position_and_is_recorded() -> None:
    """Ten are held and fifteen sold, with reduce-only and without."""
    guarded = exchange({("BTC", "long"): "10"})
    assert guarded.place(order("a", "BTC", "15")).filled == 10
    assert (guarded.held["BTC", "long"], guarded.turned) == (0, [])
    bare = exchange({("BTC", "long"): "10"})
    bare.place(order("a", "BTC", "15", reduce_only=False))
    assert (bare.held["BTC", "long"], bare.held["BTC", "short"], len(bare.turned)) == (0, 5, 1)


def test_an_id_is_accepted_once_and_a_flat_position_cannot_be_reduced() -> None:
    """The two refusals that protect a close from its own uncertainty."""
    venue = exchange({("BTC", "long"): "10"})
    venue.place(order("a", "BTC", "10"))
    for name, reason in (("a", "duplicate_client_order_id"), ("b", "already_flat")):
        with pytest.raises(OrderRejectedError) as refused:
            venue.place(order(name, "BTC", "10"))
        assert refused.value.reason == reason


def test_resting_exits_block_a_close_until_they_are_cancelled() -> None:
    """As Binance's −4118: resting and new orders together may not exceed the position."""
    venue = exchange({("BTC", "long"): "10"}, blocking=True)
    stop = venue.rest("BTC", "sell", Decimal(10), reduce_only=True, trigger_price=Decimal(90), trigger_when="falls")
    with pytest.raises(OrderRejectedError, match="cover 10 of 10"):
        venue.place(order("a", "BTC", "1"))
    venue.cancel(stop)
    assert venue.place(order("b", "BTC", "1")).filled == 1


def test_a_stop_is_sent_when_the_mark_falls_to_it_and_expires_with_its_position() -> None:
    """At 95 it waits, at 90 it closes; the stop of a flat position is gone."""
    venue = exchange({("BTC", "long"): "10", ("ETH", "long"): "1"})
    rest = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls"}
    venue.rest("BTC", "sell", Decimal(10), **rest)
    other = venue.rest("ETH", "sell", Decimal(1), **rest)
    venue.reprice("BTC", Decimal(95))
    assert venue.held["BTC", "long"] == 10
    venue.reprice("BTC", Decimal(90))
    assert venue.held["BTC", "long"] == 0
    venue.place(order("a", "ETH", "1"))
    assert venue.orders[other].state == "expired"


@pytest.mark.parametrize(("limit", "filled", "state"), [("98", 10, "filled"), ("99.5", 0, "expired")])
def test_a_limit_that_expires_fills_within_its_bound_or_not_at_all(limit: str, filled: int, state: str) -> None:
    """Takers get 99: within a limit of 98, not within one of 99.5."""
    venue = exchange({("BTC", "long"): "10"}, Market("BTC", slip=Decimal("0.01")))
    report = venue.place(order("a", "BTC", "10", type="limit", price=Decimal(limit), time_in_force="ioc"))
    assert (report.filled, report.state) == (filled, state)


def test_the_sale_of_a_coin_against_another_pays_out_in_it() -> None:
    """10 X at 0.02 BTC, less 0.05% fee, are 0.1999 BTC more."""
    markets = (Market("X/BTC", price=Decimal("0.02")), Market("BTC/USDT", price=Decimal(30_000)))
    venue = exchange({("X/BTC", "long"): "10", ("BTC/USDT", "long"): "1"}, *markets, mode="spot")
    venue.place(order("a", "X/BTC", "10", reduce_only=False))
    assert venue.held["BTC/USDT", "long"] == Decimal("1.1999")


def test_the_venue_counts_in_a_sliding_window_and_bans_clients_that_continue() -> None:
    """Two in ten seconds: the third must wait for the first to be ten seconds old; repeating it ends in a ban."""
    meter = Meter(VenueTraits((RateLimit("orders", 2, 10.0),), (Cost("submit", "orders", each=1),)))
    for at in (0.0, 4.0):
        meter.arrive(at, "submit", ("BTC",), "main")
    with pytest.raises(RateLimitedError) as refused:
        meter.arrive(5.0, "submit", ("BTC",), "main")
    assert refused.value.retry_after == 5.0
    meter.arrive(10.0, "submit", ("BTC",), "main")
    for _ in range(PATIENCE + 1):
        with pytest.raises(RateLimitedError):
            meter.arrive(11.0, "submit", ("BTC",), "main")
    assert meter.banned_until == 11.0 + BAN


def test_chance_keeps_the_other_mishaps_when_one_is_left_out() -> None:
    """The mishap at one occasion does not depend on what happened at another."""
    occasions = [("submit", "BTC", number) for number in range(200)]
    whole = Chance(3, 0.2, 1.0)
    for it in occasions:
        whole.at(it, 0.0)  # type: ignore[arg-type] # literals
    some = list(whole.happened)[::2]
    part = Chance(3, 0.2, 1.0, only=frozenset(some))
    for it in occasions:
        part.at(it, 0.0)  # type: ignore[arg-type] # literals
    assert part.happened == {it: whole.happened[it] for it in some}
    assert 20 <= len(whole.happened) <= 60
