"""The tick: poll, decide, record, act; and the effect of each kind of failure on it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.audit.log_files import verify_source
from killswitch.gate.lock_reader import read_lock
from killswitch.graph.nodes import Graph, PolicySet, ScopeRule
from killswitch.incident.record.results import newest_results
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Snapshot, decode_snapshot
from killswitch.model.store import ALERTS
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import operator_event
from killswitch.operations.pages.decision import decision_history_of
from killswitch.runner.lease import LeaseRefusedError
from killswitch.runner.loop import Runner
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import LIVE_NAME, decode_view
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, World, book, crash_policy, observing, refusing
from tests.worlds import START, account


async def crash(world: World, store: SqlStore, venue: ScriptedVenue, *, armed: bool = True,
                policies: PolicySet | None = None) -> Seen:  # fmt: skip
    """A runner that sees 1,000, then 850, and has unlimited time to close."""
    seen = Seen()
    runner = world.runner(store, [venue], armed=armed, policies=policies, witnesses=(seen,))
    venue.answer = book("1000")
    await runner.start()
    await runner.tick()
    venue.answer = book("850")
    await world.clock.sleep(1.0)
    await runner.tick()
    assert await runner.close_within(60.0)
    await world.clock.sleep(1.0)
    await runner.tick()
    await runner.finish()
    return seen


def test_a_snapshot_that_no_longer_decodes_leaves_the_decision_readable(world: World) -> None:
    """A format that has changed, or a torn row: the decision and its outcome are reported all the same."""
    store = world.open()
    asyncio.run(crash(world, store, ScriptedVenue(None)))
    ((decision, before),) = newest_results(store, 1)
    with closing(sqlite3.connect(world.folder / "store.sqlite")) as raw, raw:
        raw.execute("UPDATE decisions SET snapshot = ?", (b'{"as_of": "yesterday"}',))
    assert [(each.id, result.standing) for each, result in newest_results(store, 1)] == [(decision.id, before.standing)]
    assert decision_history_of(store, decision.id).snapshot is None


def test_a_crash_is_decided_recorded_locked_and_closed(world: World) -> None:
    """The whole of a tick, in the order of its journal: planned, locked, sent, verified flat."""
    store, venue = world.open(), ScriptedVenue(None)
    seen = asyncio.run(crash(world, store, venue))
    (decision,) = [decision for report in seen.reports for decision in report.decisions]
    assert (decision.level, decision.stage, decision.scope) == (3, "close-everything", "account/main")
    assert [("sell", Decimal(10), True)] == [(r.side, r.amount, r.reduce_only) for r in venue.sent]
    kinds = [entry.kind for entry in store.journal(decision.id)]
    assert kinds.index("planned") < kinds.index("locked") < kinds.index("sending") < kinds.index("verified")
    assert kinds[-1] == "finished"
    verdict = read_lock(world.folder / "locks" / "account__main.json", world.clock.now())
    assert (verdict.locked, verdict.mode) == (True, "reduce_only")
    assert read_lock(world.folder / "union.json", world.clock.now()).locked
    assert seen.reports[-1].snapshot.closings[0].status == "flat"
    stored = store.decision(decision.id)
    assert stored is not None
    assert stored.snapshot is not None
    assert decode_snapshot(stored.snapshot).accounts[0].equity == book("850").equity


def test_a_start_repeats_no_page_though_the_state_of_alerts_is_damaged(world: World) -> None:
    """It knows from the notices of the last hour what was reported; after that hour it is reported again."""

    async def starts() -> list[list[str]]:
        pages: list[list[str]] = []
        for later in (0.0, 1.0, 3600.0):
            await world.clock.sleep(later)
            store = world.open()
            store.put_live(ALERTS, b"{]")
            runner = world.runner(store, [ScriptedVenue(book("1000"))], policies=policies)
            await runner.start()
            pages.append([notice.text for notice in (await runner.tick()).notices])
            await runner.finish()
            await runner.shut_down()
            store.close()
        return pages

    policies = graphs.policy_set(observing(crash_policy()))
    first, second, third = asyncio.run(starts())
    assert first == third
    assert (len(first), second) == (1, [])


@pytest.mark.parametrize("why", ["not armed", "the policy observes"])
def test_unarmed_decisions_are_recorded_and_nothing_is_sent(world: World, why: str) -> None:
    """Live is armed twice, and an observing policy never acts: no order, no lock, but the decision is recorded."""
    store, venue = world.open(), ScriptedVenue(None)
    policies = graphs.policy_set(observing(crash_policy())) if why == "the policy observes" else None
    seen = asyncio.run(crash(world, store, venue, armed=why != "not armed", policies=policies))
    (decision,) = [decision for report in seen.reports for decision in report.decisions]
    assert venue.sent == []
    assert store.journal(decision.id) == []
    assert all(report.acting_on == () for report in seen.reports)
    lock = world.folder / "locks" / "account__main.json"
    assert not lock.exists() or not read_lock(lock, world.clock.now()).locked


def test_a_decision_over_armed_and_unarmed_accounts_is_carried_out_on_the_armed(world: World) -> None:
    """A portfolio's decision names both; only the armed account sends, and only its part is planned."""
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.runner.assembly import assemble
    from tests.runner_world import PACE

    graph = replace(crash_policy(), scope=ScopeRule("portfolio", None, None, None, None))
    store = world.open()
    one, two = ScriptedVenue(book("1000", "one"), "one"), ScriptedVenue(book("1000", "two"), "two")
    accounts = {
        "one": ArmedAccount("one", "paper", "swap", "USDT", one, armed=True),
        "two": ArmedAccount("two", "paper", "swap", "USDT", two, armed=False),
    }

    async def story() -> str:
        runner = assemble(graphs.policy_set(graph), accounts, store, world.clock, PACE, live=True, locks=world.locks)
        await runner.start()
        await runner.tick()
        one.answer, two.answer = book("500", "one"), book("500", "two")
        await world.clock.sleep(1.0)
        report = await runner.tick()
        assert await runner.close_within(60.0)
        (decision,) = report.decisions
        assert {"one", "two"} == {intent.account for intent in decision.intents}
        return decision.id

    decision = asyncio.run(story())
    assert (len(one.sent), len(two.sent)) == (1, 0)
    assert {None, "one"} == {entry.account for entry in store.journal(decision) if entry.kind == "planned"}


