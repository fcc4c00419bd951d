"""Orders that wait for a market to open: few requests while they wait, and no delay once a snapshot shows it open."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.query.order_query import OrderQuery, OrderQuestion
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import AccountSnapshot, InstrumentState
from killswitch.model.venue import Cost, OrderReport, OrderRequest, RateLimit, VenueTraits
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import ZERO, Exchange, Key, Market, Placed
from tests.faults.scene import Scene
from tests.faults.statement import statement
from tests.faults.wire import Wire
from tests.runner_world import ScriptedVenue
from tests.virtual_time import VirtualTime

HOUR = 3600.0
WEEKEND = 65.5 * HOUR
"""From the close of Friday, 16:00 in New York, to the opening of Monday, 09:30."""
STOCKS: list[Key] = [(f"S{number:02}", "long") for number in range(20)]


class Broker(Exchange):
    """Accepts market orders while a market is halted, and holds them for the opening."""

    def admit(self, request: OrderRequest) -> None:
        market = self.markets[request.symbol]
        if market.state == "halted" and request.type == "market":
            return
        super().admit(request)

    def match(self, order: Placed) -> None:
        if self.markets[order.symbol].state != "halted":
            super().match(order)

    def open(self) -> None:
        """The opening auction: everything that was held is filled."""
        for market in self.markets.values():
            market.state = "open"
        for order in list(self.orders.values()):
            if order.state == "open":
                self.match(order)


class WithoutMarketStates(Wire):
    """A venue whose snapshots lack the markets' states."""

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        return replace(found, instruments=tuple(replace(each, state=None) for each in found.instruments or ()))


def halted_markets(*keys: Key) -> list[Market]:
    return [Market(symbol, state="halted") for symbol, _ in keys]


def set_states(scene: Scene, state: InstrumentState) -> None:
    """Every market has that state from now on."""
    for market in scene.exchange.markets.values():
        market.state = state


def ticks(scene: Scene, every: float, until: float) -> None:
    """The runner polls the account, and passes the snapshot to the closer."""

    def tick() -> None:
        scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed)

    for number in range(1, int(until / every)):
        scene.at(number * every, tick)


def test_each_position_is_refused_once_in_a_weekend() -> None:
    """4 positions refused on Friday: 8 entries, and none more before they leave with the poll after the opening."""
    # A poll every other minute, for there are 65 hours of them; tests below hold that it is one in ten seconds.
    rare_polls = ClosingPace(longest_sleep=120.0, idle_poll_interval=120.0)
    scene = Scene(dict.fromkeys(STOCKS[:4], 10), markets=halted_markets(*STOCKS[:4]), closing={"pace": rare_polls})
    written: list[int] = []
    scene.at(WEEKEND, lambda: written.append(len(scene.entries("sending", "rejected", "verified", "finished"))))
    scene.at(WEEKEND, lambda: set_states(scene, "open"))
    scene.decide(dict.fromkeys(STOCKS[:4], 0))
    assert scene.play(patience=WEEKEND + 600) == {"d1": "flat"}
    assert written == [2 * len(STOCKS[:4])]
    assert scene.ended_at is not None
    assert scene.ended_at - WEEKEND < 122


def test_an_order_leaves_within_one_tick_of_the_opening() -> None:
    """A tick each 5 s: the market opens, the next tick shows it, and the orders leave with it."""
    scene = Scene({STOCKS[0]: 10}, markets=halted_markets(STOCKS[0]))
    ticks(scene, 5.0, HOUR + 60)
    scene.at(HOUR + 1.0, lambda: set_states(scene, "open"))
    scene.decide({STOCKS[0]: 0})
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    (deed,) = scene.exchange.deeds
    assert HOUR + 1.0 < deed.at <= HOUR + 5.2


def test_a_second_decision_during_the_halt_is_tried_once_and_waits_too() -> None:
    """The level above decides on the same position an hour later: one refusal more, and flat at the opening."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key))
    scene.at(HOUR, lambda: scene.decide({key: 0}))
    scene.at(3 * HOUR, lambda: set_states(scene, "open"))
    scene.decide({key: 5})
    assert scene.play(patience=4 * HOUR) == {"d1": "flat", "d2": "flat"}
    assert len(scene.entries("rejected")) == 2
    assert scene.held(key) == [ZERO]


def test_a_trim_waits_for_the_opening_and_closes_what_was_decided() -> None:
    """Half of it was to be closed: that is done on Monday, and not given up on Friday."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key))
    scene.at(2 * HOUR, lambda: set_states(scene, "open"))
    scene.decide({key: 5})
    assert scene.play(patience=3 * HOUR) == {"d1": "flat"}
    assert scene.held(key) == [Decimal(5)]


