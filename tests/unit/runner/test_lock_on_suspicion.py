"""A run in which 30% of an account leaves without a row: what is locked, shown and notified, and that nothing fires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount, Arming, left_to_do, observed_latches
from killswitch.engine.alerts import AlertState
from killswitch.gate.lock_reader import read_lock
from killswitch.graph.nodes import PolicySet
from killswitch.graph.routing import Route, RouteRule, RouteTarget
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.notify.message import decode_message
from killswitch.incident.notify.routing import NotificationRouter
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import EquityCurve
from killswitch.incident.record.incident_decisions import read_incidents
from killswitch.incident.record.results import newest_results
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import HOUR
from killswitch.model.snapshot import AccountSnapshot, Flow, Order, Snapshot
from killswitch.model.store import TickRecord
from killswitch.operations.pages.decision import decision_history_of
from killswitch.operations.preview import from_store, of_policies, plan_of, preview
from killswitch.operations.status import store_status
from killswitch.runner.event_emitter import EventEmitter
from killswitch.runner.loop import Runner
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.notify.reports import ReportRenderer
from killswitch.store.sql import SqlStore
from killswitch.telemetry.events import Suspicion, decode_event
from tests import graphs, worlds
from tests.runner_world import PACE, ScriptedVenue, Seen, World, crash_policy
from tests.shown import decision_history_text, history_text, plan_text, status_text

ENTRY = Order("e1", "BTC", "buy", Decimal(1), price=Decimal(50))


class Cancelling(ScriptedVenue):
    """Removes an order from the book when it is cancelled."""

    async def cancel(self, symbol: str, order_id: str) -> None:
        assert isinstance(self.answer, AccountSnapshot)
        self.resting = tuple(order for order in self.resting if order.id != order_id)

    async def open_orders(self) -> tuple[Order, ...]:
        return self.resting

    resting: tuple[Order, ...] = (ENTRY,)


class Run:
    """A runner on one account of 1,100, of which 10 contracts at 110 are held; it is polled each second."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.store: SqlStore = self.world.open()
        self.venue = Cancelling(None)
        self.seen = Seen()
        self.policies = graphs.policy_set(crash_policy())
        self.runner = self.world.runner(self.store, [self.venue], policies=self.policies, witnesses=(self.seen,))

    async def reads(self, equity: str, seconds: int, pnl: str = "0", flows: Sequence[Flow] = ()) -> None:
        """So many ticks that find this equity, with the ledger known up to the second before."""
        for _ in range(seconds):
            now = self.world.clock.now()
            known = now - timedelta(seconds=1)
            mark = 110 + Decimal(pnl) / 10
            held = worlds.position("BTC", "long", pnl, contracts="10", entry_price="110", mark_price=str(mark),
                                   notional=str(mark * 10))  # fmt: skip
            self.venue.answer = worlds.account(
                equity, (held,), orders=self.venue.resting, flows=flows, instruments=(worlds.rules("BTC"),),
                unrealized=Decimal(pnl), fills_as_of=known, flows_as_of=known,
            )  # fmt: skip
            await self.runner.tick()
            await self.runner.close_within(5.0)
            await self.world.clock.sleep(1.0)

    @property
    def is_locked(self) -> bool:
        return read_lock(self.world.locks.folder / "account__main.json", self.world.clock.now()).locked

    def status(self) -> str:
        return status_text(store_status(self.store, self.world.clock.now(), 5), "store.sqlite")

    def decisions(self) -> list[Decision]:
        """Oldest first."""
        return [stored.decision for stored in reversed(self.store.decisions(100))]

    async def ends(self) -> None:
        await self.runner.finish()
        await self.runner.shut_down()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.world.close()


async def suspected(run: Run) -> None:
    """Quiet ticks, then 330 of 1,100 are gone; the next one suspects."""
    await run.runner.start()
    await run.reads("1100", 3)
    await run.reads("770", 2)


def test_a_suspicion_locks_for_twenty_seconds_and_sends_nothing(run: Run) -> None:
    """The file opens again by itself, nothing is latched, and no unfinished work remains."""

    async def play() -> None:
        await suspected(run)
        assert run.is_locked
        await run.reads("770", 18)
        assert run.is_locked
        await run.reads("770", 3)
        assert not run.is_locked
        await run.ends()

    asyncio.run(play())
    (decision,) = run.decisions()
    assert (decision.kind, decision.level, run.venue.sent) == ("suspicion", 0, [])
    assert [machine.level for machine in run.seen.reports[-1].machines()] == [0]
    assert not run.store.unfinished()
    assert left_to_do(run.store) == {}