@pytest.mark.parametrize(
    ("policy", "armed", "problem"),
    [(replace(crash_policy(), scope=ScopeRule("account", ("mian",), None, None, None)), True, True),
     (observing(crash_policy()), True, True), (crash_policy(), True, False), (observing(crash_policy()), False, False)],
    ids=["misspelled", "observing", "watched", "not armed"],
)  # fmt: skip
def test_an_armed_account_that_no_policy_watches_is_a_problem_for_as_long_as_it_runs(
    world: World, policy: Graph, armed: bool, problem: bool
) -> None:
    """A misspelled scope looks just like a calm market."""
    store = world.open()

    async def story() -> TickReport:
        runner = world.runner(store, [ScriptedVenue(book("1000"))], armed=armed, policies=graphs.policy_set(policy))
        await runner.start()
        return await runner.tick()

    problem_text = "account main is armed, and no enforcing policy has it in its scope"
    report = asyncio.run(story())
    assert any(problem_text in each.text for each in report.notices) is problem
    assert any(problem_text in each for each in report.problems) is problem


def test_a_venue_that_is_down_is_a_quality_and_does_not_end_the_run(world: World) -> None:
    """A tick with a venue error carries the reason, and the next tick reads the venue again."""

    async def story() -> tuple[Snapshot, Snapshot]:
        store, venue = world.open(), ScriptedVenue(VenueDownError("maintenance"))
        runner = world.runner(store, [venue])
        await runner.start()
        first = (await runner.tick()).snapshot
        venue.answer = account("1000")
        await world.clock.sleep(1.0)
        return first, (await runner.tick()).snapshot

    first, second = asyncio.run(story())
    assert (first.accounts[0].quality, first.accounts[0].reason) == ("down", "maintenance")
    assert second.accounts[0].quality == "ok"


