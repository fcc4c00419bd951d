"""Catastrophe stops of a run at an honest exchange behind a wire that fails: in step, never too large, never left."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.audit.restoring import back_up, restore
from killswitch.graph.nodes import CatastropheStopRule, PolicySet, StopTwin, TimerRule
from killswitch.journal.codec import decode_all
from killswitch.journal.entries import Acknowledged, Cancelled, Protected
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Order, Position
from killswitch.model.venue import (
    Call,
    ConditionalOrderRule,
    Cost,
    DeadManRule,
    OrderLife,
    OrderReport,
    OrderRequest,
    RateLimit,
    VenueDescription,
    VenueTimer,
    is_catastrophe_stop,
)
from killswitch.model.words import Place
from killswitch.operations.commands import operator_event
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.dead_man.catastrophe_stops import LIVE_NAME, StopsError, require_stops, stop_views
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Mishaps, Rule, Script
from tests.faults.wire import Wire
from tests.runner_world import Seen, crash_policy
from tests.virtual_time import VirtualTime

D = Decimal
LONG: Key = ("BTC", "long")
SHORT: Key = ("BTC", "short")
PACE = RunnerPace(1.0, 0.5, stop_timeout=0.5)
OFFERING = VenueDescription(
    order_life=OrderLife(always=1.0), conditional_orders=ConditionalOrderRule(("mark", "index", "last"))
)


def rule(**more: Any) -> CatastropheStopRule:
    place = Place("stops.yaml", 3, 12, "")
    return replace(CatastropheStopRule("far", ("main",), None, D("0.2"), "mark", None, D("0.1"), "none", place), **more)


class EntryWire(Wire):
    """A wire whose venue states that every position was entered at 100."""

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        entered = (replace(each, entry_price=D(100)) for each in found.positions or ())
        return found if found.positions is None else replace(found, positions=tuple(entered))


class Site:
    """One exchange, one store, and runners on both in virtual time; every state after a tick is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()
        self.exchange = Exchange({LONG: D(10)}, lambda: (self.time.elapsed, self.time.now()), markets=[Market("BTC")])

    def runner(self, mishaps: Mishaps | None = None, **more: Any) -> Runner:
        wire = more.pop("wire", EntryWire)(self.exchange, self.time, mishaps, traits=OFFERING)
        rules = more.pop("rules", (rule(),))
        policies = replace(graphs.policy_set(crash_policy()), stops=rules)
        accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", wire, armed=True)}
        return assemble(
            policies, accounts, self.store, self.time, PACE, live=True, observers=(self.seen,), timers=True,
            locks=LockPaths(self.folder / "locks", None),
        )  # fmt: skip

    def run(self, runner: Runner, ticks: int, changes: Mapping[int, Callable[[], object]] | None = None) -> None:
        """Run, with changes by others half a second after the tick of their number; checks the stops all the time."""

        async def play() -> None:
            running = asyncio.ensure_future(runner.run(asyncio.Event(), ticks))
            for tick in range(ticks):
                await asyncio.sleep(0.5)
                (changes or {}).get(tick, lambda: None)()
                await asyncio.sleep(0.5)
            await running

        self.time.run(play())

    def stops(self) -> list[tuple[str, Decimal, Decimal | None]]:
        """Side, amount and trigger of the resting stops of ours."""
        return [
            (each.side, each.amount, each.trigger_price)
            for each in self.exchange.resting()
            if is_catastrophe_stop(each.client_order_id)
        ]

    def notices(self) -> list[tuple[str, str]]:
        return [
            (each.severity, each.text)
            for report in self.seen.reports
            for each in report.notices
            if "catastrophe stop" in each.text
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def test_a_stop_is_placed_journaled_and_left_when_the_runner_ends(site: Site) -> None:
    """10 from an entry of 100 has a stop for 10 at 80, by the mark; a clean stop leaves it at the venue."""
    site.run(site.runner(), 3)
    assert site.stops() == [("sell", D(10), D(80))]
    (order,) = [it for it in site.exchange.orders.values() if it.waits]
    assert order.reduce_only
    assert order.name is not None
    kinds = [type(each) for each in decode_all(site.store.journal(order.name[2:22]))]
    assert kinds == [Protected, Acknowledged]
    assert site.notices() == []
    ((view),) = stop_views(site.store.live(LIVE_NAME))
    assert (view.symbol, view.side, view.contracts, view.covered, view.trigger) == ("BTC", "long", D(10), D(10), D(80))


def test_a_restart_finds_its_stop_and_places_no_second_one(site: Site) -> None:
    site.run(site.runner(), 3)
    site.run(site.runner(), 3)
    assert site.stops() == [("sell", D(10), D(80))]
    assert site.notices() == []


def test_after_a_restore_no_stop_has_the_id_of_one_of_the_lost_time(site: Site) -> None:
    """The backup knows of none: its first stop would have the id of the one that was placed and cancelled since."""
    lost = site.folder / "lost"
    back_up(site.folder / "store.sqlite", lost)
    site.run(site.runner(), 5, {2: lambda: site.exchange.trade(LONG, D(-10))})
    site.store.close()
    old = {each.name for each in site.exchange.orders.values() if is_catastrophe_stop(each.name)}
    assert old and site.stops() == []
    restore(lost, site.folder / "restored.sqlite", "ingrid", "the disk failed", site.time.now())
    site.store = open_store(str(site.folder / "restored.sqlite"))
    site.exchange.trade(LONG, D(10))
    site.run(site.runner(), 5)
    assert [amount for _, amount, _ in site.stops()] == [D(10)]
    sent = {each.client_order_id for each in site.store.journal() if each.kind == "protected"}
    assert sent and old.isdisjoint(sent)


def test_a_stop_follows_the_quantity_and_never_the_mark(site: Site) -> None:
    """The mark rises to 150 and the stop stays at 80; 4 of 10 are sold, and a stop for 6 takes its place."""
    site.run(site.runner(), 6, {1: lambda: site.exchange.reprice("BTC", D(150))})
    assert site.stops() == [("sell", D(10), D(80))]
    site.run(site.runner(), 5, {1: lambda: site.exchange.trade(LONG, D(-4))})
    assert site.stops() == [("sell", D(6), D(80))]
    assert any(isinstance(each, Cancelled) for each in decode_all(site.store.journal()))


def test_no_stop_is_left_when_the_position_is_flat(site: Site) -> None:
    site.run(site.runner(), 6, {2: lambda: site.exchange.trade(LONG, D(-10))})
    assert site.stops() == []


def test_a_flip_cancels_the_old_stop_first(site: Site) -> None:
    """Long 10 becomes short 4: the sale at 80 goes, a purchase at 120 comes, and both never rest together."""

    def flip() -> None:
        site.exchange.trade(LONG, D(-10))
        site.exchange.trade(SHORT, D(4))

    together: list[int] = []
    site.exchange.watchers.append(lambda: together.append(len(site.stops())))
    site.run(site.runner(), 6, {2: flip})
    assert site.stops() == [("buy", D(4), D(120))]
    assert max(together) == 1


def test_a_stop_that_has_just_filled_is_seen_before_the_next_order(site: Site) -> None:
    """The price falls through the stop: it closes the position, and nothing is placed again."""
    site.run(site.runner(), 6, {2: lambda: site.exchange.reprice("BTC", D(79))})
    assert site.exchange.held[LONG] == 0
    assert site.stops() == []
    assert sum(1 for it in site.exchange.orders.values() if is_catastrophe_stop(it.name)) == 1


class EarlierPositionsWire(EntryWire):
    """A venue whose positions are one poll older than its orders, and whose fills are later still."""

    _positions: tuple[Position, ...] | None = None

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        before, self._positions = self._positions, found.positions
        return replace(found, positions=before or found.positions, fills=())


def test_a_stop_that_the_venue_reports_as_filled_is_followed_by_none_for_the_old_position(site: Site) -> None:
    """The list lacks it, and its query has the fill; the positions of that snapshot are those before the fill."""
    site.run(site.runner(wire=EarlierPositionsWire), 10, {3: lambda: site.exchange.reprice("BTC", D(79))})
    assert site.exchange.held[LONG] == 0
    assert sum(each.kind == "protected" for each in site.store.journal()) == 1


class ForgetfulListWire(EntryWire):
    """A venue whose lists of open orders are empty from the fourth poll on, for two polls."""

    polls = 0

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        self.polls += 1
        return replace(found, orders=()) if self.polls in (4, 5) else found

    async def open_orders(self) -> tuple[Order, ...]:
        found = await super().open_orders()
        return () if self.polls in (4, 5) else found


def test_a_stop_that_a_list_leaves_out_and_a_query_finds_open_gets_no_second_one(site: Site) -> None:
    site.run(site.runner(wire=ForgetfulListWire), 10)
    assert site.stops() == [("sell", D(10), D(80))]
    assert sum(each.kind == "protected" for each in site.store.journal()) == 1


MISHAPS: list[Mishap] = [
    "down",
    "limited",
    "lost",
    "late",
    "done",
    "garbled",
    "silent",
    "done_silent",
    "slow",
    "twice",
    "defect",
]


@pytest.mark.parametrize("call", ["submit", "cancel", "find_order", "open_orders"])
@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_fault_leaves_the_stop_in_step(call: Call, mishap: Mishap, site: Site) -> None:
    """One request of each kind fails: never more than the position, in step when answers are back, never left."""
    runner = site.runner(Script(Rule(call, mishap), Rule(call, mishap, after=2)))
    exceeded: list[Decimal] = []

    def look() -> None:
        held = sum(site.exchange.held.values(), D(0))
        resting = sum((amount for _, amount, _ in site.stops()), D(0))
        exceeded.append(resting - held)

    site.run(
        runner, 40,
        {3: lambda: site.exchange.trade(LONG, D(-4)), 20: lambda: site.exchange.trade(LONG, D(6)),
         **dict.fromkeys((12, 16, 19, 30, 36), look)},
    )  # fmt: skip
    assert site.stops() in ([("sell", D(12), D(80))], [("sell", D(6), D(80)), ("sell", D(6), D(80))])
    assert max(exceeded) <= 0
    site.run(site.runner(), 4, {1: lambda: site.exchange.trade(LONG, D(-12))})
    assert site.stops() == []


def test_a_reached_stop_pages_or_closes_as_declared(site: Site) -> None:
    """The mark is at 79 when the run begins, and the entry was 100: no stop can be placed any more."""
    site.exchange.reprice("BTC", D(79))
    site.run(site.runner(), 3)
    assert site.stops() == []
    assert site.exchange.held[LONG] == 10


def test_if_refused_exit_closes_that_position_and_no_other(site: Site) -> None:
    """The stop of BTC is reached before the run begins: it is closed as by hand, and ETH keeps its stop."""
    site.exchange.held[("ETH", "long")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    site.exchange.reprice("BTC", D(79))
    site.run(site.runner(rules=(rule(if_refused="exit"),)), 8)
    assert site.exchange.held == {LONG: D(0), ("ETH", "long"): D(5)}
    assert site.stops() == [("sell", D(5), D(80))]
    (closed,) = [each for each in site.store.decisions(10) if each.decision.kind == "manual"]
    assert closed.decision.author == "catastrophe stop far"
    assert closed.decision.reason == "no stop could be placed: the mark 79 is at the trigger 80.0 already"


def test_a_filled_stop_of_a_leg_closes_the_other_leg_once(site: Site) -> None:
    """Legs of two bases with `pairs: accept`: BTC falls through its stop, and ETH is closed by a command."""
    site.exchange.held[("ETH", "short")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    legs = (StopTwin("main", "BTC", "main", "ETH"), StopTwin("main", "ETH", "main", "BTC"))
    site.run(site.runner(rules=(rule(apart=legs),)), 10, {3: lambda: site.exchange.reprice("BTC", D(79))})
    assert site.exchange.held == {LONG: D(0), ("ETH", "short"): D(0)}
    assert site.stops() == []
    (closed,) = [each for each in site.store.decisions(10) if each.decision.kind == "manual"]
    assert closed.decision.reason == "its stop has closed BTC of main, the other leg of a hedge"


def test_the_other_leg_is_closed_in_the_tick_that_sees_the_fill(site: Site) -> None:
    """The first snapshot with the fill of the stop is the one by which the other leg is closed, and no later one."""
    site.exchange.held[("ETH", "short")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    legs = (StopTwin("main", "BTC", "main", "ETH"),)
    site.run(site.runner(rules=(rule(apart=legs),)), 10, {3: lambda: site.exchange.reprice("BTC", D(79))})
    first = next(
        report.snapshot
        for report in site.seen.reports
        for account in report.snapshot.accounts
        if any(fill.symbol == "BTC" for fill in account.fills or ())
    )
    (closed,) = [each for each in site.store.decisions(10) if each.decision.kind == "manual"]
    assert closed.decision.as_of == first.as_of


def test_a_fill_that_is_shown_for_minutes_closes_the_other_leg_once_across_a_restart(site: Site) -> None:
    site.exchange.held[("ETH", "short")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    legs = (StopTwin("main", "BTC", "main", "ETH"),)
    site.run(site.runner(rules=(rule(apart=legs),)), 8, {3: lambda: site.exchange.reprice("BTC", D(79))})
    site.exchange.trade(("ETH", "short"), D(3))
    site.run(site.runner(rules=(rule(apart=legs),)), 6)
    assert site.exchange.held["ETH", "short"] == 3
    assert len([each for each in site.store.decisions(10) if each.decision.kind == "manual"]) == 1


class NamelessWire(EntryWire):
    """A venue at which the order that a stop becomes has an id of its own, and no client order id."""

    async def snapshot(self) -> AccountSnapshot:
        found = await super().snapshot()
        fills = tuple(replace(each, order=f"became-{each.order}", client_order_id=None) for each in found.fills or ())
        return found if found.fills is None else replace(found, fills=fills)


def test_a_stop_that_ended_as_another_order_is_queried_and_the_other_leg_is_closed(site: Site) -> None:
    """Its fills do not show that they are of a stop: it is missing among the open orders, and the venue is asked."""
    site.exchange.held[("ETH", "short")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    legs = (StopTwin("main", "BTC", "main", "ETH"),)
    runner = site.runner(rules=(rule(apart=legs),), wire=NamelessWire)
    site.run(runner, 10, {3: lambda: site.exchange.reprice("BTC", D(79))})
    assert site.exchange.held == {LONG: D(0), ("ETH", "short"): D(0)}
    (closed,) = [each for each in site.store.decisions(10) if each.decision.kind == "manual"]
    assert closed.decision.reason == "its stop has closed BTC of main, the other leg of a hedge"


def test_a_stop_that_cannot_be_queried_for_minutes_is_not_forgotten(site: Site) -> None:
    """The venue answers no query of an order for two and a half minutes: an error is no answer that there is none."""
    site.exchange.held[("ETH", "short")] = D(5)
    site.exchange.markets["ETH"] = Market("ETH")
    legs = (StopTwin("main", "BTC", "main", "ETH"),)
    down = Script(Rule("find_order", "down", times=10_000, after=0))
    changes: dict[int, Callable[[], object]] = {3: lambda: site.exchange.reprice("BTC", D(79)), 153: down.rules.clear}
    site.run(site.runner(down, rules=(rule(apart=legs),), wire=NamelessWire), 200, changes)
    assert site.exchange.held == {LONG: D(0), ("ETH", "short"): D(0)}
    (closed,) = [each for each in site.store.decisions(10) if each.decision.kind == "manual"]
    assert closed.decision.reason == "its stop has closed BTC of main, the other leg of a hedge"


def test_a_stop_that_was_found_filled_before_a_kill_closes_the_other_leg_in_the_next_run(site: Site) -> None:
    """The pass that finds it filled also places a stop, and the process is killed at that request: what the pass has
    found must be in the record that was stored before it."""
    site.exchange.held |= {("ETH", "short"): D(5), ("SOL", "long"): D(5)}
    site.exchange.markets |= {"ETH": Market("ETH"), "SOL": Market("SOL")}
    legs = (StopTwin("main", "BTC", "main", "ETH"),)
    killed = site.folder / "killed.sqlite"

    class KilledWire(NamelessWire):
        async def submit(self, request: OrderRequest) -> OrderReport:
            if request.symbol == "SOL" and site.exchange.held[LONG] == 0:
                with sqlite3.connect(site.folder / "store.sqlite") as source, sqlite3.connect(killed) as copy:
                    source.backup(copy)
            return await super().submit(request)

    def change() -> None:
        site.exchange.reprice("BTC", D(79))
        site.exchange.trade(("SOL", "long"), D(5))

    site.run(site.runner(rules=(rule(apart=legs),), wire=KilledWire), 10, {3: change})
    site.store.close()
    site.store = open_store(str(killed))
    assert not site.store.decisions(10)
    site.exchange.held["ETH", "short"] = D(5)  # as it was then
    site.run(site.runner(rules=(rule(apart=legs),), wire=NamelessWire), 8)
    assert site.exchange.held["ETH", "short"] == 0
    assert len(site.store.decisions(10)) == 1


class MeteredWire(EntryWire):
    """A venue with few requests for conditional orders: what polls leave of half of them never suffices for a list."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        costs = (Cost("snapshot", "conditional", 3), Cost("open_orders", "conditional", 5))
        self.traits = replace(self.traits, limits=(RateLimit("conditional", 20, 2.0),), costs=costs)


def test_a_stop_is_in_step_although_polls_leave_no_room_for_a_list_of_orders(site: Site) -> None:
    """Nothing is being closed: the list is then read from the share of closing, within three ticks of the change."""
    found: list[object] = []
    changes: dict[int, Callable[[], object]] = {
        6: lambda: site.exchange.trade(LONG, D(-4)), 10: lambda: found.append(site.stops()),
    }  # fmt: skip
    site.run(site.runner(wire=MeteredWire), 12, changes)
    assert found == [[("sell", D(6), D(80))]]


def test_a_full_close_leaves_no_stop(site: Site) -> None:
    """The position is closed by hand while its stop rests: what is left is cancelled."""
    runner = site.runner()

    def command() -> None:
        event = operator_event("close", "account/main", "desk", "too large", site.time.now())
        site.store.put_event(replace(event, symbols=("BTC",)))

    site.run(runner, 10, {3: command})
    assert site.exchange.held[LONG] == 0
    assert site.stops() == []
    assert site.exchange.turned == []


def test_what_a_venue_cannot_hold_is_refused_before_the_first_tick() -> None:
    """No conditional orders, another price, or a timer of the venue that cancels stops: place, cause and way out."""
    time = VirtualTime()
    exchange = Exchange({LONG: D(10)}, lambda: (time.elapsed, time.now()))

    async def nothing(*_: object) -> None:
        return None

    def refusal(traits: VenueDescription, found: CatastropheStopRule, timer: DeadManRule | None = None) -> str:
        wire = Wire(exchange, time, traits=traits)
        wire.dead_man = None if timer is None else VenueTimer(timer, nothing, nothing)
        accounts = {"main": ArmedAccount("main", "kraken", "swap", "USDT", wire, armed=True)}
        switch = TimerRule("venue-timer", ("main",), 60 * SECOND, 20 * SECOND, True, found.place)
        policies: PolicySet = replace(graphs.policy_set(crash_policy()), stops=(found,), timers=(switch,))
        try:
            require_stops(policies, accounts)
        except StopsError as error:
            return str(error)
        return ""

    head = "stops.yaml:3:12: CatastropheStop far, account main: "
    mark = VenueDescription(conditional_orders=ConditionalOrderRule(("mark",)))
    assert refusal(mark, rule()) == ""
    assert refusal(VenueDescription(), rule()) == (
        f"{head}venue kraken has no conditional orders that can be placed; take the account out (KS3059)"
    )
    assert refusal(mark, rule(trigger="index")) == (
        f"{head}no index price triggers an order at venue kraken; write `trigger: mark` (KS3059)"
    )
    assert refusal(mark, rule(), DeadManRule("account", 1.0, takes_stops=False)) == ""
    for takes, may in ((True, "cancels"), (None, "may cancel")):
        assert refusal(mark, rule(), DeadManRule("account", 1.0, takes_stops=takes)) == (
            f"{head}the dead-man timer of the switch venue-timer {may} the stops when it goes off; take the account "
            "out of one of the two (KS3052)"
        )