def test_the_row_of_the_withdrawal_opens_the_lock_early(run: Run) -> None:
    """The withdrawal of 330 is reported five seconds late."""

    async def play() -> None:
        await suspected(run)
        withdrawal = worlds.flow("w1", worlds.after(seconds=3), "-330")
        await run.reads("770", 3)
        assert run.is_locked
        await run.reads("770", 1, flows=(withdrawal,))
        assert not run.is_locked
        await run.ends()

    asyncio.run(play())
    assert [decision.is_withdrawal for decision in run.decisions()] == [False, True]


def test_status_history_and_explain_show_the_suspicion(run: Run) -> None:
    """Until when, of which stage, and that nothing has fired; `history` shows it when nothing follows."""

    async def play() -> str:
        await suspected(run)
        shown = run.status()
        await run.reads("770", 25)
        await run.ends()
        return shown

    shown = asyncio.run(play())
    (decision,) = run.decisions()
    assert "on suspicion until 2024-01-01T00:00:24Z" in shown
    reason = "lock on suspicion, reduce_only until 2024-01-01T00:00:24Z: close-everything fires if the fall of equity"
    assert f"crash on account/main: {reason}" in shown
    assert "suspicion: equity fell by 330.00 USDT" in shown
    later = run.status()
    assert reason not in later
    assert "LOCKED" not in later
    assert "suspicion of close-everything, a lock until 2024-01-01T00:00:24Z and nothing else" in later
    history = history_text(newest_results(run.store, 10))
    assert "locked on suspicion" in history
    explained = decision_history_text(decision_history_of(run.store, decision.id[:6]))
    assert "note: suspicion: equity fell by 330.00 USDT" in explained
    assert "on suspicion: no stage has fired, and no position is closed" in explained


def test_a_plan_shows_the_lock_that_would_be_written_and_saves_none(run: Run) -> None:
    """The preview of the tick that suspects; what `--out` keeps is empty, because it would be over when applied."""

    async def play() -> Snapshot:
        await run.runner.start()
        await run.reads("1100", 3)
        await run.reads("770", 1)
        now = run.world.clock.now()
        assert isinstance(run.venue.answer, AccountSnapshot)
        fallen = worlds.after(seconds=3)
        await run.ends()
        return worlds.snapshot(now, replace(run.venue.answer, fills_as_of=fallen, flows_as_of=fallen))

    snapshot = asyncio.run(play())
    interpreter, memory = from_store(run.policies, run.store)
    shown = preview(run.policies, snapshot, interpreter, memory, frozenset({"main"}))
    text = plan_text(shown)
    assert "WOULD LOCK ON SUSPICION crash on account/main: close-everything does not fire" in text
    assert "lock account/main: reduce_only until 2024-01-01T00:00:24Z" in text
    assert "Plan: 0 stages, 0 orders, 0 cancels, 1 lock, 0 resets." in text
    assert plan_of(shown, of_policies(shown)) is None
    assert plan_of(shown, shown.decisions) is None


def test_a_plan_during_a_suspicion_shows_the_lock_in_force(run: Run) -> None:
    """Nothing is latched and nothing is to be done, and bots are locked all the same until second 24."""

    async def play() -> Snapshot:
        await suspected(run)
        await run.reads("770", 1)
        await run.ends()
        assert isinstance(run.venue.answer, AccountSnapshot)
        return worlds.snapshot(run.world.clock.now(), run.venue.answer)

    snapshot = asyncio.run(play())
    interpreter, memory = from_store(run.policies, run.store)
    text = plan_text(preview(run.policies, snapshot, interpreter, memory, frozenset({"main"})))
    assert "Nothing to do." in text
    assert "lock on suspicion, reduce_only until 2024-01-01T00:00:24Z: close-everything fires if the fall of" in text