def test_a_store_that_fails_ends_the_run_before_anything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acting unrecorded is worse than stopping: no order, no lock, and the run raises the error."""
    store, venue = world.open(), ScriptedVenue(book("1000"))

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = book("500")

        def refuse(record: object) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(store, "commit_tick", refuse)
        await world.clock.sleep(1.0)
        await runner.run(asyncio.Event(), ticks=1)

    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(story())
    assert venue.sent == []
    assert venue.closed, "the connection was not given back"
    assert not read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).locked


class RecordReader(ScriptedVenue):
    """Reads the record in the file, as another process would, at the moment an order arrives."""

    def __init__(self, answer: AccountSnapshot, store: Path) -> None:
        super().__init__(answer)
        self.store = store
        self.announced: dict[str, bool] = {}

    async def submit(self, request: OrderRequest) -> OrderReport:
        with closing(open_store(str(self.store), read_only=True)) as store:
            lines = [json.loads(line.text) for line in store.record_lines()]
        ours = [each for each in lines if each.get("client_order_id") == request.client_order_id]
        self.announced[request.client_order_id] = [each.get("announces") for each in ours] == [True]
        return await super().submit(request)


def test_an_order_is_announced_in_the_record_before_the_venue_sees_it(world: World) -> None:
    """Durable and unanswered at that moment; answered afterwards."""
    store, venue = world.open(), RecordReader(book("1000"), world.folder / "store.sqlite")

    asyncio.run(crash(world, store, venue))
    assert venue.announced and all(venue.announced.values())
    unanswered = verify_source(store).unanswered.first
    lines = {line.number: json.loads(line.text) for line in store.record_lines()}
    assert not [number for number in unanswered if lines[number].get("client_order_id") in venue.announced]


def test_a_lock_that_cannot_be_written_is_reported_and_does_not_keep_positions_open(world: World) -> None:
    """L3: the close continues, the trouble is a page, and the lock is written as soon as the folder allows it."""
    store, venue = world.open(), ScriptedVenue(None)
    (world.folder / "locks").write_text("a file where the folder should be", encoding="utf-8")
    seen = asyncio.run(crash(world, store, venue))
    assert len(venue.sent) == 1
    assert any("lock of account/main is not written" in problem for problem in seen.reports[-1].problems)
    notices = [notice for notice in store.notices(10) if notice.policy == "runner"]
    assert any("lock of account/main is not written" in notice.text and notice.severity == "page" for notice in notices)

    async def again() -> None:
        (world.folder / "locks").unlink()
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.finish()

    asyncio.run(again())
    assert read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).locked


def test_a_restart_writes_the_lock_that_a_kill_prevented(world: World) -> None:
    """L1: the lock is planned in the decision's own transaction, so a crash before the file loses nothing."""
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))
    (world.folder / "locks" / "account__main.json").unlink()
    (world.folder / "union.json").unlink()

    async def again() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.finish()

    asyncio.run(again())
    assert read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).mode == "reduce_only"
    assert read_lock(world.folder / "union.json", world.clock.now()).locked


def test_a_restart_does_not_fire_again_and_continues_from_the_stage(world: World) -> None:
    """D7: the latch, and the drawdown behind it, come from the store."""
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))

    async def again() -> list[object]:
        seen = Seen()
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()
        return [decision for report in seen.reports for decision in report.decisions]

    assert asyncio.run(again()) == []
    blob = store.live(LIVE_NAME)
    assert blob is not None
    (machine,) = decode_view(blob).machines
    assert (machine.level, machine.stage) == (3, "close-everything")


def test_a_manual_reset_is_processed_once_ends_the_latch_and_lifts_the_lock(world: World) -> None:
    """L5: an operator command is an event of the next tick; after it the machine is at 0 and bots may trade."""
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))
    store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", world.clock.now()))

    async def again() -> list[tuple[str | None, int]]:
        seen = Seen()
        runner = world.runner(store, [venue], witnesses=(seen,))
        await runner.start()
        for _ in range(3):
            await world.clock.sleep(1.0)
            await runner.tick()
        await runner.finish()
        return [(decision.kind, decision.level) for report in seen.reports for decision in report.decisions]

    assert asyncio.run(again()) == [("reset", 0)]
    assert store.pending_events() == []
    assert not read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).locked


def test_a_manual_reset_lifts_the_lock_once_its_close_has_ended(world: World) -> None:
    """A command that finds no runner ticks once: the lock waits for the close, and no tick comes after it."""
    store, venue = world.open(), GatedVenue(book("1000"))

    def locked() -> bool:
        return read_lock(world.folder / "locks" / "account__main.json", world.clock.now()).locked

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        await world.clock.sleep(1.0)
        store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", world.clock.now()))
        await runner.tick()
        await world.clock.sleep(1.0)
        store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", world.clock.now()))
        await runner.tick()
        assert locked()
        venue.gate.set()
        assert await runner.close_within(60.0)
        assert locked()
        await runner.finish()

    asyncio.run(story())
    assert not locked()


