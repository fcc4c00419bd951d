"""Dead-man timers at the venue: only healthy ticks refresh them, and none runs unasked over unprotected positions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import read_policies
from killswitch.accounts.poll.request_meter import RequestMeter, request_meters
from killswitch.engine.alerts import read_state
from killswitch.graph.nodes import TimerRule
from killswitch.model.inspection import Inspection, KeyRights
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order
from killswitch.model.store import ALERTS
from killswitch.model.venue import (
    Cost,
    DeadManRule,
    FateUnknownError,
    MalformedAnswerError,
    Push,
    RateLimit,
    VenueDownError,
    VenueTimer,
    VenueTraits,
)
from killswitch.model.words import Place
from killswitch.runner import assembly
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.dead_man.timer_record import LIVE_NAME, decode_record
from killswitch.runner.dead_man.timer_rules import TimerError, unprotected_symbols
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.status_blob import LIVE_NAME as STATUS
from killswitch.runner.status_blob import decode_view
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, Seen, book, crash_policy
from tests.virtual_time import VirtualTime

KRAKEN = DeadManRule("account", shortest=1.0, takes_stops=None, quiet_for_maintenance=True)
PLAIN = DeadManRule("account", shortest=5.0, longest=300.0, takes_stops=False)
HARSH = DeadManRule("account", shortest=5.0, takes_stops=True)
BY_SYMBOL = DeadManRule("symbol", shortest=1.0, takes_stops=False)


def flat(**more: Any) -> AccountSnapshot:
    """An account with no position and no order."""
    return worlds.account("1000", (), name="main", orders=more.pop("orders", ()), **more)


def held(*orders: Order) -> AccountSnapshot:
    """Ten contracts of BTC long, and the resting orders."""
    return replace(book("1000"), orders=orders)


STOP = Order("s1", "BTC", "sell", Decimal(10), trigger_price=Decimal(90), reduce_only=True)


class TimerVenue(ScriptedVenue):
    """A venue that keeps a dead-man timer as venues do: calls are recorded, and the timer fires by itself."""

    def __init__(self, time: VirtualTime, rule: DeadManRule | None, answer: AccountSnapshot, **traits: Any) -> None:
        super().__init__(answer, "main")
        self.time = time
        self.traits = VenueTraits(**traits)
        self.dead_man = None if rule is None else VenueTimer(rule, self.arm_dead_man, self.disarm_dead_man)
        self.calls: list[tuple[float, str, float, tuple[str, ...]]] = []
        self.fails: BaseException | None = None
        self.trip = 0.0
        self.runs_out: float | None = None

    def has_fired(self) -> bool:
        """Whether the timer has run out."""
        return self.runs_out is not None and self.time.monotonic() >= self.runs_out

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        self.calls.append((self.time.monotonic(), "arm", seconds, tuple(symbols)))
        if self.fails is not None:
            raise self.fails
        self.runs_out = self.time.monotonic() + seconds
        await asyncio.sleep(self.trip)

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        self.calls.append((self.time.monotonic(), "disarm", 0.0, tuple(symbols)))
        if self.fails is not None:
            raise self.fails
        self.runs_out = None

    def times_of(self, what: str) -> list[float]:
        """When the call was made, in whole seconds."""
        return [round(at) for at, call, *_ in self.calls if call == what]


class InspectableVenue(TimerVenue):
    """A venue whose status can be queried."""

    status: str | None = "ok"
    queries = 0

    async def inspect(self) -> Inspection:
        self.queries += 1
        return Inspection(self.status, None, KeyRights(), None, None, ())


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()
        self.meters: dict[str, RequestMeter] = {}
        """Those of the newest runner, by account."""

    def runner(self, venue: ScriptedVenue, *, timeout: float = 60.0, refresh: float = 20.0, accept: bool = False,
               armed: bool = True,
               timers: bool = True, pace: RunnerPace = RunnerPace(1.0, 0.5, stop_timeout=0.5)) -> Runner:  # noqa: B008 - frozen  # fmt: skip
        place = Place("switch.yaml", 3, 12, "")
        rule = TimerRule("venue-timer", ("main",), round(timeout * SECOND), round(refresh * SECOND), accept, place)
        policies = replace(graphs.policy_set(crash_policy()), timers=(rule,))
        accounts = {"main": ArmedAccount("main", "kraken", "swap", "USDT", venue, armed=armed)}
        return assemble(
            policies, accounts, self.store, self.time, pace, live=armed, observers=(self.seen,), timers=timers,
            locks=LockPaths(self.folder / "locks", None),
        )  # fmt: skip

    def run(self, runner: Runner, ticks: int) -> None:
        self.time.run(runner.run(asyncio.Event(), ticks))

    def notices(self, severity: str | None = None) -> list[str]:
        told = [notice for report in self.seen.reports for notice in report.notices]
        return [each.text for each in told if "dead-man" in each.text and severity in (None, each.severity)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path)

    def recorded(*args: Any) -> dict[str, RequestMeter]:
        made.meters = dict(request_meters(*args))
        return made.meters

    monkeypatch.setattr(assembly, "request_meters", recorded)
    yield made
    made.store.close()


def test_a_timer_is_started_refreshed_and_stopped_by_a_clean_stop(site: Site) -> None:
    """Started after the first tick, refreshed every 20 s with the full timeout, stopped at the end; all is reported."""
    venue = TimerVenue(site.time, PLAIN, flat())
    site.run(site.runner(venue), 46)
    assert venue.times_of("arm") == [0, 20, 40]
    assert {seconds for _, call, seconds, _ in venue.calls if call == "arm"} == {60.0}
    assert venue.times_of("disarm") == [45]
    assert venue.runs_out is None
    assert site.notices() == [
        "the dead-man timer of account main is running (60 s, refreshed every 20 s, by the switch venue-timer)"
    ]
    ((view),) = site.seen.reports[-1].runner.timers
    assert (view.account, view.switch, view.state) == ("main", "venue-timer", "armed")
    assert view.until is not None
    assert (view.until - site.time.start).total_seconds() == pytest.approx(100.0)
    assert view.refreshed_at is not None
    assert (view.refreshed_at - site.time.start).total_seconds() == pytest.approx(40.0)
    record = decode_record(site.store.live(LIVE_NAME))
    assert record.running == {}
    assert record.happenings[-1].text == "the dead-man timer of account main was stopped: the runner was stopped"


def test_the_next_run_reports_what_a_clean_stop_did(site: Site) -> None:
    """No tick follows a stop, so the first tick of the next run has the notice, once, with the time of the stop."""
    venue = TimerVenue(site.time, PLAIN, flat())
    site.run(site.runner(venue), 2)
    stopped = site.time.now()
    site.time.elapsed += 3600.0
    site.seen.reports.clear()
    site.run(site.runner(venue), 3)
    notices = [each for report in site.seen.reports for each in report.notices if "was stopped" in each.text]
    assert [(each.as_of, each.text) for each in notices] == [
        (stopped, "the dead-man timer of account main was stopped: the runner was stopped")
    ]


def test_after_a_clean_stop_the_status_shows_the_timer_as_off(site: Site) -> None:
    """The state of the last tick is no longer true: the runner has stopped the timer."""
    site.run(site.runner(TimerVenue(site.time, PLAIN, flat())), 3)
    assert [each.state for each in site.seen.reports[-1].runner.timers] == ["armed"]
    blob = site.store.live(STATUS)
    assert blob is not None
    (view,) = decode_view(blob).timers
    assert (view.state, view.until, view.refreshed_at, view.why) == ("off", None, None, "the runner was stopped")


def test_after_a_stop_that_did_not_reach_the_venue_the_status_shows_what_still_runs(site: Site) -> None:
    """The end of the timer is listed under problems too, since the run's last line is gone with the terminal."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for _ in range(3):
            await runner.tick()
            await site.time.sleep(1.0)
        venue.fails = VenueDownError("no route to host")
        await runner.finish()

    site.time.run(story())
    blob = site.store.live(STATUS)
    assert blob is not None
    view = decode_view(blob)
    assert [each.state for each in view.timers] == ["armed"]
    assert view.problems == runner.stop_problems
    assert "could not be stopped (it could not be stopped: no route to host): it fires at" in view.problems[0]