def test_the_event_stream_distinguishes_a_suspicion_from_a_trip(run: Run) -> None:
    """One line of its own kind, with the end of its lock."""

    class Kept:
        problem = None

        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def put(self, line: bytes) -> int:
            self.lines.append(line)
            return 0

    async def play() -> None:
        await suspected(run)
        await run.ends()

    asyncio.run(play())
    kept = Kept()
    teller = EventEmitter(kept, lambda text: text)  # type: ignore[arg-type]  # all of a stream that is used
    for report in run.seen.reports:
        teller.ticked(report)
    events = [decode_event(line) for line in kept.lines]
    (suspicion,) = [each for each in events if isinstance(each, Suspicion)]
    assert (suspicion.stage, suspicion.acted_on, suspicion.lock) == ("close-everything", True, "reduce_only")
    assert suspicion.until == worlds.after(seconds=24)
    assert "Trip" not in {type(each).__name__ for each in events}


def test_cancelled_entries_count_as_no_close(run: Run) -> None:
    """66 of 1,100 are lost by marks, more than half of 10%, before 264 leave: the entry goes, and no close is shown."""

    async def play() -> None:
        await run.runner.start()
        await run.reads("1100", 3)
        await run.reads("1034", 2, pnl="-66")
        await run.reads("770", 4, pnl="-66")
        await run.ends()

    asyncio.run(play())
    (decision,) = run.decisions()
    assert [cancel.order for cancel in decision.cancels] == ["e1"]
    assert run.venue.resting == ()
    assert not run.store.unfinished()
    assert [report.snapshot.closings for report in run.seen.reports if report.snapshot.closings] == []
    ((_, result),) = newest_results(run.store, 10)
    assert (result.standing, result.cancelled, result.orders) == ("locked on suspicion", ("e1",), ())


def test_a_suspicion_opens_no_incident_and_is_part_of_the_one_that_follows(run: Run) -> None:
    """Prices take another 15% four seconds later: the incident is the stage's, with the suspicion in its timeline."""

    async def play() -> int:
        await suspected(run)
        before = len(read_incidents(run.store))
        await run.reads("770", 4)
        await run.reads("650", 4, pnl="-120")
        await run.ends()
        return before

    assert asyncio.run(play()) == 0
    suspicion, firing = run.decisions()[:2]
    (life,) = read_incidents(run.store)
    assert (life.id, firing.kind, firing.stage) == (firing.id, None, "close-everything")
    incident = incident_of(run.store, life, StartedAs("store.sqlite"))
    assert [each.decision for each in incident.firings] == [firing.id]
    moments = [moment for moment in incident.timeline if moment.kind == "suspicion"]
    assert [moment.at for moment in moments] == [suspicion.as_of]
    assert moments[0].text.startswith("suspicion: equity fell by 330.00 USDT")
    assert "lock of account/main: superseded by another lock" in [moment.text for moment in incident.timeline]


@pytest.mark.parametrize("row_comes", [False, True])
def test_the_equity_curve_of_an_incident_does_not_show_money_that_moved_as_a_loss(run: Run, *, row_comes: bool) -> None:
    """330 of 1,100 leave, and prices take 120 of the 770: before the firing a unit was worth 770 ÷ 650, never more.

    That holds while no row has come, when one comes a minute later, and after a reset by hand.
    """

    async def play() -> list[EquityCurve | None]:
        folder = run.world.folder / "rendered"
        reports = ReportRenderer(
            run.store, str(run.world.folder / "store.sqlite"), folder, pause=0.0, pause_for_work=0.0
        )
        observing = graphs.policy_set(crash_policy(mode="observe"))
        run.runner = run.world.runner(run.store, [run.venue], policies=observing, witnesses=(run.seen, reports))
        await suspected(run)
        await run.reads("650", 2, pnl="-120")
        assert reports.wait(60.0)
        found = [equity_curve(run)]
        if row_comes:
            await run.reads("650", 1, pnl="-120", flows=(worlds.flow("w1", worlds.after(seconds=3), "-330"),))
            await run.reads("650", 15, pnl="-120")
            found.append(equity_curve(run))
        run.store.put_event(worlds.operator_event("reset", run.world.clock.now()))
        await run.reads("650", 2, pnl="-120")
        assert reports.close(60.0)
        await run.ends()
        found.append(equity_curve(run))
        return found

    for found in asyncio.run(play()):
        assert found is not None
        assert found.peak == pytest.approx(770 / 650 * 100)
        assert found.points[0].value == pytest.approx(found.peak)
        assert found.pending == ()


def equity_curve(run: Run) -> EquityCurve | None:
    """The equity curve of the only incident."""
    (life,) = read_incidents(run.store)
    return incident_of(run.store, life, StartedAs("store.sqlite")).course


DESK = RouteRule(None, None, None, None, None, None, ())