def test_a_reset_of_one_policy_leaves_the_lock_that_another_still_requires(world: World) -> None:
    """L2: the scope's file is lifted when no policy requires it any more, and not before."""
    from killswitch.accounts.arming import ArmedAccount, Arming
    from killswitch.model.decision import Decision, LockOrder
    from killswitch.model.store import TickRecord
    from tests.lock_turns import LockFolder, Locking

    store, now = world.open(), world.clock.now()
    policies = graphs.policy_set(crash_policy(), graphs.graph([], [], [], policy="other"))
    accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", ScriptedVenue(None), armed=True)}

    def locking() -> Locking:
        folder = LockFolder(world.locks.folder, None, generation=1, alive_for=3600.0)
        return Locking(folder, store, Arming(accounts, policies))

    def decision(policy: str, kind: str | None = None) -> Decision:
        return Decision(
            id=f"{policy}-{kind or 'fires'}", as_of=now, policy=policy, policy_set="sha256:test", scope="account/main",
            mode="enforce", stage="stop", level=1, previous_level=0, kind=kind,  # type: ignore[arg-type]  # literal
            lock=None if kind else LockOrder("account/main", "reduce_only", None),
        )  # fmt: skip

    def commit(one: Decision, gate: Locking) -> None:
        store.commit_tick(TickRecord(now, "sha256:test", (), (), (one,), (), gate.planned(one), None, (), 0))
        gate.act((one,), now)

    def locked() -> bool:
        return read_lock(world.locks.folder / "account__main.json", now).locked

    gate = locking()
    for policy in ("crash", "other"):
        commit(decision(policy), gate)
    commit(decision("crash", "reset"), gate)
    assert locked()
    restarted = locking()
    restarted.recover(now)
    assert locked(), "a restart lifted a lock that is still wanted"
    commit(decision("other", "reset"), restarted)
    assert not locked()


def test_a_second_runner_on_the_store_is_refused(world: World) -> None:
    """The lease is acquired before anything else is read or written."""
    store = world.open()
    store.acquire("elsewhere/1/1", to_micros(world.clock.now()), 3600 * SECOND)
    with pytest.raises(LeaseRefusedError):
        world.runner(store, [ScriptedVenue(book("1"))])
    assert store.states() == []


def test_closing_without_ticks_keeps_the_lease(world: World) -> None:
    """A manual close ticks once and then works for as long as it takes: no other runner may start meanwhile."""
    store = world.open()

    async def story() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1000"))])
        await runner.start()
        await runner.tick()
        for _ in range(120):
            await world.clock.sleep(1.0)
            await runner.advance()
        lease = store.lease()
        assert lease is not None
        assert lease.expires_at > to_micros(world.clock.now())
        await runner.finish()

    asyncio.run(story())


def test_a_latch_that_was_only_observed_is_paged_when_the_account_is_armed(world: World) -> None:
    """An armed start on a store that has observed a firing reports that nothing was sent for it."""
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue, armed=False))
    seen = asyncio.run(_one_tick(world, store, venue))
    assert any("which was only observed" in problem for problem in seen.reports[0].problems)


async def _one_tick(world: World, store: SqlStore, venue: ScriptedVenue, policies: PolicySet | None = None) -> Seen:
    seen = Seen()
    runner = world.runner(store, [venue], policies=policies, witnesses=(seen,))
    await runner.start()
    await world.clock.sleep(1.0)
    await runner.tick()
    await runner.finish()
    return seen


def test_a_stop_takes_effect_between_ticks_and_releases_the_lease(world: World) -> None:
    """A set stop ends the run after the current step; the next runner need not wait."""
    store = world.open()

    async def story() -> None:
        stop = asyncio.Event()

        class StopAtThird:
            ticks = 0

            def ticked(self, report: object) -> None:
                self.ticks += 1
                if self.ticks == 3:
                    stop.set()

        observer = StopAtThird()
        await world.runner(store, [ScriptedVenue(book("1000"))], witnesses=(observer,)).run(stop)
        assert observer.ticks == 3

    asyncio.run(story())
    assert store.lease() is None
    assert world.clock.now() >= START


def test_c4_a_close_that_ends_short_is_paged_once_over_restarts(world: World) -> None:
    """C4: what a trim could not close is reported with the remainder, and a restart does not report it again.

    A full close would continue while the venue shows the position.
    """
    store, venue = world.open(), refusing(None, OrderRejectedError("below_minimum", "it is too small"))
    crash = crash_policy()
    trim = replace(crash.stages[0], actions=(graphs.close(fraction="0.5"),))
    policies = graphs.policy_set(replace(crash, stages=(trim,)))

    async def until_ended() -> None:
        runner = world.runner(store, [venue], policies=policies)
        venue.answer = book("1000")
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        await world.clock.sleep(1.0)
        await runner.tick()
        assert await runner.close_within(36_000.0)
        for _ in range(3):
            await world.clock.sleep(1.0)
            await runner.tick()
        await runner.finish()

    asyncio.run(until_ended())
    asyncio.run(_one_tick(world, store, venue, policies))
    notices = [notice for notice in store.notices(50) if "left: 5 BTC long on main" in notice.text]
    assert [(notice.policy, notice.severity) for notice in notices] == [("runner", "page")]