class TornStore:
    """A store that accepts no more ticks from some moment on."""

    def __init__(self, store: Any, good: int) -> None:
        self._store = store
        self._good = good

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit_tick(self, record: Any) -> None:
        self._good -= 1
        if self._good < 0:
            raise StoreError("the disk is full")
        self._store.commit_tick(record)


def test_a_crash_leaves_the_timer_running_and_it_fires(site: Site) -> None:
    """The 30th tick cannot be committed: nothing is refreshed or stopped after that, so the timer runs out."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)
    runner.store = TornStore(site.store, 29)
    with pytest.raises(StoreError):
        site.run(runner, 100)
    assert venue.times_of("arm") == [0, 20]
    assert venue.times_of("disarm") == []
    site.time.elapsed += 60
    assert venue.has_fired()


def test_a_tick_that_fails_does_not_refresh(site: Site) -> None:
    """The refresh is due at the very tick that cannot be committed: it is not sent."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)
    runner.store = TornStore(site.store, 20)
    with pytest.raises(StoreError):
        site.run(runner, 100)
    assert venue.times_of("arm") == [0]


def test_a_restart_reports_that_the_timer_has_fired_meanwhile(site: Site) -> None:
    """No runner refreshed it: the next run reports when it fired, and starts it anew."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)
    runner.store = TornStore(site.store, 3)
    with pytest.raises(StoreError):
        site.run(runner, 9)
    site.time.elapsed += 300
    site.seen.reports.clear()
    site.store.release(runner.lease.owner)
    site.run(site.runner(venue), 2)
    (page,) = site.notices("page")
    assert page.startswith("the dead-man timer of account main has fired at 2021-05-19T12:01:00")
    assert page.endswith("and the venue cancels the orders there: no runner refreshed it")
    assert len(venue.times_of("arm")) == 2


@pytest.mark.parametrize(
    ("rule", "timeout", "refresh", "expected"),
    [
        (None, 60.0, 20.0, "venue kraken has no timer that could be set"),
        (DeadManRule("connection", 1.0), 60.0, 20.0, "covers the orders of one connection only"),
        (DeadManRule("account", 10.0), 9.0, 3.0, "runs for at least 10 s"),
        (DeadManRule("account", 3.0, longest=300.0), 301.0, 60.0, "runs for at most 300 s"),
        (DeadManRule("account", 1.0), 10.0, 4.0, "a tick may come 11 s late"),
    ],
)  # fmt: skip
def test_w2_a_switch_that_the_venue_cannot_keep_is_refused_before_the_first_tick(
    site: Site, rule: DeadManRule | None, timeout: float, refresh: float, expected: str
) -> None:
    """With the place in the policy, the account, the cause and the way out; the lease is not even acquired."""
    venue = TimerVenue(site.time, rule, flat())
    pace = RunnerPace(1.0, 10.0) if expected.startswith("a tick") else RunnerPace(1.0, 0.5)
    with pytest.raises(TimerError) as refused:
        site.runner(venue, timeout=timeout, refresh=refresh, pace=pace)
    assert str(refused.value).startswith("switch.yaml:3:12: DeadMansSwitch venue-timer, account main: ")
    assert expected in str(refused.value)
    assert site.store.lease() is None
    assert venue.reads == 0


def test_an_account_that_is_not_armed_is_neither_refused_nor_touched(site: Site) -> None:
    """Live is armed twice: an observing run sets no timer."""
    venue = TimerVenue(site.time, PLAIN, flat())
    site.run(site.runner(venue, armed=False), 30)
    site.run(site.runner(TimerVenue(site.time, None, flat()), armed=False), 1)
    assert venue.calls == []


def test_a_command_that_ticks_once_changes_no_timer(site: Site) -> None:
    """It neither refuses to close for a wrong switch nor starts or stops the timers of a runner."""
    venue = TimerVenue(site.time, None, flat())
    site.run(site.runner(venue, timers=False), 2)
    assert venue.calls == []


@pytest.mark.parametrize("rule", [HARSH, DeadManRule("account", 5.0, takes_stops=None)])
def test_w2_protective_stops_keep_a_timer_from_starting_and_page(site: Site, rule: DeadManRule) -> None:
    """It would cancel the stop of an open position: refused in a page and in `status`."""
    venue = TimerVenue(site.time, rule, held(STOP))
    site.run(site.runner(venue), 30)
    assert venue.calls == []
    (page,) = site.notices("page")
    assert "cancel the protective orders of BTC and leave the position unprotected" in page
    assert "`accept_unprotected: true` would accept that" in page
    blob = site.store.live(STATUS)
    assert blob is not None
    assert [each.state for each in decode_view(blob).timers] == ["off"]


def test_w2_a_stop_that_is_placed_later_ends_the_timer_at_the_next_tick(site: Site) -> None:
    """Not at the next refresh: the book is checked after every tick; once the stop is gone the timer starts again."""
    venue = TimerVenue(site.time, HARSH, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(40):
            venue.answer = held(STOP) if 5 <= second < 30 else flat()
            await runner.tick()
            await site.time.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    site.time.run(story())
    assert venue.times_of("arm") == [0, 30]
    assert venue.times_of("disarm") == [5, 40]
    assert any("was stopped: it would cancel the protective orders of BTC" in text for text in site.notices("page"))


def test_accepted_or_unaffected_stops_do_not_keep_a_timer_from_starting(site: Site) -> None:
    """A policy may accept it; and a venue whose timer leaves conditional orders alone removes nothing."""
    accepted, harmless = TimerVenue(site.time, HARSH, held(STOP)), TimerVenue(site.time, PLAIN, held(STOP))
    site.run(site.runner(accepted, accept=True), 2)
    site.run(site.runner(harmless), 2)
    assert (len(accepted.times_of("arm")), len(harmless.times_of("arm"))) == (1, 1)


@pytest.mark.parametrize(
    ("order", "bare"),
    [
        (STOP, ("BTC",)),
        (Order("l1", "BTC", "sell", Decimal(10), price=Decimal(120), reduce_only=True), ("BTC",)),
        (Order("e1", "BTC", "buy", Decimal(10), price=Decimal(90)), ()),
        (Order("e2", "BTC", "buy", Decimal(10), trigger_price=Decimal(120)), ()),
        (Order("o1", "ETH", "sell", Decimal(10), trigger_price=Decimal(90)), ()),
        (replace(STOP, position_side="short"), ()),
        (replace(STOP, client_order_id="ks" + "0" * 29), ("BTC",)),  # one that we have restored or placed
        (replace(STOP, client_order_id="ks" + "0" * 29, trigger_price=None), ()),  # our own closing order
    ],
)  # fmt: skip
def test_a_protective_order_is_one_that_reduces_a_position(order: Order, bare: tuple[str, ...]) -> None:
    """Stops and reduce-only limits of a long position sell it; entries, other symbols and our own closes are none."""
    assert unprotected_symbols(held(order), HARSH) == bare


def test_an_unknown_book_starts_no_timer_and_keeps_a_running_one(site: Site) -> None:
    """Letting a running timer fire would cancel the very stops that may rest; starting one might, too."""
    venue = TimerVenue(site.time, HARSH, replace(flat(), orders=None))
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(60):
            if second == 10:
                venue.answer = flat()
            if second == 12:
                venue.answer = VenueDownError("no route to host")
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert venue.times_of("arm") == [10, 30, 50]
    assert venue.times_of("disarm") == []


def test_a_failing_refresh_is_reported_with_the_time_left_and_retried(site: Site) -> None:
    """From 15 s on the venue is down: retries follow after 1, 2, 4 … s, and the page states when the timer fires."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(70):
            venue.fails = VenueDownError("no route to host") if second >= 15 else None
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert venue.times_of("arm")[:5] == [0, 20, 22, 25, 30]
    pages = site.notices("page")
    assert pages[0] == (
        "the dead-man timer of account main: it could not be refreshed: no route to host; "
        "it fires at 2021-05-19T12:01:00Z unless that ends"
    )
    assert "has fired at 2021-05-19T12:01:00Z" in pages[1]


