"""When passes start: at once after a decision, at once after one another, and never delayed by another account."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import ScopeRule
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import Cost, OrderReport, OrderRequest, RateLimit, VenueTraits
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.observers import Observer, TickReport
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.virtual_time import VirtualTime

TRIP = 0.04
"""Seconds that each request takes."""
ORDERS = 5
"""Positions of each account."""
EVERY = 2.0
"""The venue takes one order in so many seconds."""
LIMITED = VenueTraits((RateLimit("orders", 1, EVERY),), (Cost("submit", "orders", each=1),))


class DistantVenue(ScriptedVenue):
    """A ScriptedVenue with network latency: which requests it got, and when; it may stop answering."""

    def __init__(self, time: VirtualTime, account: str, traits: VenueTraits = LIMITED) -> None:
        super().__init__(wide("1000", account), account)
        self.time = time
        self.traits = traits
        self.mute_reading = False
        self.mute_orders = False
        self.sent_at: list[float] = []

    async def snapshot(self) -> AccountSnapshot:
        await self._trip(mute=self.mute_reading)
        return await super().snapshot()

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent_at.append(self.time.monotonic())
        await self._trip(mute=self.mute_orders)
        return await super().submit(request)

    async def _trip(self, *, mute: bool) -> None:
        await asyncio.sleep(TRIP)
        if mute:
            await asyncio.Event().wait()

    def falls(self) -> None:
        self.answer = wide("850", self.account)


def wide(equity: str, name: str) -> AccountSnapshot:
    """The book of the runner's world, its one position as five equal ones."""
    one = book(equity, name)
    assert one.positions is not None
    assert one.instruments is not None
    symbols = [f"C{number}" for number in range(ORDERS)]
    positions = tuple(replace(one.positions[0], symbol=symbol) for symbol in symbols)
    instruments = tuple(replace(one.instruments[0], symbol=symbol) for symbol in symbols)
    return replace(one, positions=positions, instruments=instruments)


class Site:
    """Runners over distant venues in virtual time, each account on a venue of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))

    def runner(self, *venues: DistantVenue, read_timeout: float = 0.5, observers: tuple[Observer, ...] = ()) -> Runner:
        graph = replace(crash_policy(), scope=ScopeRule("portfolio", None, None, None, None))
        accounts = {
            each.account: ArmedAccount(each.account, each.account, "swap", "USDT", each, armed=True) for each in venues
        }
        return assemble(
            graphs.policy_set(graph), accounts, self.store, self.time, RunnerPace(1.0, read_timeout, stop_timeout=0.5),
            live=True, locks=LockPaths(self.folder / "locks", None), observers=observers,
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def assert_at_the_venues_own_pace(venue: DistantVenue) -> None:
    """Each order left as soon as the answer to the previous one was `EVERY` seconds old, give or take a round trip."""
    assert len(venue.sent_at) == ORDERS
    for number, sent_at in enumerate(venue.sent_at):
        due = venue.sent_at[0] + number * (EVERY + TRIP)
        assert sent_at == pytest.approx(due, abs=ORDERS * TRIP), f"order {number} of {venue.account}"


async def decided(site: Site, runner: Runner, *venues: DistantVenue) -> TickReport:
    """Start, poll the accounts whole, and tick again after all of them have fallen."""
    await runner.start()
    await runner.tick()
    for venue in venues:
        venue.falls()
    await site.time.sleep(1.0)
    report = await runner.tick()
    assert report.acting_on
    return report


def test_c14_a_venue_that_answers_no_order_delays_no_other_account(site: Site) -> None:
    """C14: one venue swallows every order; the other's leave as its own limit has room, through the whole loop."""
    slow, quick = DistantVenue(site.time, "slow"), DistantVenue(site.time, "quick")

    async def story() -> None:
        runner = site.runner(slow, quick)
        slow.mute_orders = True
        await decided(site, runner, slow, quick)
        await runner.run(asyncio.Event(), ticks=12)

    site.time.run(story())
    assert_at_the_venues_own_pace(quick)
    assert quick.answer == replace(quick.answer, positions=())


def test_c14_a_venue_that_cannot_be_polled_delays_no_other_account(site: Site) -> None:
    """C14: while a tick waits ten seconds for one venue's snapshot, the other account's orders leave in time."""
    silent, quick = DistantVenue(site.time, "silent"), DistantVenue(site.time, "quick")

    async def story() -> None:
        runner = site.runner(silent, quick, read_timeout=10.0)
        await decided(site, runner, silent, quick)
        silent.mute_reading = True
        await runner.run(asyncio.Event(), ticks=3)

    site.time.run(story())
    assert_at_the_venues_own_pace(quick)


def test_the_first_orders_leave_at_the_instant_of_the_decision_before_any_observer_is_notified(site: Site) -> None:
    """No sleep of ours lies between the commit and the orders; observers are notified after they have left."""
    venue = DistantVenue(site.time, "main", VenueTraits())
    notified: list[tuple[float, int]] = []

    class Watching:
        def ticked(self, report: TickReport) -> None:
            if report.acting_on:
                notified.append((site.time.monotonic(), len(venue.sent_at)))

    async def story() -> float:
        runner = site.runner(venue, observers=(Watching(),))
        await runner.start()
        await runner.tick()
        venue.falls()
        await site.time.sleep(1.0)
        begun = site.time.monotonic()
        await runner.tick()
        await runner.finish()
        return begun

    begun = site.time.run(story())
    # The tick polls for one round trip; everything after that takes no time on this timeline but requests.
    assert venue.sent_at[0] in (pytest.approx(begun + TRIP), pytest.approx(begun + 2 * TRIP))
    assert notified[0][1] == ORDERS


def test_closing_without_ticks_uses_the_venues_pace_and_reports_whether_it_is_done(site: Site) -> None:
    """A command that ticks once closes as fast as a runner does, and stops at its timeout."""
    venue = DistantVenue(site.time, "main")

    async def story() -> tuple[bool, bool]:
        runner = site.runner(venue)
        await decided(site, runner, venue)
        early = await runner.close_within(EVERY)
        late = await runner.close_within(60.0)
        await runner.finish()
        return early, late

    assert site.time.run(story()) == (False, True)
    assert_at_the_venues_own_pace(venue)


def test_ticks_continue_while_a_pass_hangs_on_a_clock_that_only_the_runner_advances(tmp_path: Path) -> None:
    """In a demo only the runner lets time pass: a pass that waits for its venue must not stop the clock for all."""
    world = World(tmp_path)
    venue = ScriptedVenue(book("1000"))

    async def hang(request: OrderRequest) -> OrderReport:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> int:
        reports: list[TickReport] = []

        class Watching:
            def ticked(self, report: TickReport) -> None:
                reports.append(report)

        venue.submit = hang  # type: ignore[method-assign]  # the fault
        pace = RunnerPace(interval=0.05, read_timeout=0.5, stop_timeout=0.05)
        runner = world.runner(world.open(), [venue], pace=pace, witnesses=(Watching(),))
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        await world.clock.sleep(1.0)
        await runner.run(asyncio.Event(), ticks=4)
        return len(reports)

    try:
        assert asyncio.run(story()) == 5
    finally:
        world.close()
