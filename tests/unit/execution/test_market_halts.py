"""What waits for a market to open: it costs little while it waits, and leaves as soon as a reading shows it open."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import cast

import pytest
from msgspec import structs

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.query.order_query import OrderQuery, OrderQuestion
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, InstrumentState
from killswitch.model.venue import Cost, OrderReport, OrderRequest, RateLimit, VenueAdapter, VenueTraits
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import ZERO, Exchange, Key, Market, Placed
from tests.faults.scene import Scene
from tests.faults.statement import statement
from tests.faults.wire import Wire
from tests.virtual_time import VirtualTime

HOUR = 3600.0
WEEKEND = 65.5 * HOUR
"""From the close of Friday, 16:00 in New York, to the opening of Monday, 09:30."""
STOCKS: list[Key] = [(f"S{number:02}", "long") for number in range(20)]


class Broker(Exchange):
    """Takes market orders while a market is halted, and holds them for the opening."""

    def _admit(self, request: OrderRequest) -> None:
        market = self.markets[request.symbol]
        if market.state == "halted" and request.type == "market":
            return
        super()._admit(request)

    def _match(self, order: Placed) -> None:
        if self.markets[order.symbol].state != "halted":
            super()._match(order)

    def open(self) -> None:
        """The opening auction: everything that was held is filled."""
        for market in self.markets.values():
            market.state = "open"
        for order in list(self.orders.values()):
            if order.state == "open":
                self._match(order)


class Reticent(Wire):
    """A venue whose readings tell no market's state."""

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        return structs.replace(
            found, instruments=tuple(structs.replace(each, state=None) for each in found.instruments or ())
        )


def closed(*keys: Key) -> list[Market]:
    return [Market(symbol, state="halted") for symbol, _ in keys]


def turn(scene: Scene, state: InstrumentState) -> None:
    """Every market is in that state from now on."""
    for market in scene.exchange.markets.values():
        market.state = state


def ticks(scene: Scene, every: float, until: float) -> None:
    """The runner reads the account, and tells the closer."""

    def tick() -> None:
        scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed)

    for number in range(1, int(until / every)):
        scene.at(number * every, tick)


def test_a_weekend_of_refusals_is_one_for_each_position() -> None:
    """4 positions refused on Friday: 8 entries, and not one more before they leave with the look after the opening."""
    # A look every other minute, for there are 65 hours of them; tests below hold that it is one in ten seconds.
    seldom = ClosingPace(longest_sleep=120.0, idle_poll_interval=120.0)
    scene = Scene(dict.fromkeys(STOCKS[:4], 10), markets=closed(*STOCKS[:4]), closing={"pace": seldom})
    written: list[int] = []
    scene.at(WEEKEND, lambda: written.append(len(scene.entries("sending", "rejected", "verified", "finished"))))
    scene.at(WEEKEND, lambda: turn(scene, "open"))
    scene.decide(dict.fromkeys(STOCKS[:4], 0))
    assert scene.play(patience=WEEKEND + 600) == {"d1": "flat"}
    assert written == [2 * len(STOCKS[:4])]
    assert scene.ended_at is not None
    assert scene.ended_at - WEEKEND < 122


def test_with_ticks_it_leaves_within_one_of_the_opening() -> None:
    """A tick each 5 s: the market opens at a tick's time, the next one shows it, and the orders are there with it."""
    scene = Scene({STOCKS[0]: 10}, markets=closed(STOCKS[0]))
    ticks(scene, 5.0, HOUR + 60)
    scene.at(HOUR + 1.0, lambda: turn(scene, "open"))
    scene.decide({STOCKS[0]: 0})
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    (deed,) = scene.exchange.deeds
    assert HOUR + 1.0 < deed.at <= HOUR + 5.2


def test_a_decision_that_comes_meanwhile_is_tried_once_and_waits_too() -> None:
    """The level above decides on the same position an hour later: one refusal more, and flat at the opening."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key))
    scene.at(HOUR, lambda: scene.decide({key: 0}))
    scene.at(3 * HOUR, lambda: turn(scene, "open"))
    scene.decide({key: 5})
    assert scene.play(patience=4 * HOUR) == {"d1": "flat", "d2": "flat"}
    assert len(scene.entries("rejected")) == 2
    assert scene.held(key) == [ZERO]


def test_a_trim_waits_for_the_opening_and_closes_what_was_decided() -> None:
    """Half of it was to go: that is done on Monday, and not given up on Friday."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key))
    scene.at(2 * HOUR, lambda: turn(scene, "open"))
    scene.decide({key: 5})
    assert scene.play(patience=3 * HOUR) == {"d1": "flat"}
    assert scene.held(key) == [Decimal(5)]