def test_a_refresh_that_works_again_is_paged(site: Site) -> None:
    """Down from 15 s to 25 s: a page with the reason, and a page that it is over; the timer never fired."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(60):
            venue.fails = VenueDownError("no route to host") if 15 <= second < 25 else None
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    failed, over = site.notices("page")
    assert "it could not be refreshed: no route to host" in failed
    assert over == "the dead-man timer of account main is refreshed again"


def test_a_timer_that_runs_again_after_it_fired_is_paged(site: Site) -> None:
    """Down from 15 s to 75 s: it could not be refreshed, has fired, and runs again; each is a page."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(110):
            venue.fails = VenueDownError("no route to host") if 15 <= second < 75 else None
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    pages = site.notices("page")
    assert "has fired" in pages[1]
    assert pages[-1].startswith("the dead-man timer of account main is running (60 s")
    assert not any("refreshed again" in text for text in pages)


def test_a_late_answer_is_awaited_before_a_timer_counts_as_fired(site: Site) -> None:
    """The refresh leaves at 4 s, reaches the venue, and is answered after the old end: the timer never fired."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue, timeout=5.0, refresh=2.0, pace=RunnerPace(1.0, 1.9, stop_timeout=2.0))

    async def story() -> None:
        await runner.start()
        for second in range(10):
            venue.fails = VenueDownError("no route to host") if second == 2 else None
            venue.trip = 1.8 if second == 4 else 0.0
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert venue.times_of("arm") == [0, 2, 4, 6, 8]
    assert not any("has fired" in text for text in site.notices())


def test_a_lost_answer_counts_as_a_timer_that_may_run(site: Site) -> None:
    """Whether it was started is unknown: the start is retried, and the timer is stopped at the end as if it ran."""
    venue = TimerVenue(site.time, PLAIN, flat())
    venue.fails = FateUnknownError("the answer was cut off")
    runner = site.runner(venue)

    async def story() -> str:
        await runner.start()
        await runner.tick()
        await site.time.sleep(1.0)
        await runner.tick()
        report = await runner.tick()
        venue.fails = None
        await runner.finish()
        return report.runner.timers[0].state

    assert site.time.run(story()) == "unknown"
    assert venue.calls[-1][1] == "disarm"
    assert runner.stop_problems == ()


def test_a_timer_that_cannot_be_stopped_is_reported_at_the_end(site: Site) -> None:
    """A clean stop retries a few times, and then reports what will happen and when."""
    venue = TimerVenue(site.time, PLAIN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        await runner.tick()
        await site.time.sleep(1.0)
        await runner.tick()
        venue.fails = VenueDownError("no route to host")
        await runner.finish()

    site.time.run(story())
    (problem,) = runner.stop_problems
    assert "could not be stopped" in problem
    assert "it fires at 2021-05-19T12:01:00Z" in problem
    assert decode_record(site.store.live(LIVE_NAME)).running.keys() == {"main"}


def test_w2_a_timer_per_symbol_starts_where_orders_rest_and_stops_where_none_do(site: Site) -> None:
    """Binance keeps one a symbol: a new symbol gets one at once; one without orders is stopped."""
    rests = {
        name: Order(name, symbol, "buy", Decimal(1), price=Decimal(1)) for name, symbol in (("a", "BTC"), ("b", "ETH"))
    }
    venue = TimerVenue(site.time, BY_SYMBOL, flat())
    runner = site.runner(venue)
    books = {0: (), 3: ("a",), 6: ("a", "b"), 9: ("b",), 14: ()}

    async def story() -> None:
        await runner.start()
        for second in range(18):
            if second in books:
                venue.answer = flat(orders=tuple(rests[each] for each in books[second]))
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert [(round(at), call, symbols) for at, call, _, symbols in venue.calls] == [
        (3, "arm", ("BTC",)),
        (6, "arm", ("ETH",)),
        (9, "disarm", ("BTC",)),
        (14, "disarm", ("ETH",)),
    ]


def test_w2_announced_maintenance_stops_the_timer_until_it_is_over(site: Site) -> None:
    """Kraken wants it disabled before maintenance: its status and its symbols' states are observed, and reported."""
    venue = TimerVenue(site.time, KRAKEN, flat())
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(30):
            state = "cancel_only" if 5 <= second < 20 else "open"
            venue.answer = flat(instruments=(Instrument("BTC", state=state),))  # type: ignore[arg-type] # a word
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert venue.times_of("arm") == [0, 20]
    assert venue.times_of("disarm") == [5]
    assert any(
        "the venue accepts no ordinary orders, as around its maintenance" in text for text in site.notices("page")
    )


