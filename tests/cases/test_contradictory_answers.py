"""Answers that contradict themselves or each other: nothing is closed twice, and nothing is given up too soon."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, RateLimitedError
from tests.cases.resting import RESTING, Resting, resting_market, resting_order
from tests.faults.exchange import Exchange, Market
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene, long
from tests.faults.wire import Wire
from tests.unit.execution.passes.test_closing_hops import COIN, MARKETS, D, X, sale, with_intents

(BTC,) = long("BTC")


class Late(Wire):
    """Acknowledges orders at once and matches them a second later; until then its lists do not show them."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.watch(request)
        self._calls["submit", request.symbol] += 1
        await asyncio.sleep(0.04)
        asyncio.get_running_loop().call_later(1.0, self.match, request)
        name = f"y{self._calls['submit', request.symbol]}"
        return OrderReport(name, request.client_order_id, request.symbol, "open", request.amount, Decimal(0))

    def match(self, request: OrderRequest) -> None:
        try:
            self.exchange.place(request)
        except OrderRejectedError:
            return


def test_c2_an_acknowledged_order_is_not_written_off_at_a_first_denial() -> None:
    """The venue's lists lag a second behind its acknowledgement: the trim is not sent again."""
    scene = Scene({BTC: 10}, wire=Late)
    scene.decide({BTC: 5})
    scene.at(10.0, lambda: None)
    scene.play(patience=60)
    assert scene.held(BTC) == [5]


@pytest.mark.parametrize("why", RESTING)
def test_c2_a_denial_and_a_broken_connection_do_not_end_an_order_that_rests(why: Resting) -> None:
    """Denied by id once, with the open orders unknown, it fills a second later; the trim is done once."""
    rules = [Rule("find_order", "empty"), Rule("open_orders", "lost")]
    scene = Scene({BTC: 10}, *rules, markets=[resting_market(why, makers_slip="0")])
    scene.decide({BTC: 5}, change=resting_order(why))

    def reopen() -> None:
        scene.exchange.markets["BTC"].state = "open"
        scene.exchange.reprice("BTC", Decimal(101))

    scene.at(1.0, reopen)
    scene.play(patience=60)
    assert scene.held(BTC) == [5]


class FilledWithNothing(Wire):
    """The first order is reported as filled, with an amount of nothing."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        report = await super().submit(request)
        first = self._calls["submit", "BTC"] == 1
        return replace(report, filled=Decimal(0), average_price=None) if first else report


def test_c2_a_report_that_contradicts_itself_is_queried() -> None:
    """Filled with nothing, while positions lag: believed, the trim would be sent twice."""
    scene = Scene({BTC: 10}, Rule("snapshot", "lagging", after=1, times=20), wire=FilledWithNothing)
    scene.decide({BTC: 5})
    scene.play()
    assert scene.held(BTC) == [5]


def test_c24_an_outage_of_eleven_minutes_ends_no_query() -> None:
    """No answer for so long; once it is back, the venue is queried and answers that the order had filled."""
    down = [Rule(call, "down", times=10**6) for call in ("find_order", "open_orders", "fills")]
    scene = Scene({BTC: 10}, Rule("submit", "done"), Rule("snapshot", "lost", times=10**6), *down)
    scene.decide({BTC: 5})
    scene.at(660.0, scene.wire.mishaps.rules.clear)
    assert scene.play(patience=700) == {"d1": "flat"}


def test_c4_a_poll_that_waited_for_a_slow_query_is_not_taken_for_a_current_one() -> None:
    """An answer is lost and its query hangs for ten seconds; others trade meanwhile: the account is not flat."""
    (eth,) = long("ETH")
    scene = Scene({BTC: 10, eth: 4}, Rule("submit", "done", "ETH"), Rule("find_order", "silent", "ETH"))
    scene.decide({BTC: 5, eth: 2})
    scene.at(5.0, lambda: scene.exchange.trade(BTC, Decimal(3)))
    scene.play()
    (ended,) = [entry for entry in scene.entries("verified") if entry.symbol == "BTC"][-1:]
    assert ended.data["position"] == "8"


class SlowOrders(Wire):
    """Orders are answered after three seconds, polls at once."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.watch(request)
        self._calls["submit", request.symbol] += 1
        await asyncio.sleep(3.0)
        return self.exchange.place(request)