def test_a_restart_does_not_retry_a_waiting_order() -> None:
    """Killed and started again while the market is closed: the journal has the reason of the wait."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key))
    scene.at(HOUR, lambda: set_states(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR, kills=[600.0, 1200.0]) == {"d1": "flat"}
    assert len(scene.entries("rejected")) == 1


def test_a_market_that_opens_for_limits_only_counts_as_open() -> None:
    """The extended session: a limit leaves with the snapshot that shows it."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key))
    scene.at(HOUR, lambda: set_states(scene, "limit_only"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR) == {"d1": "flat"}
    assert scene.orders()[0].type == "limit"
    assert scene.ended_at is not None
    assert scene.ended_at - HOUR < 12


def test_without_market_states_the_retry_interval_grows_to_five_minutes() -> None:
    """Twelve attempts an hour at the most, once it has lasted; and it closes within five minutes of the opening."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key), wire=WithoutMarketStates)
    scene.at(4 * HOUR, lambda: set_states(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=5 * HOUR) == {"d1": "flat"}
    late = [each for each in scene.entries("rejected") if (each.at - scene.time.start).total_seconds() > HOUR]
    assert 33 <= len(late) <= 3 * 12
    assert scene.ended_at is not None
    assert scene.ended_at - 4 * HOUR < 302


def test_an_open_market_that_refuses_is_retried_at_the_usual_interval() -> None:
    """Snapshots show it open: every half minute at the most seldom."""
    key = STOCKS[0]

    class Open(Wire):
        async def snapshot(self) -> AccountSnapshot:
            found = await super().snapshot()
            return replace(found, instruments=tuple(replace(each, state="open") for each in found.instruments or ()))

    scene = Scene({key: 10}, markets=halted_markets(key), wire=Open)
    scene.at(600.0, lambda: set_states(scene, "open"))
    scene.decide({key: 0})
    assert scene.play() == {"d1": "flat"}
    assert 20 <= len(scene.entries("rejected")) <= 40


def test_the_wait_is_reported_once() -> None:
    """After half a minute, in a text that stays the same until the opening."""
    scene = Scene(dict.fromkeys(STOCKS[:2], 10), markets=halted_markets(*STOCKS[:2]))
    scene.at(HOUR, lambda: set_states(scene, "open"))
    scene.decide(dict.fromkeys(STOCKS[:2], 0))
    scene.play(patience=2 * HOUR)
    waits = "waits for the market to open: until then orders are refused (market_closed)"
    assert scene.notices == {f"S00 {waits}", f"S01 {waits}"}, "each symbol, whatever others wait"


# Orders that rest until the opening


def test_one_queued_order_is_queried_every_twenty_seconds() -> None:
    """20 orders held by the broker for an hour: 3 queries a minute for all of them, and a poll every ten seconds."""
    scene = Scene(dict.fromkeys(STOCKS, 10), markets=halted_markets(*STOCKS), exchange=Broker)
    seen: list[tuple[int, int]] = []
    scene.at(HOUR, lambda: seen.append((scene.calls("find_order", 60.0), scene.calls("snapshot", 60.0))))
    scene.decide(dict.fromkeys(STOCKS, 0))
    scene.at(HOUR, scene.exchange.open)  # type: ignore[attr-defined] # a Broker
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    (queried, looks), minutes = seen[0], 59
    assert 2.5 * minutes <= queried <= 3 * minutes + 1
    assert 5 * minutes <= looks <= 6 * minutes + 1
    assert len(scene.entries("acknowledged")) == len(STOCKS)
    assert scene.notices == {f"{symbol} waits for the market to open: the venue has the order" for symbol, _ in STOCKS}


def test_queued_orders_are_queried_at_once_when_a_tick_shows_the_opening() -> None:
    """Flat two seconds after the tick, though the next query was far off."""
    scene = Scene({STOCKS[0]: 10}, markets=halted_markets(STOCKS[0]), exchange=Broker)
    scene.decide({STOCKS[0]: 0})
    scene.at(HOUR + 1.0, scene.exchange.open)  # type: ignore[attr-defined] # a Broker
    scene.at(HOUR + 2.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed))
    assert scene.play(patience=HOUR + 60) == {"d1": "flat"}
    assert scene.ended_at is not None
    assert scene.ended_at < HOUR + 4


@pytest.fixture(params=["position", "order"])
def change(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a snapshot shows of an order that rests while its market is halted."""
    yield request.param


def test_a_change_around_a_resting_order_is_queried_at_once(change: str) -> None:
    """The position differs, or the order is gone, with the market still halted: one query with the snapshot."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key), exchange=Broker)
    queried: list[int] = []

    def change_position_or_order() -> None:
        queried.append(scene.calls("find_order"))
        if change == "position":
            scene.exchange.trade(key, Decimal(-4))
        else:
            scene.exchange.cancel(scene.orders()[0].id)
        scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed)

    # The last query was sent at 100 s, and the next one is due at 120 s.
    scene.at(101.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed))
    scene.at(105.0, change_position_or_order)
    scene.at(107.0, lambda: queried.append(scene.calls("find_order")))
    scene.decide({key: 0})
    scene.play(patience=110)
    # An order that is gone is replaced by another, which is queried once.
    assert queried[1] - queried[0] == {"position": 1, "order": 2}[change]


def test_new_rules_of_a_market_that_stays_halted_are_no_opening() -> None:
    """A snapshot shows another minimum amount with the market still halted: the resting order is not queried."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=halted_markets(key), exchange=Broker)
    queried: list[int] = []

    def change_rules() -> None:
        queried.append(scene.calls("find_order"))
        scene.exchange.markets[key[0]].minimum = Decimal(1)
        scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed)

    # The last query was sent at 100 s, and the next one is due at 120 s.
    scene.at(101.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange), scene.time.elapsed))
    scene.at(105.0, change_rules)
    scene.at(107.0, lambda: queried.append(scene.calls("find_order")))
    scene.decide({key: 0})
    scene.play(patience=110)
    assert queried[1] == queried[0] > 0