def test_each_reason_for_which_a_timer_does_not_run_is_an_alert_of_its_own(site: Site) -> None:
    """A stop from 2 s to 30 s, and maintenance from 10 s to 20 s, which hides the stop and does not end it: two pages.

    From 30 s on the timer runs, and nothing is wrong.
    """
    venue = TimerVenue(site.time, KRAKEN, flat())
    runner = site.runner(venue)
    active = dict[int, list[str]]()

    async def story() -> None:
        await runner.start()
        for second in range(40):
            state = "cancel_only" if 10 <= second < 20 else "open"
            answer = held(STOP) if 2 <= second < 30 else flat()
            venue.answer = replace(answer, instruments=(Instrument("BTC", state=state),))  # type: ignore[arg-type] # a word
            await runner.tick()
            active[second] = [each.alert.key for each in read_state(site.store.live(ALERTS)).active]
            await site.time.sleep(1.0)

    site.time.run(story())
    unprotected, maintenance = "dead-man/main/off/unprotected", "dead-man/main/off/maintenance"
    assert [active[second] for second in (0, 8, 18, 28, 38)] == [
        [], [unprotected], [unprotected, maintenance], [unprotected], [],
    ]  # fmt: skip
    why = [text.partition("does not run: ")[2][:20] for text in site.notices("page") if "does not run: " in text]
    assert why == ["it may cancel the pr", "the venue accepts no"]