def test_c14_slow_orders_do_not_time_out_because_polls_are_fast() -> None:
    """Twenty positions, and about as many orders."""
    keys = long(*[f"S{number}" for number in range(20)])
    scene = Scene(dict.fromkeys(keys, 1), wire=SlowOrders)
    scene.decide(dict.fromkeys(keys, 0))
    scene.play(patience=120)
    assert scene.calls("submit") <= 30


class Tight(Exchange):
    """Refuses everything for lack of margin for twelve seconds."""

    def admit(self, request: OrderRequest) -> None:
        if self.now()[0] < 12.0:
            raise OrderRejectedError("insufficient_margin", "not now")
        super().admit(request)


def test_c25_halving_for_lack_of_margin_does_not_end_as_dust() -> None:
    """Whole contracts, halved again and again: never below one, and all of it once there is margin."""
    scene = Scene({BTC: 10}, markets=[Market("BTC", step=Decimal(1), minimum=Decimal(1))], exchange=Tight)
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]


class TakesStopsAlways(Exchange):
    """Checks a conditional order against the position when it triggers, not before."""

    def admit_reduction(self, request: OrderRequest, key: Any, held: Decimal) -> None:
        if request.trigger_price is None:
            super().admit_reduction(request, key, held)


class LongRefusal(Wire):
    """Refuses the second order with fifteen seconds to wait."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        if self._calls["submit", request.symbol] == 1 and not getattr(self, "refused", False):
            self.refused = True
            self.watch(request)
            raise RateLimitedError("slow down", 15.0)
        return await super().submit(request)


@pytest.mark.parametrize(("target", "stops"), [(0, []), (5, [5])])
def test_c22_protection_is_restored_from_a_snapshot_made_after_the_fill(target: int, stops: list[int]) -> None:
    """Unprotected for too long when the close fills: no stop on a closed position, none over more than is left."""
    scene = Scene({BTC: 10}, blocking=True, wire=LongRefusal, exchange=TakesStopsAlways)
    stop = {"reduce_only": True, "trigger_price": Decimal(90), "trigger_when": "falls", "type": "market"}
    scene.exchange.rest("BTC", "sell", Decimal(10), **stop)
    scene.decide({BTC: target})
    assert scene.play() == {"d1": "flat"}
    assert [order.amount for order in scene.exchange.orders.values() if order.state == "open"] == stops


class SlowToShow(Wire):
    """Balances of what was bought appear nine seconds after the fill."""

    async def snapshot(self) -> AccountSnapshot:
        true = await super().snapshot()
        held = [each for each in true.positions or () if each.symbol == "BTC/USDT"]
        if self.exchange.now()[0] >= 9 or not held:
            return true
        others = tuple(each for each in true.positions or () if each.symbol != "BTC/USDT")
        return replace(true, positions=(*others, replace(held[0], contracts=D(1))))


def test_c19_a_hop_that_sold_nothing_of_its_proceeds_is_not_flat() -> None:
    """The proceeds of the first hop do not show for too long: the close ends short, with the reason."""
    scene = Scene({X: 10, COIN: 1}, mode="spot", markets=MARKETS, wire=SlowToShow)
    scene.decide({X: 0}, change=with_intents([sale("X/BTC", "10", hop=False), sale("BTC/USDT", "0.2", "1", after=0)]))
    scene.play()
    assert scene.held(COIN)[0] < D("1.01") or scene.statuses != {"d1": "flat"}