SUSPICION = Decision(
    id="s", as_of=worlds.after(minutes=2), policy="crash", policy_set="sha256:test", scope="account/main",
    mode="enforce", stage="close-everything", level=0, previous_level=0, kind="suspicion",
    lock=LockOrder("account/main", "reduce_only", worlds.after(minutes=2, seconds=20)),
    fell_at=worlds.after(seconds=118),
)  # fmt: skip


def routed(rule: RouteRule) -> PolicySet:
    """The policy with one route; its stage names the risk desk."""
    stage = replace(crash_policy().stages[0], notify=("risk-desk",))
    target = (RouteTarget("file", "/dev/null"),)
    policies = graphs.policy_set(replace(crash_policy(), stages=(stage,)))
    return replace(policies, routes=(Route("r", rule, target, HOUR, graphs.HERE),))


@pytest.mark.parametrize("restarts", [False, True])
def test_a_fall_that_was_paged_is_no_second_page_when_it_is_suspected(run: Run, *, restarts: bool) -> None:
    """330 leave, which pages at once and locks a second later; the same if another run has begun in between."""
    desk = Route("r", DESK, (RouteTarget("file", str(run.world.folder / "n.jsonl")),), HOUR, graphs.HERE)
    policies, pace = replace(run.policies, routes=(desk,)), replace(PACE, stop_timeout=60.0)

    def begins() -> Runner:
        return run.world.runner(run.store, [run.venue], policies=policies, pace=pace)

    async def play() -> None:
        run.runner = begins()
        await run.runner.start()
        await run.reads("1100", 3)
        await run.reads("770", 1)
        if restarts:
            await run.ends()
            run.store.close()
            run.store = run.world.open()
            run.runner = begins()
            await run.runner.start()
        await run.reads("770", 2)
        await run.ends()

    asyncio.run(play())
    (suspicion,) = run.decisions()
    messages = [json.loads(line) for line in (run.world.folder / "n.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(each["severity"], each.get("decision")) for each in messages] == [
        ("page", None), ("warning", suspicion.id),
    ]  # fmt: skip


@pytest.mark.parametrize(("is_paged", "severity"), [(False, "page"), (True, "warning")])
def test_a_suspicion_pages_unless_its_falls_were_paged(run: Run, *, is_paged: bool, severity: str) -> None:
    """Its title has the severity, and that nothing is known to be lost."""
    notifier = Notifier(routed(DESK), run.store, run.world.clock)
    paged = frozenset({SUSPICION.id} if is_paged else ())
    (sent,) = notifier.outgoing(
        worlds.snapshot(SUSPICION.as_of), (SUSPICION,), (), (SUSPICION,), AlertState(), paged
    )  # fmt: skip
    message = decode_message(sent.body)
    assert (message.event, message.severity, message.decision) == ("notice", severity, "s")
    assert message.title == (
        f"[{severity}] suspicion: trading locked for 20 s while it is not known whether a fall of equity was a loss: "
        "crash on account/main (live)"
    )


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        (replace(DESK, notify=("risk-desk",)), True),
        (replace(DESK, notify=("head",)), False),
        (replace(DESK, least_level=3), True),
        (replace(DESK, least_level=4), False),
        (replace(DESK, events=("fired",)), False),
    ],
)
def test_a_suspicion_goes_to_the_routes_of_its_stage(rule: RouteRule, reached: bool) -> None:
    """By the stage's level, and by the targets that it names. Its end is sent as an info, so that it wakes nobody."""
    ended = replace(SUSPICION, lock=LockOrder("account/main", "reduce_only", SUSPICION.as_of))
    to = NotificationRouter(routed(rule))
    sent = [
        decode_message(each.body).severity
        for one in (SUSPICION, ended)
        for each in to.route_decision(one, is_enforced=True)
    ]
    assert sent == (["page", "info"] if reached else [])


def test_a_suspicion_hides_no_latch_that_was_only_observed(run: Run) -> None:
    """A stage fired while nothing was armed, and stays latched; the suspicion after it does not replace it."""
    accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", run.venue, armed=True)}
    fired = replace(SUSPICION, id="f", as_of=worlds.START, kind=None, level=3)
    for one in (fired, SUSPICION):
        run.store.commit_tick(TickRecord(one.as_of, "sha256:test", (), (), (one,), (), (), None, (), 0))
    assert [each.id for each in observed_latches(run.store, Arming(accounts, run.policies))] == ["f"]