def test_a_venue_in_maintenance_is_queried_until_it_is_ok(site: Site) -> None:
    """Every five minutes, since queries cost; nothing is started meanwhile."""
    venue = InspectableVenue(site.time, KRAKEN, flat())
    venue.status = "maintenance"
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(620):
            if second == 400:
                venue.status = "ok"
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert venue.times_of("arm")[0] == 601
    assert venue.queries == 3
    assert not any("has fired" in text for text in site.notices())
    assert any("does not run: the venue announces maintenance" in text for text in site.notices("page"))


def test_w2_a_timer_that_fired_as_often_as_the_venue_allows_is_not_started(site: Site) -> None:
    """Hyperliquid allows ten a day: after the last one it is reported, and started again when a day has passed."""
    rule = DeadManRule("account", 5.0, a_day=2, takes_stops=False)
    venue = TimerVenue(site.time, rule, flat())
    runner = site.runner(venue, timeout=10.0, refresh=5.0)

    async def story() -> None:
        await runner.start()
        for second in range(120):
            venue.fails = VenueDownError("gone") if 1 <= second < 20 or 40 <= second < 60 else None
            await runner.tick()
            await site.time.sleep(1.0)
        armed = len(venue.times_of("arm"))
        site.time.elapsed += 86_400
        await runner.tick()
        await site.time.sleep(1.0)
        assert len(venue.times_of("arm")) == armed + 1

    site.time.run(story())
    assert any("it has fired 2 times in 24 h" in text for text in site.notices("page"))
    assert max(at for at in venue.times_of("arm") if at < 80_000) < 60


