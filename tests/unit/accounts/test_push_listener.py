"""A push wakes a tick; silence, loss and the end of a stream are reported; polls continue whatever it pushes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.poll.account_poller import LEAST_DISTANCE
from killswitch.accounts.poll.poll_budget import poll_budgets
from killswitch.accounts.poll.poller import Polls
from killswitch.accounts.poll.push_listener import STALE_AFTER, STEADY_AFTER, Stream
from killswitch.accounts.poll.request_meter import request_meters
from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.graph.nodes import Graph
from killswitch.model.alert import NO_ALERTS
from killswitch.model.snapshot import AccountSnapshot, Health
from killswitch.model.venue import Cost, CredentialsRefusedError, Push, RateLimit, VenueDownError, VenueTraits
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import LIVE_NAME, decode_view
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, book, crash_policy
from tests.virtual_time import VirtualTime
from tests.worlds import START, fill

Script = tuple[tuple[float, Push | BaseException], ...]
LEFT = "until it delivers again the account is polled at the interval only"
TRIP = 0.03
"""Seconds that a reading takes."""


class PushingTestVenue(ScriptedVenue):
    """A ScriptedVenue with a private stream that pushes what its script has, at seconds from the start of listening."""

    def __init__(self, time: VirtualTime, account: str, script: Script = (), traits: VenueTraits | None = None) -> None:
        super().__init__(book("1000", account), account)
        self.time = time
        self.script = script
        self.traits = traits or VenueTraits()
        self.read_at: list[float] = []
        self.trip = TRIP
        self.listeners = 0
        self.began: list[float] = []
        self.on_push: Callable[[Push], None] | None = None

    async def snapshot(self) -> AccountSnapshot:
        self.read_at.append(round(self.time.monotonic(), 6))
        answer = await super().snapshot()
        await asyncio.sleep(self.trip)
        return replace(answer, observed_at=self.time.now())

    async def listen(self, hear: Callable[[Push], None]) -> None:
        self.listeners += 1
        began = self.time.monotonic()
        self.began.append(began)
        try:
            for at, push in self.script:
                await asyncio.sleep(began + at - self.time.monotonic())
                if isinstance(push, BaseException):
                    raise push
                if self.on_push is not None:
                    self.on_push(push)
                hear(push)
            await asyncio.Event().wait()
        finally:
            self.listeners -= 1


class VenueWithoutStream(ScriptedVenue):
    """A venue without a stream."""

    def __init__(self, time: VirtualTime, account: str) -> None:
        super().__init__(book("1000", account), account)
        self.time = time
        self.trip = TRIP

    async def snapshot(self) -> AccountSnapshot:
        answer = await super().snapshot()
        at = self.time.now()
        await asyncio.sleep(self.trip)
        return replace(answer, observed_at=at)


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()

    def runner(
        self, *venues: ScriptedVenue, interval: float = 1.0, armed: bool = True, policy: Graph | None = None
    ) -> Runner:
        accounts = {
            each.account: ArmedAccount(each.account, each.account, "swap", "USDT", each, armed=armed) for each in venues
        }
        return assemble(
            graphs.policy_set(policy or crash_policy()), accounts, self.store, self.time, RunnerPace(interval, 0.5,
            stop_timeout=0.5),
            live=armed, locks=LockPaths(self.folder / "locks", None), observers=(self.seen,), is_run=True,
        )  # fmt: skip

    def run(self, runner: Runner, ticks: int) -> None:
        self.time.run(runner.run(asyncio.Event(), ticks))

    def passes(self) -> list[tuple[bool, dict[str, float]]]:
        """Whether each pass was scheduled, and when each account in it was observed, in seconds of the run."""
        return [
            (
                report.snapshot.scheduled,
                {
                    each.account: round((each.observed_at - self.time.start).total_seconds(), 6)
                    for each in report.snapshot.accounts
                    if each.observed_at is not None
                },
            )
            for report in self.seen.reports
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def push(kind: str, why: str | None = None) -> Push:
    return Push(kind, why)  # type: ignore[arg-type] # a kind in a test


@pytest.mark.parametrize("kind", ["positions", "orders", "balance"])
def test_a_push_triggers_a_pass_at_once_that_polls_only_the_account_that_pushed(site: Site, kind: str) -> None:
    """A push at 0.5 s: the pass after it is not scheduled, and the other account is as it was observed."""
    one, other = PushingTestVenue(site.time, "one", ((0.5, push(kind)),)), VenueWithoutStream(site.time, "two")
    site.run(site.runner(one, other), 2)
    (first, before), (second, pushed), (third, after) = site.passes()
    assert (first, second, third) == (True, False, True)
    assert pushed["one"] == pytest.approx(0.5 + TRIP)
    assert pushed["two"] == before["two"]
    assert after["two"] == pytest.approx(1.0)
    assert one.read_at == pytest.approx([0.0, 0.5, 1.0])
    assert other.reads == 2


def test_a_sign_of_life_triggers_no_poll(site: Site) -> None:
    """`alive` is no change of the account."""
    venue = PushingTestVenue(site.time, "one", ((0.3, push("alive")), (0.6, push("alive"))))
    site.run(site.runner(venue), 2)
    assert [scheduled for scheduled, _ in site.passes()] == [True, True]
    assert venue.reads == 2


def test_a_pushed_fall_is_closed_before_the_next_poll(site: Site) -> None:
    """The push comes at 0.3 s, the order leaves on the pushed poll, long before the scheduled one at 10 s."""
    venue = PushingTestVenue(site.time, "one", ((0.3, push("positions")),))
    venue.on_push = lambda _: setattr(venue, "answer", book("850", "one"))
    runner = site.runner(venue, interval=10.0)
    site.run(runner, 2)
    (pushed,) = [report for report in site.seen.reports if report.decisions]
    assert not pushed.snapshot.scheduled
    assert pushed.acting_on
    assert len(venue.sent) == 1
    assert (pushed.snapshot.as_of - START.replace(tzinfo=START.tzinfo)).total_seconds() == pytest.approx(
        (site.time.start - START).total_seconds() + 0.3 + TRIP, abs=0.01
    )


def test_an_effect_that_ends_the_run_in_a_pushed_pass_lets_no_further_tick_happen(site: Site) -> None:
    """The account falls at 0.3 s: that pass exits, and the tick at 10 s never comes."""
    venue = PushingTestVenue(site.time, "one", ((0.3, push("positions")), (0.6, push("positions"))))
    venue.on_push = lambda _: setattr(venue, "answer", book("850", "one"))
    policy = crash_policy()
    stage = replace(policy.stages[0], actions=(ExitProcess(),))
    runner = site.runner(venue, interval=10.0, policy=replace(policy, stages=(stage,)))
    site.run(runner, 3)
    assert [scheduled for scheduled, _ in site.passes()] == [True, False]
    assert runner.ticks == 1
    end = runner.effects.performing.run_end
    assert end is not None
    assert end.exit_code == 1


def test_a_burst_of_pushes_is_one_poll_and_the_scheduled_tick_keeps_its_time(site: Site) -> None:
    """A push every 10 ms for three seconds: polls and passes keep their distance, and ticks are at 0, 1, 2 and 3."""
    venue = PushingTestVenue(site.time, "one", tuple((number * 0.01, push("orders")) for number in range(1, 300)))
    runner = site.runner(venue)
    began: list[float] = []
    tick = runner.tick

    async def noted() -> object:
        began.append(round(site.time.monotonic(), 3))
        return await tick()

    runner.tick = noted  # type: ignore[method-assign, assignment] # only looks at the time
    site.run(runner, 4)
    assert began == [0.0, 1.0, 2.0, 3.0]
    gaps = [late - early for early, late in zip(venue.read_at, venue.read_at[1:], strict=False)]
    polls = {0.0, 1.0, 2.0, 3.0}
    assert all(
        gap >= LEAST_DISTANCE - 1e-6 for gap, end in zip(gaps, venue.read_at[1:], strict=True) if end not in polls
    )
    pushed = [scheduled for scheduled, _ in site.passes()].count(False)
    assert 3 <= pushed <= 3 / LEAST_DISTANCE


def test_a_push_during_a_poll_triggers_a_poll_after_it(site: Site) -> None:
    """What the poll in progress may not have seen is read by the next one."""
    venue = PushingTestVenue(site.time, "one", ((0.3, push("orders")), (0.31, push("positions"))))
    site.run(site.runner(venue), 2)
    assert venue.read_at == pytest.approx([0.0, 0.3, 0.3 + LEAST_DISTANCE, 1.0], abs=0.05)


def test_the_scheduled_tick_joins_a_slow_pushed_poll(site: Site) -> None:
    """It began at 0.75 s and takes 0.4: the tick at 1.0 waits for its rest, requests nothing anew, and is on time."""
    venue = PushingTestVenue(site.time, "one", ((0.75, push("orders")),))
    venue.on_push = lambda _: setattr(venue, "trip", 0.4)
    site.run(site.runner(venue), 2)
    assert [scheduled for scheduled, _ in site.passes()] == [True, True]
    assert venue.read_at == pytest.approx([0.0, 0.75])
    assert [each.quality for each in site.seen.reports[1].snapshot.accounts] == ["ok"]


def test_a_push_just_before_a_poll_is_left_to_it(site: Site) -> None:
    """Nearer to the scheduled poll than the least distance, nothing is read twice."""
    venue = PushingTestVenue(site.time, "one", ((1.0 - LEAST_DISTANCE / 2, push("orders")),))
    site.run(site.runner(venue), 2)
    assert [scheduled for scheduled, _ in site.passes()] == [True, True]
    assert venue.read_at == pytest.approx([0.0, 1.0])


def test_a_slow_poll_of_one_account_delays_no_push_of_another(site: Site) -> None:
    """One takes half a second to poll, the other pushes meanwhile: its pass comes at once."""
    slow = PushingTestVenue(site.time, "slow", ((0.2, push("orders")),))
    slow.on_push = lambda _: setattr(slow, "trip", 0.5)
    fast = PushingTestVenue(site.time, "fast", ((0.3, push("orders")),))
    site.run(site.runner(slow, fast), 2)
    pushed = [observed for scheduled, observed in site.passes() if not scheduled]
    assert pushed[0]["fast"] == pytest.approx(0.3 + TRIP)
    assert pushed[1]["slow"] == pytest.approx(0.7)


def test_rows_and_rules_of_an_account_that_is_not_polled_are_not_repeated(site: Site) -> None:
    """Flows and fills are what became known since the last snapshot: nothing did between two polls; rules remain."""
    one, two = PushingTestVenue(site.time, "one", ((0.5, push("orders")),)), VenueWithoutStream(site.time, "two")
    row = fill("f1", site.time.start, "BTC", "buy", "1", "100")
    two.answer = replace(book("1000", "two"), fills=(row,), flows=None, health=Health(requests=3))
    site.run(site.runner(one, two), 2)
    first, pushed, _ = (report.snapshot.accounts[1] for report in site.seen.reports)
    assert (first.fills, first.flows, first.health) == ((row,), None, Health(requests=3))
    assert (pushed.fills, pushed.flows, pushed.instruments, pushed.health) == ((), None, None, Health(requests=3))
    assert (pushed.equity, pushed.positions, pushed.observed_at) == (first.equity, first.positions, first.observed_at)


def test_a_snapshot_older_than_an_interval_is_not_reused(site: Site) -> None:
    """A second after its request it is stale, with the reason, and nothing in it is reported."""
    account = ArmedAccount("two", "two", "swap", "USDT", VenueWithoutStream(site.time, "two"), armed=True)
    poller = Polls({"two": account}, 0.5, request_meters({"two": account}, site.time))

    async def story() -> tuple[AccountSnapshot, AccountSnapshot]:
        await poller.gather()
        await site.time.sleep(1.0 - TRIP)
        (in_time,) = poller.complete({}, 1.0)
        await site.time.sleep(0.01)
        (late,) = poller.complete({}, 1.0)
        return in_time, late

    in_time, late = site.time.run(story())
    assert (in_time.quality, in_time.equity) == ("ok", Decimal(1000))
    assert (late.quality, late.equity, late.reason) == ("stale", None, "the last snapshot is older than an interval")


def test_pushed_polls_leave_every_scheduled_poll_its_budget(site: Site) -> None:
    """The limit allows what polling needs and four polls more a minute: a storm of pushes costs no scheduled poll."""
    limit = RateLimit("weight", 2 * 10 * (61 + 4), 60.0)
    traits = VenueTraits((limit,), (Cost("snapshot", "weight", units=10),))
    script = tuple((number * 0.1, push("orders")) for number in range(1, 590))
    venue = PushingTestVenue(site.time, "one", script, traits)
    site.run(site.runner(venue), 61)
    qualities = [report.snapshot.accounts[0].quality for report in site.seen.reports]
    assert set(qualities) == {"ok"}
    assert [scheduled for scheduled, _ in site.passes()].count(False) == 4


def test_a_push_without_request_budget_is_polled_as_soon_as_there_is_some(site: Site) -> None:
    """The limit leaves one pushed poll a second and ticks come every 30 s: the second push waits for 0.8 s."""
    limit = RateLimit("account", 6, 1.0)
    traits = VenueTraits((limit,), (Cost("snapshot", "account", units=1),))
    venue = PushingTestVenue(site.time, "one", ((2.0, push("orders")), (2.2, push("orders"))), traits)
    site.run(site.runner(venue, interval=30.0), 2)
    assert venue.read_at == pytest.approx([0.0, 2.0, 3.0, 30.0], abs=0.3)


def test_accounts_behind_one_address_share_what_the_scheduled_polls_leave() -> None:
    """Of 20 units in ten seconds half is kept; two accounts polled every 10 s at one unit leave 10 − 2·2 to both."""
    traits = VenueTraits((RateLimit("weight", 20, 10.0, by="address"),), (Cost("snapshot", "weight", units=1),))
    accounts = {}
    for name in ("one", "two"):
        venue = PushingTestVenue(VirtualTime(), name, (), traits)
        accounts[name] = ArmedAccount(name, "venue", "swap", "USDT", venue, armed=False)
    shared = poll_budgets(accounts, 10.0)
    for number in range(6):
        name = ("one", "two")[number % 2]
        assert shared[name].admits(0.0)
        shared[name].record(0.0)
    assert not shared["one"].admits(9.9)
    assert not shared["two"].admits(9.9)
    assert shared["one"].admits(10.0)


def test_a_silent_stream_is_stale_and_reported_once_while_polling_continues(site: Site) -> None:
    """No push for longer than the declared time: one warning, shown in `status`, and every scheduled poll is made."""
    venue = PushingTestVenue(site.time, "one")
    ticks = int(STALE_AFTER) + 10
    site.run(site.runner(venue), ticks)
    notices = [notice for report in site.seen.reports for notice in report.notices if "stream" in notice.text]
    assert [(notice.severity, "no sign of life for 60 s" in notice.text) for notice in notices] == [("warning", True)]
    blob = site.store.live(LIVE_NAME)
    assert blob is not None
    assert [(each.account, each.state) for each in decode_view(blob).streams] == [("one", "stale")]
    assert venue.reads == ticks


def test_signs_of_life_keep_a_stream_from_being_stale(site: Site) -> None:
    """An account on which nothing happens still sends signs of life."""
    venue = PushingTestVenue(site.time, "one", tuple((number * 20.0, push("alive")) for number in range(1, 10)))
    site.run(site.runner(venue), 150)
    assert not any(report.problems for report in site.seen.reports)
    assert site.seen.reports[-1].runner.streams[0].state == "heard"


def test_a_lost_stream_is_reported_once_with_its_reason_however_often_it_flaps(site: Site) -> None:
    """Down, up, down: one warning until it has been up for the declared time; `status` gives the same reason."""
    script = tuple(
        (at, push(*arguments))
        for at, arguments in ((1.5, ("lost", "code 1006")), (3.5, ("alive",)), (4.5, ("lost", "code 1001")))
    )
    site.run(site.runner(PushingTestVenue(site.time, "one", script)), 8)
    notices = [notice.text for report in site.seen.reports for notice in report.notices]
    assert notices == [f"the stream of account one is unreliable: code 1006; {LEFT}"]
    assert site.seen.reports[-1].runner.streams[0].state == "lost"
    assert site.seen.reports[-1].runner.streams[0].why == "code 1006"


def test_a_stream_that_was_steady_again_is_reported_when_it_is_lost() -> None:
    """The trouble ends once it has been up for the declared time."""
    time = VirtualTime()
    stream = Stream("one", time)
    stream.record_loss("first")
    assert stream.problem is not None
    stream.record_push()
    for _ in range(math.ceil(STEADY_AFTER / 20)):
        assert stream.problem is not None
        time.elapsed += 20
        stream.record_push()
    assert stream.problem is None
    assert stream.alerts == NO_ALERTS
    stream.record_loss("second")
    assert "second" in (stream.problem or "")


@pytest.mark.parametrize("error", [VenueDownError("no private stream for this key"), ValueError("a defect")])
def test_an_error_of_listening_is_reported_once_and_retried_with_growing_pauses(site: Site, error: Exception) -> None:
    """It fails 0.5 s after each start: at 0, then pauses of 1, 2, 4, 8 … s; one warning states that it is retried."""
    venue = PushingTestVenue(site.time, "one", ((0.5, error),))
    site.run(site.runner(venue), 20)
    notices = [notice.text for report in site.seen.reports for notice in report.notices]
    assert notices == [
        f"the stream of account one is unreliable: {error}; it is reopened after pauses of up to 5 minutes; {LEFT}"
    ]
    assert venue.began == pytest.approx([0.0, 1.5, 4.0, 8.5, 17.0])
    assert venue.reads == 20


def test_pauses_between_retries_grow_to_five_minutes(site: Site) -> None:
    """An hour of failing at once: 1 + 2 + … + 256 s, and from then on every 300 s."""
    venue = PushingTestVenue(site.time, "one", ((0.0, VenueDownError("no route to host")),))
    site.run(site.runner(venue, interval=60.0), 60)
    gaps = [late - early for early, late in zip(venue.began, venue.began[1:], strict=False)]
    assert gaps[:9] == pytest.approx([2.0**number for number in range(9)])
    assert gaps[9:] == pytest.approx([300.0] * len(gaps[9:]))
    assert len(gaps) > 12


def test_a_stream_that_was_down_at_the_start_triggers_polls_once_it_is_up(site: Site) -> None:
    """The first attempt fails, the second succeeds: its pushes trigger polls as any other."""
    venue = PushingTestVenue(site.time, "one", ((0.1, VenueDownError("no route to host")),))
    hears = PushingTestVenue(site.time, "one", ((0.3, push("orders")),))
    first = venue.listen

    async def listen(hear: Callable[[Push], None]) -> None:
        await (hears.listen if venue.began else first)(hear)

    venue.listen = listen  # type: ignore[method-assign] # another script the second time
    site.run(site.runner(venue), 3)
    assert venue.read_at == pytest.approx([0.0, 1.0, 1.4, 2.0])


def test_a_stream_whose_credentials_are_rejected_is_not_retried(site: Site) -> None:
    """Retrying with a wrong key gets an address banned; one warning states what remains."""
    error = CredentialsRefusedError("invalid key")
    venue = PushingTestVenue(site.time, "one", ((0.5, error),))
    site.run(site.runner(venue), 8)
    notices = [notice.text for report in site.seen.reports for notice in report.notices]
    after = "from now on the account is polled at the interval only"
    assert notices == [f"the stream of account one is closed for this run: invalid key; {after}"]
    assert venue.began == [0.0]


def test_a_stop_ends_the_listening(site: Site) -> None:
    """No task of it remains, whether the run ends well or not."""
    venue = PushingTestVenue(site.time, "one")
    runner = site.runner(venue)
    site.run(runner, 1)
    assert venue.listeners == 0
    other = PushingTestVenue(site.time, "two")
    broken = site.runner(other)

    async def fails() -> TickReport:
        raise RuntimeError("a defect in deciding")

    broken.tick = fails  # type: ignore[method-assign] # breaks the run
    with pytest.raises(RuntimeError, match="a defect in deciding"):
        site.run(broken, 3)
    assert other.listeners == 0


def test_pushed_passes_are_not_counted_as_ticks(site: Site) -> None:
    """`status` counts scheduled passes."""
    venue = PushingTestVenue(site.time, "one", ((0.3, push("orders")), (1.3, push("orders"))))
    site.run(site.runner(venue), 3)
    blob = site.store.live(LIVE_NAME)
    assert blob is not None
    assert decode_view(blob).ticks == 3
    assert len(site.seen.reports) == 5


class SlowToFill(PushingTestVenue):
    """A venue that takes two seconds for an order, so that a close of several positions runs during pushes."""

    def __init__(self, time: VirtualTime, account: str, script: Script) -> None:
        traits = VenueTraits((RateLimit("orders", 1, 2.0),), (Cost("submit", "orders", each=1),))
        super().__init__(time, account, script, traits)
        self.left: list[float] = []

    def hold(self, mark: int) -> None:
        """1,100 at cost with 10 contracts long of each of three symbols, bought at 110."""
        one = book("1100", self.account)
        assert one.positions is not None
        assert one.instruments is not None
        symbols = ("C0", "C1", "C2")
        pnl = Decimal(10 * (mark - 110))
        positions = tuple(
            replace(
                one.positions[0],
                symbol=symbol,
                mark_price=Decimal(mark),
                notional=Decimal(10 * mark),
                unrealized_pnl=pnl,
            )
            for symbol in symbols
        )
        rules = tuple(replace(one.instruments[0], symbol=symbol) for symbol in symbols)
        self.answer = replace(one, positions=positions, instruments=rules, equity=1100 + 3 * pnl)

    async def submit(self, request):  # type: ignore[no-untyped-def] # as its base
        self.left.append(self.time.monotonic())
        await asyncio.sleep(TRIP)
        return await super().submit(request)


def test_a_close_keeps_the_venues_own_pace_under_a_storm_of_pushes(site: Site) -> None:
    """Orders leave every two seconds, as the limit requires, while fifty pushes a second trigger passes."""
    script = tuple((1.5 + number * 0.02, push("orders")) for number in range(400))
    venue = SlowToFill(site.time, "one", script)
    venue.hold(mark=108)
    venue.on_push = lambda _: venue.hold(mark=102) if not venue.left and len(venue.read_at) < 4 else None
    site.run(site.runner(venue), 10)
    assert len(venue.left) == 3
    gaps = [late - early for early, late in zip(venue.left, venue.left[1:], strict=False)]
    assert gaps == pytest.approx([2.0 + TRIP] * 2, abs=5 * TRIP)