class GatedVenue(ScriptedVenue):
    """Answers no order until its gate is open."""

    def __init__(self, answer: AccountSnapshot) -> None:
        super().__init__(answer)
        self.gate = asyncio.Event()

    async def submit(self, request: OrderRequest) -> OrderReport:
        await self.gate.wait()
        return await super().submit(request)


def corroborated() -> PolicySet:
    graph = crash_policy()
    return graphs.policy_set(replace(graph, stages=(replace(graph.stages[0], corroborate=True),)))


@pytest.mark.parametrize(
    ("second", "fires"),
    [(book("1000"), False), (book("840"), True), (VenueDownError("gone"), True)],
    ids=["the fall is gone", "the fall is still there", "no second reading: the first one stands"],
)
def test_d16_a_corroborated_stage_polls_again_before_it_acts(world: World, second: object, fires: bool) -> None:
    """D16: one bad snapshot closes nothing; a venue that fails just then does not keep the stage from firing."""

    def then_second(answer: AccountSnapshot) -> AccountSnapshot:
        if venue.reads == 2:
            venue.answer = second  # type: ignore[assignment]  # a snapshot or an exception by the cases
        return answer

    venue = ScriptedVenue(book("1000"))
    venue.change("snapshot", then_second)

    async def story() -> tuple[int, int]:
        store = world.open()
        runner = world.runner(store, [venue], policies=corroborated())
        await runner.start()
        await runner.tick()
        venue.answer = book("850")
        await world.clock.sleep(1.0)
        report = await runner.tick()
        # one for each tick, one to corroborate; and at least one of the closing, where it fired
        assert venue.reads > 3 if fires else venue.reads == 3
        uncorroborated = [notice for notice in report.notices if notice.kind == "uncorroborated"]
        return len(report.decisions), len(uncorroborated)

    assert asyncio.run(story()) == ((1, 0) if fires else (0, 1))


def test_a_failing_observer_stops_neither_the_close_nor_other_observers(world: World) -> None:
    """A failing observer is a problem for as long as it fails; the orders have left before any observer is notified."""
    store, venue = world.open(), ScriptedVenue(None)
    sent_when_told: list[int] = []

    class Deaf:
        def ticked(self, report: TickReport) -> None:
            if report.decisions:
                sent_when_told.append(len(venue.sent))
                raise OSError(28, "No space left on device")

    seen = Seen()

    async def story() -> None:
        runner = world.runner(store, [venue], witnesses=(Deaf(), seen))
        for equity in ("1000", "850", None, None):
            if equity is not None:
                venue.answer = book(equity)
            await world.clock.sleep(1.0)
            await (runner.tick() if seen.reports else _start_and_tick(runner))
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    problem = "the observer Deaf failed (OSError: [Errno 28] No space left on device); closing continues"
    assert sent_when_told == [1]
    assert [problem in report.problems for report in seen.reports] == [False, False, True, False]
    assert problem in [notice.text for notice in store.notices(10)]


async def _start_and_tick(runner: Runner) -> None:
    await runner.start()
    await runner.tick()


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("killswitch.runner.locks.lock_writer.LockWriter.settle", "the locks"),
        ("killswitch.runner.notify.notifier.Notifier.outgoing", "what is to be notified"),
        ("killswitch.runner.observer_notification.set_tick_attributes", "the trace of a tick"),
    ],
    ids=lambda each: each.rpartition(".")[2],
)
def test_a_defect_outside_the_close_is_a_problem_and_keeps_no_position_open(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str, part: str
) -> None:
    """Whatever locks, messages or traces raise: the order leaves, and a tick names the defect while it lasts."""
    store, venue, seen = world.open(), ScriptedVenue(book("1100")), Seen()

    def mistaken(*_: object, **__: object) -> None:
        raise KeyError("a mistake of ours")

    async def story() -> None:
        runner = world.runner(store, [venue], witnesses=(seen,))
        await _start_and_tick(runner)
        with monkeypatch.context() as patch:
            patch.setattr(place, mistaken)
            venue.answer = book("850")
            for _ in range(2):
                await world.clock.sleep(1.0)
                await runner.tick()
        await world.clock.sleep(1.0)
        for _ in range(2):
            await world.clock.sleep(1.0)
            await runner.tick()
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert len(venue.sent) == 1
    assert f"{part} failed (KeyError: 'a mistake of ours'); closing continues" in seen.reports[2].problems
    assert seen.reports[-1].problems == ()