def test_refreshes_never_use_the_share_reserved_for_closing(site: Site) -> None:
    """Others use half of forty units when the run starts: the timer waits, and closing still has its half."""
    limits = (RateLimit("weight", 40, 60.0),)
    venue = TimerVenue(site.time, PLAIN, flat(), limits=limits, costs=(Cost("dead_man", "weight", units=4),))
    runner = site.runner(venue)
    budget = site.meters["main"].budget
    for _ in range(5):
        budget.answered(0.0, budget.reserve(0.0, "dead_man", purpose="reading"))
    site.run(runner, 55)
    assert venue.times_of("arm") == []
    assert any("the request budget is spent" in text for text in site.notices("page"))
    assert budget.room(55.0, "dead_man", [""] * 9) == 5


@pytest.mark.parametrize(
    ("limits", "costs", "expected"),
    [
        # 60 polls of 4 and 3 refreshes of 10 in a minute are 270, and half of 500 is for reading.
        ((500,), (Cost("snapshot", "weight", units=4), Cost("dead_man", "weight", units=10)),
         "polls every 1 s and refreshes together take 270 of weight in 60 s, and 250 of 500 are for reading, so that "
         "the timer may go off; run with --interval 1.1s, or lengthen `refresh`, or lower closing_share"),
        # The refreshes alone: 3 of 100.
        ((500,), (Cost("dead_man", "weight", units=100),),
         "refreshes together take 300 of weight in 60 s, and 250 of 500 are for reading, so that the timer may go off; "
         "lengthen `refresh`, or lower closing_share"),
    ],
)  # fmt: skip
def test_polls_and_refreshes_that_do_not_both_fit_are_refused_before_the_first_tick(
    site: Site, limits: tuple[int], costs: tuple[Cost, ...], expected: str
) -> None:
    """A timer that a healthy runner cannot keep from firing is not started."""
    venue = TimerVenue(site.time, PLAIN, flat(), limits=(RateLimit("weight", limits[0], 60.0),), costs=costs)
    with pytest.raises(TimerError) as refused:
        site.runner(venue)
    assert expected in str(refused.value)
    assert venue.calls == []


class StormingVenue(TimerVenue):
    """A venue whose stream pushes ten times a second."""

    async def listen(self, hear: Callable[[Push], None]) -> None:
        while True:
            await asyncio.sleep(0.1)
            hear(Push("orders"))


@pytest.mark.parametrize(
    ("allowed", "poll_cost", "refresh", "timeout", "every"),
    [(400, 1, 10, 60.0, 20.0), (400, 1, 40, 60.0, 20.0), (400, 1, 10, 30.0, 10.0), (2000, 5, 25, 60.0, 20.0)],
)
def test_a_storm_of_pushes_delays_no_refresh(
    site: Site, allowed: int, poll_cost: int, refresh: int, timeout: float, every: float
) -> None:
    """Pushed polls get what scheduled polls and refreshes leave: every refresh is in time, and no poll is lost."""
    venue = StormingVenue(
        site.time, PLAIN, flat(), limits=(RateLimit("weight", allowed, 60.0),),
        costs=(Cost("snapshot", "weight", units=poll_cost), Cost("dead_man", "weight", units=refresh)),
    )  # fmt: skip
    runner = site.runner(venue, timeout=timeout, refresh=every)
    site.run(runner, 130)  # two windows of the limit
    assert not any("has fired" in text for text in site.notices())
    at = venue.times_of("arm")
    assert max(late - early for early, late in pairwise(at)) < every + 5
    polls = [report.snapshot.accounts[0].quality for report in site.seen.reports if report.snapshot.scheduled]
    assert set(polls) == {"ok"}
    assert len(site.seen.reports) > 130 or refresh == 40  # there nothing is left for pushed polls
    assert runner.stop_problems == ()