def test_a_restart_does_not_try_again_what_waits() -> None:
    """Killed and started again while the market is closed: the journal says what it waits for."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key))
    scene.at(HOUR, lambda: turn(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR, kills=[600.0, 1200.0]) == {"d1": "flat"}
    assert len(scene.entries("rejected")) == 1


def test_an_opening_that_takes_limits_only_is_an_opening() -> None:
    """The extended session: a limit leaves with the reading that shows it."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key))
    scene.at(HOUR, lambda: turn(scene, "limit_only"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR) == {"d1": "flat"}
    assert scene.orders()[0].type == "limit"
    assert scene.ended_at is not None
    assert scene.ended_at - HOUR < 12


def test_where_no_reading_tells_the_state_the_pauses_grow_to_five_minutes() -> None:
    """Twelve attempts an hour at the most, once it has lasted; and it closes within five minutes of the opening."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key), wire=Reticent)
    scene.at(4 * HOUR, lambda: turn(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=5 * HOUR) == {"d1": "flat"}
    late = [each for each in scene.entries("rejected") if (each.at - scene.time.start).total_seconds() > HOUR]
    assert 33 <= len(late) <= 3 * 12
    assert scene.ended_at is not None
    assert scene.ended_at - 4 * HOUR < 302


def test_a_market_that_is_open_and_refuses_is_tried_as_before() -> None:
    """Readings say that it is open: every half minute at the most seldom."""
    key = STOCKS[0]

    class Open(Wire):
        async def snapshot(self) -> AccountSnapshot:
            found = await super().snapshot()
            return structs.replace(
                found, instruments=tuple(structs.replace(each, state="open") for each in found.instruments or ())
            )

    scene = Scene({key: 10}, markets=closed(key), wire=Open)
    scene.at(600.0, lambda: turn(scene, "open"))
    scene.decide({key: 0})
    assert scene.play() == {"d1": "flat"}
    assert 20 <= len(scene.entries("rejected")) <= 40


def test_a_person_is_told_once_what_it_waits_for() -> None:
    """After half a minute, in words that stay the same until the opening."""
    scene = Scene(dict.fromkeys(STOCKS[:2], 10), markets=closed(*STOCKS[:2]))
    scene.at(HOUR, lambda: turn(scene, "open"))
    scene.decide(dict.fromkeys(STOCKS[:2], 0))
    scene.play(patience=2 * HOUR)
    assert scene.told == {"S00, S01 wait for the market to open: until then orders are refused (market_closed)"}


# Orders that rest until the opening


def test_queued_orders_are_asked_about_one_every_twenty_seconds() -> None:
    """20 orders held by the broker for an hour: 3 questions a minute for all of them, and a look every ten seconds."""
    scene = Scene(dict.fromkeys(STOCKS, 10), markets=closed(*STOCKS), exchange=Broker)
    seen: list[tuple[int, int]] = []
    scene.at(HOUR, lambda: seen.append((scene.calls("find_order", 60.0), scene.calls("snapshot", 60.0))))
    scene.decide(dict.fromkeys(STOCKS, 0))
    scene.at(HOUR, scene.exchange.open)  # type: ignore[attr-defined] # a Broker
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    (asked, looks), minutes = seen[0], 59
    assert 2.5 * minutes <= asked <= 3 * minutes + 1
    assert 5 * minutes <= looks <= 6 * minutes + 1
    assert len(scene.entries("acknowledged")) == len(STOCKS)
    assert scene.told == {
        ", ".join(key[0] for key in STOCKS) + " wait for the market to open: the venue has the orders"
    }


def test_queued_orders_are_asked_about_at_once_when_a_tick_shows_the_opening() -> None:
    """Flat two seconds after the tick, though the next question was far off."""
    scene = Scene({STOCKS[0]: 10}, markets=closed(STOCKS[0]), exchange=Broker)
    scene.decide({STOCKS[0]: 0})
    scene.at(HOUR + 1.0, scene.exchange.open)  # type: ignore[attr-defined] # a Broker
    scene.at(HOUR + 2.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed))
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    assert scene.ended_at is not None
    assert scene.ended_at < HOUR + 4


@pytest.fixture(params=["position", "order"])
def happening(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a reading shows of an order that rests while its market is halted."""
    yield request.param


def test_what_a_reading_shows_of_a_resting_order_is_asked_about_at_once(happening: str) -> None:
    """The position is another, or the order is gone, with the market still halted: one question with the reading."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=closed(key), exchange=Broker)
    asked: list[int] = []

    def happens() -> None:
        asked.append(scene.calls("find_order"))
        if happening == "position":
            scene.exchange.trade(key, Decimal(-4))
        else:
            scene.exchange.cancel(scene.orders()[0].id)
        scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed)

    # The last question was asked at 100 s, and the next one is due at 120 s.
    scene.at(101.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed))
    scene.at(105.0, happens)
    scene.at(107.0, lambda: asked.append(scene.calls("find_order")))
    scene.decide({key: 0})
    scene.play(patience=110)
    # Of one that is gone another is sent in its place, and asked about once.
    assert asked[1] - asked[0] == {"position": 1, "order": 2}[happening]


def test_a_limit_that_rests_in_a_halt_is_called_back_and_asked_about_with_it() -> None:
    """Its cancel is not sent every second; once it is gone, the line waits for the opening with no order out."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=[Market(key[0], state="post_only")])
    scene.at(1.0, lambda: turn(scene, "halted"))
    scene.at(HOUR, lambda: turn(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR) == {"d1": "flat"}
    assert scene.calls("cancel") <= 3
    assert len(scene.entries("rejected")) <= 4


class Desk:
    """Has every order, untouched, but for those in `filled`; writes down what it was asked about, and when."""

    def __init__(self, time: VirtualTime) -> None:
        self.asked: list[tuple[float, str]] = []
        self.filled = set[str]()
        self._time = time

    async def find_order(self, symbol: str, name: str) -> OrderReport:
        self.asked.append((self._time.elapsed, name))
        if name in self.filled:
            return OrderReport("v1", name, symbol, "filled", Decimal(4), Decimal(4), average_price=Decimal(10))
        return OrderReport("v1", name, symbol, "open", Decimal(4), ZERO)


def asking_of(desk: Desk, time: VirtualTime, traits: VenueTraits, halted: frozenset[str]) -> OrderQuery:
    venue = cast(VenueAdapter, desk)
    budget = RequestBudgets().of("main", "v", traits)
    context = AccountContext("main", venue, time, ClosingPace(), lambda _: None, budget, Breaker())
    return OrderQuery(context, lambda line: line.symbol in halted)


def about(time: VirtualTime, symbol: str, state: TargetState) -> OrderQuestion:
    line = PositionTarget("d1", "main", symbol, "long", "sell", ZERO, Decimal(4), Decimal(4), True, 1, 0)
    return OrderQuestion(line, f"o-{symbol}", 1, "v1", Decimal(4), time.now(), state)


def test_orders_of_unknown_fate_are_asked_about_before_those_that_rest() -> None:
    """One question fits into the budget: it is about the order of which nobody knows, whatever rests beside it."""
    traits = VenueTraits(limits=(RateLimit("requests", 1, 60.0),), costs=(Cost("find_order", "requests", 1),))
    time = VirtualTime()
    desk = Desk(time)
    asking = asking_of(desk, time, traits, frozenset({"S00"}))
    time.run(asking.query([about(time, "S00", TargetState.WORKING), about(time, "S01", TargetState.UNKNOWN)]))
    assert [name for _, name in desk.asked] == ["o-S01"]


def test_each_order_that_rests_has_its_turn() -> None:
    """Three orders: each at once when it is new, and then one of them every 20 s, so that each is asked about."""
    time = VirtualTime()
    desk = Desk(time)
    asking = asking_of(desk, time, VenueTraits(), frozenset({"S00", "S01", "S02"}))
    resting = [about(time, symbol, TargetState.WORKING) for symbol in ("S00", "S01", "S02")]

    async def a_minute() -> None:
        for _ in range(80):
            await asking.query(resting)
            await time.sleep(1.0)

    time.run(a_minute())
    assert [at for at, _ in desk.asked] == pytest.approx([0, 0, 0, 20, 40, 60], abs=0.01)
    assert sorted(name for _, name in desk.asked[3:]) == ["o-S00", "o-S01", "o-S02"]


def test_where_one_that_rested_has_been_filled_the_others_are_asked_about_with_it() -> None:
    """No reading has shown the opening yet, and the answer about one order does."""
    time = VirtualTime()
    desk = Desk(time)
    asking = asking_of(desk, time, VenueTraits(), frozenset({"S00", "S01", "S02"}))
    resting = [about(time, symbol, TargetState.WORKING) for symbol in ("S00", "S01", "S02")]

    async def opening() -> None:
        await asking.query(resting)
        await time.sleep(20.5)
        desk.filled = {"o-S00", "o-S01", "o-S02"}
        await asking.query(resting)

    time.run(opening())
    assert sorted(name for _, name in desk.asked[3:]) == ["o-S00", "o-S01", "o-S02"]