def test_a_limit_that_rests_in_a_halt_is_cancelled_and_queried() -> None:
    """Its cancel is not sent every second; once it is gone, the position waits for the opening with no open order."""
    key = STOCKS[0]
    scene = Scene({key: 10}, markets=[Market(key[0], state="post_only")])
    scene.at(1.0, lambda: set_states(scene, "halted"))
    scene.at(HOUR, lambda: set_states(scene, "open"))
    scene.decide({key: 0})
    assert scene.play(patience=2 * HOUR) == {"d1": "flat"}
    assert scene.calls("cancel") <= 3
    assert len(scene.entries("rejected")) <= 4


class RestingOrders(ScriptedVenue):
    """Reports every order as open, except those in `filled`; records each query with its time."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(None)
        self.queried: list[tuple[float, str]] = []
        self.filled = set[str]()
        self._time = time

    async def find_order(self, symbol: str, name: str) -> OrderReport:
        self.queried.append((self._time.elapsed, name))
        if name in self.filled:
            return OrderReport("v1", name, symbol, "filled", Decimal(4), Decimal(4), average_price=Decimal(10))
        return OrderReport("v1", name, symbol, "open", Decimal(4), ZERO)


def order_query_of(venue: RestingOrders, time: VirtualTime, traits: VenueTraits, halted: frozenset[str]) -> OrderQuery:
    budget = RequestBudgets().of("main", "v", traits)
    context = AccountContext("main", venue, time, ClosingPace(), lambda _: None, budget, Breaker())
    return OrderQuery(context, lambda target: target.symbol in halted)


def query_for(time: VirtualTime, symbol: str, state: TargetState) -> OrderQuestion:
    target = PositionTarget("d1", "main", symbol, "long", "sell", ZERO, Decimal(4), Decimal(4), True, 1, 0)
    return OrderQuestion(target, f"o-{symbol}", 1, "v1", Decimal(4), time.now(), state)


def test_orders_of_unknown_status_are_queried_before_resting_ones() -> None:
    """The budget has room for one query: it is for the order of unknown status, not for the resting one."""
    traits = VenueTraits(limits=(RateLimit("requests", 1, 60.0),), costs=(Cost("find_order", "requests", 1),))
    time = VirtualTime()
    venue = RestingOrders(time)
    query = order_query_of(venue, time, traits, frozenset({"S00"}))
    time.run(query.query([query_for(time, "S00", TargetState.WORKING), query_for(time, "S01", TargetState.UNKNOWN)]))
    assert [name for _, name in venue.queried] == ["o-S01"]


def test_resting_orders_are_queried_in_turn() -> None:
    """Three orders: each at once when it is new, and then one of them every 20 s, so that each is queried."""
    time = VirtualTime()
    venue = RestingOrders(time)
    query = order_query_of(venue, time, VenueTraits(), frozenset({"S00", "S01", "S02"}))
    resting = [query_for(time, symbol, TargetState.WORKING) for symbol in ("S00", "S01", "S02")]

    async def queries_of_a_minute() -> None:
        for _ in range(80):
            await query.query(resting)
            await time.sleep(1.0)

    time.run(queries_of_a_minute())
    assert [at for at, _ in venue.queried] == pytest.approx([0, 0, 0, 20, 40, 60], abs=0.01)
    assert sorted(name for _, name in venue.queried[3:]) == ["o-S00", "o-S01", "o-S02"]


def test_the_fill_of_a_resting_order_triggers_queries_of_the_others() -> None:
    """No snapshot has shown the opening yet, and the answer about one order does."""
    time = VirtualTime()
    venue = RestingOrders(time)
    query = order_query_of(venue, time, VenueTraits(), frozenset({"S00", "S01", "S02"}))
    resting = [query_for(time, symbol, TargetState.WORKING) for symbol in ("S00", "S01", "S02")]

    async def opening() -> None:
        await query.query(resting)
        await time.sleep(20.5)
        venue.filled = {"o-S00", "o-S01", "o-S02"}
        await query.query(resting)

    time.run(opening())
    assert sorted(name for _, name in venue.queried[3:]) == ["o-S00", "o-S01", "o-S02"]