@pytest.mark.parametrize("seconds", [85, 100, 120])
def test_the_final_request_of_a_clean_stop_may_use_the_share_for_closing(site: Site, seconds: int) -> None:
    """However much the polls have spent: after a stop no runner is there to close, and the timer must not run on."""
    venue = TimerVenue(
        site.time, PLAIN, flat(), limits=(RateLimit("weight", 400, 60.0),),
        costs=(Cost("snapshot", "weight", units=1), Cost("dead_man", "weight", units=20)),
    )  # fmt: skip
    runner = site.runner(venue)
    budget = site.meters["main"].budget

    async def story() -> None:
        await runner.start()
        for _ in range(seconds):
            await runner.tick()
            await site.time.sleep(1.0)
        while budget.wait(site.time.monotonic(), "snapshot", purpose="reading") <= 0.0:
            budget.answered(site.time.monotonic(), budget.reserve(site.time.monotonic(), "snapshot", purpose="reading"))
        await runner.finish()
        await runner.shut_down()

    site.time.run(story())
    assert runner.stop_problems == ()
    assert venue.runs_out is None


def resting(*symbols: str) -> AccountSnapshot:
    """An account with an entry order in each symbol."""
    return flat(orders=tuple(Order(f"o{each}", each, "buy", Decimal(1), price=Decimal(1)) for each in symbols))


class TimerPerSymbol(TimerVenue):
    """A venue with a timer for each symbol, which rejects calls for some symbols."""

    def __init__(self, time: VirtualTime, answer: AccountSnapshot, **traits: Any) -> None:
        super().__init__(time, BY_SYMBOL, answer, **traits)
        self.knows_not: set[str] = set()
        self.ends: dict[str, float] = {}

    def _hear(self, symbols: Collection[str]) -> None:
        for symbol in sorted(self.knows_not & set(symbols)):
            raise MalformedAnswerError(f"no such symbol {symbol}")

    async def arm_dead_man(self, seconds: float, symbols: Collection[str]) -> None:
        await super().arm_dead_man(seconds, symbols)
        self._hear(symbols)
        for symbol in symbols:
            assert self.ends.get(symbol, math.inf) > self.time.monotonic(), f"{symbol} went off"
            self.ends[symbol] = self.time.monotonic() + seconds

    async def disarm_dead_man(self, symbols: Collection[str]) -> None:
        await super().disarm_dead_man(symbols)
        self._hear(symbols)
        for symbol in symbols:
            self.ends.pop(symbol, None)


@pytest.mark.parametrize("doing", ["arm", "disarm"])
def test_a_symbol_that_the_venue_refuses_delays_no_other(site: Site, doing: str) -> None:
    """OLD is delisted at 5 s: BTC and ETH are refreshed every 20 s, and the trouble with OLD is reported."""
    venue = TimerPerSymbol(site.time, resting("BTC", "ETH", "OLD"))
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(200):
            if second == 5:
                venue.knows_not = {"OLD"}
                if doing == "disarm":
                    venue.answer = resting("BTC", "ETH")
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    for symbol in ("BTC", "ETH"):
        assert venue.ends[symbol] > 230.0
    pages = site.notices("page")
    assert any("for OLD: no such symbol OLD; it is retried" in text for text in pages)
    # For symbols with orders, it matters that the timer fired; where nothing rests, nothing was cancelled.
    assert [text for text in pages if "has fired" in text and "OLD" not in text] == []
    assert any("fired for OLD" in text for text in pages) == (doing == "arm")


def test_a_timer_for_many_symbols_is_refreshed_in_turn_with_the_polls(site: Site) -> None:
    """Forty symbols of ten a minute are 800, and 60 polls of 5 are 300, of the 1200 for reading: each is in time."""
    venue = TimerPerSymbol(
        site.time, resting(*(f"S{number:02}" for number in range(40))), limits=(RateLimit("weight", 2400, 60.0),),
        costs=(Cost("snapshot", "weight", units=5), Cost("dead_man", "weight", each=10)),
    )  # fmt: skip
    site.run(site.runner(venue), 200)
    assert len(venue.ends) == 0
    assert {len(symbols) for _, call, _, symbols in venue.calls if call == "arm"} == {5}
    assert not any("has fired" in text for text in site.notices())
    polls = [report.snapshot.accounts[0].quality for report in site.seen.reports if report.snapshot.scheduled]
    assert polls.count("ok") > 180


def test_a_timer_for_more_symbols_than_the_limits_allow_is_stopped_and_paged(site: Site) -> None:
    """A hundred symbols of ten take fifty seconds of the share for reading: polls continue, the timer does not."""
    venue = TimerPerSymbol(
        site.time, resting("BTC"), limits=(RateLimit("weight", 2400, 60.0),),
        costs=(Cost("snapshot", "weight", units=5), Cost("dead_man", "weight", each=10)),
    )  # fmt: skip
    runner = site.runner(venue)

    async def story() -> None:
        await runner.start()
        for second in range(30):
            if second == 10:
                venue.answer = resting(*(f"S{number:02}" for number in range(100)))
            await runner.tick()
            await site.time.sleep(1.0)

    site.time.run(story())
    assert [(round(at), call) for at, call, *_ in venue.calls] == [(0, "arm"), (10, "disarm")]
    assert any("polls and its refreshes for 100 symbols exceed the request limits" in text
               for text in site.notices("page"))  # fmt: skip
    assert {report.snapshot.accounts[0].quality for report in site.seen.reports} == {"ok"}


BOOKS = {
    "flat": flat(),
    "stop": held(STOP),
    "bare": held(),
    "unknown": replace(held(STOP), orders=None),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=st.lists(
        st.tuples(st.sampled_from([*BOOKS, "down"]), st.sampled_from([None, None, "down", "lost"])),
        min_size=4, max_size=40,
    ),
    accept=st.booleans(),
    takes_stops=st.sampled_from([True, None, False]),
)  # fmt: skip
def test_never_started_over_a_position_that_it_would_leave_unprotected(
    moves: list[tuple[str, str | None]], accept: bool, takes_stops: bool | None
) -> None:
    """Whatever the book and the venue do: no start or refresh follows a tick that saw such a position."""
    failures = {"down": VenueDownError("down"), "lost": FateUnknownError("lost"), None: None}
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        venue = TimerVenue(site.time, DeadManRule("account", 1.0, takes_stops=takes_stops), flat())
        runner = site.runner(venue, timeout=8.0, refresh=3.0, accept=accept)

        async def story() -> None:
            await runner.start()
            for name, failure in moves:
                venue.answer = VenueDownError("down") if name == "down" else BOOKS[name]
                venue.fails = failures[failure]
                before = len(venue.calls)
                await runner.tick()
                await site.time.sleep(1.0)
                armed = any(call == "arm" for _, call, *_ in venue.calls[before:])
                if name == "stop" and not accept and takes_stops is not False:
                    assert not armed
            venue.fails = None
            await runner.finish()
            await runner.shut_down()
            assert venue.runs_out is None or venue.has_fired()

        try:
            site.time.run(story())
        finally:
            site.store.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(good=st.integers(1, 30), timeout=st.integers(6, 20))
def test_never_refreshed_after_a_tick_that_failed(good: int, timeout: int) -> None:
    """Wherever the store fails, the last call to the venue belongs to a tick that was committed."""
    with TemporaryDirectory() as folder:
        site = Site(Path(folder))
        venue = TimerVenue(site.time, PLAIN, flat())
        runner = site.runner(venue, timeout=float(timeout), refresh=2.0)
        runner.store = TornStore(site.store, good)
        try:
            with pytest.raises(StoreError):
                site.run(runner, 60)
        finally:
            site.store.close()
        assert venue.times_of("disarm") == []
        assert max(venue.times_of("arm"), default=-math.inf) <= good - 1
        assert venue.runs_out is not None


SET = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers: {fall: {signal: equity.drawdown, window: 15m, at_least: 4.5%, confirm: 2m, on_unknown: hold}}
  stages:
    - {name: trim, level: 1, any: [fall], cooldown: 30m, reset: manual, actions: [{close: {side: both, fraction: 50%}}]}
---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, venue: kraken, market: swap, currency: USDT, execution: live}
---
apiVersion: killswitch.dev/v1
kind: DeadMansSwitch
metadata: {name: timer}
spec: {accounts: {venue: [kraken]}, at_venue: true, timeout: 30s, refresh: 10s}
"""


def test_a_switch_in_a_policy_document_is_kept_by_the_run(site: Site) -> None:
    """From the YAML to the venue: 30 s, refreshed every ten, for the account that it selects by its venue."""
    file = site.folder / "set.yaml"
    file.write_text(SET)
    written = read_policies([file])
    assert written.warnings == ()
    venue = TimerVenue(site.time, PLAIN, flat())
    accounts = {"main": ArmedAccount("main", "kraken", "swap", "USDT", venue, armed=True)}
    runner = assemble(
        written.policies, accounts, site.store, site.time, RunnerPace(1.0, 0.5, stop_timeout=0.5), live=True,
        timers=True, locks=LockPaths(site.folder / "locks", None),
    )  # fmt: skip
    site.run(runner, 25)
    assert [(round(at), seconds) for at, call, seconds, _ in venue.calls if call == "arm"] == [
        (0, 30.0), (10, 30.0), (20, 30.0),
    ]  # fmt: skip
    assert venue.times_of("disarm") == [24]
