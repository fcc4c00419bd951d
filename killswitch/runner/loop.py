"""The tick loop: poll, decide, commit, act, in this order, at an interval.

An error of a venue never leaves a tick. An error of the store, the lease or the interpreter does, and ends the run: a
runner that cannot record must not act. A store file that accepts no writes, or is damaged during the run, raises no
such error as long as the store can record elsewhere (ADR 0020).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from killswitch.accounts.arming import REMEMBERED
from killswitch.accounts.next_set import NextSet
from killswitch.accounts.poll.account_poller import AccountPoller
from killswitch.engine.alerts import AlertState, advance, encode_state, read_state, renamed_alerts
from killswitch.execution.effects.performing import RunEnd
from killswitch.model.alert import NO_ALERTS, Alerts, together
from killswitch.model.applied_set import AppliedSet
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import MINUTE, SECOND, to_micros
from killswitch.model.record_entry import RecordEntry
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot, encode_snapshot
from killswitch.model.store import ALERTS, HEARTBEAT_DATES, Commands, JournalEntry, Store, TickRecord
from killswitch.model.tracing import Span
from killswitch.model.words import Severity
from killswitch.planning.interpreter import NO_OUTCOME, Interpreter, Outcome, Pending
from killswitch.record.tick_entries import WatchedTime
from killswitch.render.formats import count_of
from killswitch.runner.clock import EventDates, Timeline, WallClockCheck, on_timeline
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.give_up_commands import ended_closes, unreadable_commands
from killswitch.runner.hot_reload import HotReload, ProposedReload
from killswitch.runner.judged_keys import ending_with_accounts, judged_by, unjudged
from killswitch.runner.lease import LeaseHolder
from killswitch.runner.observer_notification import Observers
from killswitch.runner.observers import RunnerFacts, TickReport, shortfalls
from killswitch.runner.performers import Effects
from killswitch.runner.scheduler import Scheduler, Wake
from killswitch.runner.tick_inputs import HeartbeatDates, last_heartbeats
from killswitch.store.received import NOTHING_RECEIVED, ReceivedState

if TYPE_CHECKING:
    from killswitch.telemetry.metrics import NotificationCounts

REREAD_WITHIN = 2.0
"""Seconds that a reread of prices may take, at most an interval; after that the first snapshot is acted on."""


LOCKING: Final = ("lock", "halt", "pause", "close")
"""Kinds of commands that lock: one that waits for a run is applied before any lock file is kept open."""
LOOK_EVERY: Final = 1.0
"""Seconds between two passes that look whether what a close by hand names is closed, at first."""
LOOK_SHARE: Final = 0.1
"""The part of the age of the close after which the next pass looks."""
REMEMBERED_NOTICES = 200
"""Number of the newest notices from which a start knows what was reported already."""


class RunnerPace(Struct, frozen=True):
    """The interval and the timeouts of a runner, in seconds."""

    interval: float
    read_timeout: float
    head_start: float = 0.1
    """How long the executors run alone after a commit, before observers are notified."""
    stop_timeout: float = 5.0
    """How long a stop waits for requests under way."""
    lock_timeout: float = 0.1
    """How long a tick waits for the lock folder before it closes positions."""


class Runner:
    """One runner on one store. Call `start`, then `tick` repeatedly, then `finish`; `run` does all three."""

    def __init__(
        self,
        reloads: HotReload,
        store: Store,
        lease: LeaseHolder,
        clock: Timeline,
        poller: AccountPoller,
        workers: ClosingWorkers,
        effects: Effects,
        observers: Observers,
        pace: RunnerPace,
        *,
        judges: tuple[str, ...] = (),
        startup_notices: tuple[tuple[Severity, str], ...] = (),
    ) -> None:
        self.reloads = reloads
        """The policy set in force, and the one that is proposed."""
        self.interpreter = reloads.interpreter
        self.store = store
        self.lease = lease
        """Held already."""
        self.clock = clock
        """The clock of the whole run."""
        self.poller = poller
        self.workers = workers
        self.effects = effects
        self.observers = observers
        self.pace = pace
        self.judges = judges
        """How the keys of alerts begin that were judged before the run."""
        self._after_acting = NO_ALERTS
        """What was wrong after the last pass had acted."""
        self._problems = self.reloads.lasting.texts
        self._scheduler = Scheduler(self.workers, self.clock)
        self._wall = WallClockCheck(self.clock)
        self._event_dates = EventDates(self.clock.leap)
        self._heartbeats = HeartbeatDates()
        self._watched = WatchedTime(_longest_gap(self.interpreter))
        self._startup_notices = startup_notices
        self.received: Callable[[datetime], ReceivedState] = lambda _: NOTHING_RECEIVED
        """What other programs have reported to the server of this run, as of a tick."""
        self._alerts = AlertState()
        self._unjudged: tuple[str, ...] = ()
        """The keys of alerts of earlier runs that no part of this run has judged."""
        self._has_ticked = False
        self._last_full = -math.inf
        """Monotonic seconds of the begin of the last pass that was to poll all accounts."""
        self.ticks = 0
        """Ticks that `run` has completed."""
        self.sentinel: Callable[[], str | None] = lambda: None
        """Why everything is halted by a sentinel file; None: there is none."""
        self.stop_problems: tuple[str, ...] = ()
        """A message for each problem of the stop: timers that still run, an incomplete recording."""

    @property
    def in_force(self) -> AppliedSet:
        """The policy set in force."""
        return self.reloads.in_force

    def propose(self, proposed: NextSet) -> ProposedReload:
        """Propose another policy set, from any thread: it is taken between two ticks, or refused with its reasons."""
        return self.reloads.propose(proposed)

    async def run(self, stop: asyncio.Event, ticks: int | None = None) -> RunEnd:
        """Tick at the interval until `stop` is set, `ticks` times, or until an effect ends the run; return its end.

        Raises what must end a run.
        """
        self._scheduler.bind()
        try:
            await self.start()
            self.poller.streams.start()
            end = await self._tick_until_end(stop, ticks)
            await self.finish()
            return end
        finally:
            await self.shut_down()

    async def _tick_until_end(self, stop: asyncio.Event, ticks: int | None) -> RunEnd:
        while (end := self._end(stop, ticks)) is None:
            begun = self.clock.monotonic()
            await self.tick()
            due = begun + self._interval()
            self._scheduler.next_due = due
            self.ticks += 1
            while self._end(stop, ticks) is None:
                look = self._look_at()
                wake = await self._scheduler.until(min(due, look), stop, self.poller)
                if wake is not None:
                    await self.woken(wake)
                elif look >= due or stop.is_set():
                    break
                else:
                    self._scheduler.called.set()
        return end

    def _look_at(self) -> float:
        """When a pass looks again at closes by hand that are not seen closed: later and later, infinite without one.

        A long interval of the ticks must not delay what the first answer left out, nor must pushes of other accounts:
        the time counts from the last pass that was to poll all.
        """
        closes = [each for each in self.interpreter.unfinished_closes().values() if each.unseen]
        if not closes or self._scheduler.called.is_set():
            return math.inf
        age = (to_micros(self.clock.now()) - max(each.since for each in closes)) / SECOND
        return self._last_full + max(LOOK_EVERY, age * LOOK_SHARE)

    def _interval(self) -> float:
        """Seconds between two scheduled ticks now: fewer while a way back declares closer attention."""
        closer = self.interpreter.recoveries.interval
        return self.pace.interval if closer is None else min(self.pace.interval, closer / 1_000_000)

    def _end(self, stop: asyncio.Event, ticks: int | None) -> RunEnd | None:
        """How the run ends now; None: it continues. An effect precedes a stop: it is journaled already."""
        if (end := self.effects.performing.run_end) is not None:
            return end
        if stop.is_set():
            return RunEnd("stop", "stopped")
        return RunEnd("ticks", f"{count_of(ticks, 'tick')} completed") if self.ticks == ticks else None

    async def start(self) -> None:
        """Recover from an earlier run: locks first, then closings, then the stage machines."""
        self.observers.start()
        if self.sentinel() is not None or any(event.kind in LOCKING for event in self.store.pending_events()):
            self.effects.hold_files_back()
        await self.effects.performing.recover()
        self._after_acting = self.effects.lock_alerts
        self._problems = (self.reloads.lasting + self._after_acting).texts
        unfinished = [stored.decision for stored in self.store.unfinished()]
        past = [stored.decision for stored in self.store.decisions(REMEMBERED)]
        leap = self.clock.leap
        outage = None if leap is None else (to_micros(leap.since), to_micros(leap.until))
        self.interpreter.restore(self.reloads.states(), self.reloads.rows, unfinished, past, outage, self.store.live)
        self._heartbeats.restore(self.store.live(HEARTBEAT_DATES))
        earlier = self.store.notices(REMEMBERED_NOTICES)
        now, notified = to_micros(self.clock.now()), self.interpreter.notified_earlier
        alerts = read_state(self.store.live(ALERTS), earlier, now, notified)
        self._alerts, self._unjudged = ending_with_accounts(alerts, self.poller.accounts)

    async def tick(self) -> TickReport:
        """One pass: poll every account, decide, commit in one transaction, act."""
        with self.reloads.ticking():
            return await self._pass(None)

    def call_tick(self) -> None:
        """Begin a tick at once instead of at the next interval, from any thread; it does not count as a scheduled one.

        For what must not wait: an operator command, and the firing of a dead-man's switch.
        """
        self._scheduler.call()

    async def woken(self, wake: Wake = "push") -> TickReport:
        """One pass between two ticks.

        After a push, the accounts that pushed are polled, and the others have their last snapshot; after a call, all
        are polled, as far as the venues' limits have room.
        """
        with self.reloads.ticking():
            return await self._pass(wake)

    async def _pass(self, wake: Wake | None) -> TickReport:
        """`wake`: what began it before its time; None for a scheduled tick."""
        with self.observers.tracer.span("tick") as span:
            began = self.clock.monotonic()
            self._last_full = self._last_full if wake == "push" else began
            self.lease.renew()
            accounts, polled = await self._poll(wake, span)
            fresh = [account for account in accounts if account.account in polled]
            self._pass_to_executors(fresh)
            self._scheduler.called.clear()
            self.observers.polled(accounts)
            commands = self.store.commands()
            snapshot = self._snapshot(accounts, commands, scheduled=wake is None)
            self.poller.observe(fresh, snapshot.as_of)
            outcome = await self._decide(snapshot, span)
            acting = self.effects.acted_on(outcome.decisions)
            ended, answers = ended_closes(snapshot.events, self.store, snapshot.as_of, outcome.notices)
            of_alerts, alerts = self._advance_alerts(snapshot, commands, outcome)
            notices = (
                outcome.notices + answers + of_alerts + self.observers.notices() + self.observers.answers(snapshot)
            )
            with span.span("commit"):
                watched = self._watched.observe(fresh, snapshot.as_of)
                self._commit(snapshot, outcome, notices, acting, ended, commands, alerts, watched)
            self._alerts, self._has_ticked = alerts, True
            self.workers.give_up(ended)
            await self._act(_without_events(snapshot, outcome.refused), acting)
            if acting:
                # The first orders leave before observers are notified.
                await self.workers.advance(self.pace.head_start)
            report = TickReport(
                snapshot, outcome.decisions, notices, tuple(decision.id for decision in acting),
                self._problems, self.clock.monotonic() - began, self.interpreter.status, self._facts(),
                self.interpreter.exposures, self.poller.awaited,
            )  # fmt: skip
            self.observers.notify(report, span)
            self.poller.ticked()
            return report

    async def _poll(self, wake: Wake | None, span: Span) -> tuple[tuple[AccountSnapshot, ...], Collection[str]]:
        """All accounts, and the names of those that were polled for this pass."""
        match wake:
            case None:
                self._take_proposed()
                accounts = await self._scheduler.await_while_closing(self.poller.poll(span))
                return accounts, {account.account for account in accounts}
            case "call":
                return await self._scheduler.await_while_closing(self.poller.poll_called())
            case "push":
                return self.poller.woken()

    def _take_proposed(self) -> None:
        """Take the proposed policy set, if there is one that can be taken now."""
        taken = self.reloads.take(self.clock.now())
        if taken is not None:
            self._alerts = renamed_alerts(self._alerts, taken.change.renamed)

    def _facts(self) -> RunnerFacts:
        performing = self.effects.performing
        return RunnerFacts(
            streams=self.poller.streams.views,
            timers=self.observers.timers,
            suspended=self.effects.suspension.suspended,
            pending_effects=performing.pending or UNSET,
            run_end=performing.run_end or UNSET,
        )

    async def advance(self) -> bool:
        """Run the closing passes that are due, without waiting for more; True while any are left. Renews the lease."""
        self.lease.renew()
        await self.workers.advance(self.pace.head_start)
        return self.workers.is_working

    async def close_within(self, within: float, *, fees: bool = False) -> bool:
        """Close until nothing is left to do, for at most `within` seconds; whether it is done.

        `fees`: also until the fees of the orders are known, or no longer queried.
        """
        deadline = self.clock.monotonic() + within
        while self.workers.has_work(fees=fees):
            self.lease.renew()
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return False
            await self._scheduler.step(min(left, self.pace.interval))
        return True

    def notifications(self) -> NotificationCounts | None:
        """The counts of the outbox, without reading the store; None without a route."""
        return self.observers.notifier.counts()

    def closings(self) -> tuple[Closing, ...]:
        """The state of every closing, also after the end of the run."""
        return self.workers.progress()

    async def finish(self) -> None:
        """Wait for requests under way, settle the locks, and release the lease.

        A reset lock is lifted here if its close has ended since the last tick. All other lock files stay as they are,
        and go stale.
        """
        timeout = self.pace.stop_timeout
        await self.poller.streams.stop(timeout)
        await self.workers.stop(timeout)
        self.observers.last_seen(self.workers.newest(), self.workers.progress())
        self.stop_problems = await self.observers.stop(timeout, self._problems)
        await self.effects.finish(timeout)
        self.store.add_to_record(self._watched.finish(self.clock.now()))
        self.lease.release()

    async def shut_down(self) -> None:
        """Close connections and files, however the run has ended."""
        await self.poller.streams.stop(self.pace.read_timeout)
        await self.workers.abandon()
        self.stop_problems += await self.observers.abandon()
        await self.effects.abandon()
        await self.poller.close()

    def _snapshot(self, accounts: tuple[AccountSnapshot, ...], commands: Commands, *, scheduled: bool) -> Snapshot:
        as_of = self.clock.next()
        received = self.received(as_of)
        return Snapshot(
            as_of=as_of,
            accounts=tuple(on_timeline(account, self.clock) for account in accounts),
            format="killswitch.snapshot/v1",
            scheduled=scheduled,
            due=self._scheduler.due_at(as_of) if scheduled else None,
            heartbeats=self._heartbeats.dated(last_heartbeats(self.store, received), as_of),
            alerts=received.alerts,
            alerts_as_of=received.alerts_as_of,
            own_orders=self.observers.own_orders.rows(as_of, scheduled=scheduled),
            events=self._event_dates.dated(commands.events, as_of),
            closings=self.workers.progress(),
            locks=self.effects.written_locks,
            sentinel=self.sentinel(),
            unwritten=self.store.in_memory_because,
        )

    def _pass_to_executors(self, accounts: Iterable[AccountSnapshot]) -> None:
        """Pass the snapshots to the account executors, each dated by its own poll."""
        for account in accounts:
            self.workers.observe((account,), self.poller.dated(account.account))

    async def _decide(self, snapshot: Snapshot, span: Span) -> Outcome:
        with span.span("evaluate") as part:
            pending = self.interpreter.evaluate(snapshot)
            part.set("killswitch.eligible", 0 if pending is None else len(pending.eligible))
        if pending is None:
            return NO_OUTCOME
        with span.span("decide", {"killswitch.reread": bool(pending.reread)}) as part:
            outcome = await self._outcome(snapshot, pending, part)
            part.set("killswitch.decisions", len(outcome.decisions))
            part.set("killswitch.decision.ids", " ".join(decision.id for decision in outcome.decisions))
            return outcome

    async def _outcome(self, snapshot: Snapshot, pending: Pending, span: Span) -> Outcome:
        if not pending.reread:
            return self.interpreter.decide(pending)
        within = min(REREAD_WITHIN, self.pace.interval)
        poll = self.poller.reread(snapshot, pending.reread, within, span)
        prices, again = await self._scheduler.await_while_closing(poll)
        if not again:
            return self.interpreter.decide(pending, prices=prices)
        self._pass_to_executors(again.values())
        read = (again.get(account.account, account) for account in snapshot.accounts)
        accounts = tuple(on_timeline(account, self.clock) for account in read)
        reread = replace(snapshot, as_of=self.clock.next(), accounts=accounts, scheduled=False, events=())
        return self.interpreter.decide(pending, reread, prices)

    def _commit(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        notices: tuple[Notice, ...],
        acting: tuple[Decision, ...],
        ended: tuple[JournalEntry, ...],
        commands: Commands,
        alerts: AlertState,
        watched: tuple[RecordEntry, ...],
    ) -> None:
        now = to_micros(snapshot.as_of)
        applied, renamed = self.reloads.to_commit(snapshot.as_of)
        plans = [(decision, self.effects.performing.planned(decision, snapshot)) for decision in acting]
        self.workers.prepare(plans)
        machines = self.interpreter.status() if outcome.decisions else None
        messages = self.observers.messages(
            snapshot, outcome.decisions, notices, acting, self._alerts, outcome.paged, machines
        )
        suppressed, of_routing = self.observers.routed()
        self.store.commit_tick(
            TickRecord(
                as_of=snapshot.as_of,
                policy_set=self.interpreter.policies.digest,
                states=self.interpreter.states(),
                rows=self.interpreter.rows(),
                decisions=outcome.decisions,
                notices=notices,
                journal=(*(entry for _, plan in plans for entry in plan), *ended),
                snapshot=encode_snapshot(snapshot) if outcome.decisions else None,
                consumed_events=(
                    *(each.id for each in snapshot.events if each.id not in self.interpreter.unfinished_closes()),
                    *(each.id for each in commands.unreadable),
                ),
                prune_before=self.interpreter.keep_since(now),
                trim=self.interpreter.trim(),
                messages=messages,
                suppressed=suppressed,
                live=self._changed_blobs(alerts, is_moved=bool(renamed)) | of_routing,
                applied=applied,
                renamed=renamed,
                refused_events=outcome.refused,
                entries=watched,
                incidents=self.observers.incidents_of(outcome.decisions),
            )
        )
        self.reloads.committed(snapshot.as_of)

    def _changed_blobs(self, alerts: AlertState, *, is_moved: bool) -> dict[str, bytes]:
        """The live blobs that this tick changes. `is_moved`: whether policies have other names since the last one."""
        found = {ALERTS: encode_state(alerts)} if is_moved or alerts is not self._alerts else {}
        return found | self.interpreter.live() | self._heartbeats.changed()

    async def _act(self, snapshot: Snapshot, decisions: tuple[Decision, ...]) -> None:
        """Perform locks first, so that no new risk is taken on, then closes, then all else, by the effects' ranks."""
        performed = await self.effects.performing.perform(decisions, snapshot)
        self._after_acting = performed + self.observers.alerts + self.workers.alerts
        self._problems = (
            self.reloads.lasting + self._while_polling() + self._after_acting + self.poller.streams.alerts
        ).texts

    def _unjudged_keys(self) -> tuple[str, ...]:
        """Keys of alerts of earlier runs whose part this run does not have, such as an account that is not armed."""
        if self._unjudged:
            parts = (self.interpreter, self.poller.outages, self.poller.streams, self.workers, self.effects.lock_writer,
                     self.effects.suspension, self.observers, self.reloads)  # fmt: skip
            self._unjudged = unjudged(self._unjudged, self.judges + judged_by(parts))
        return self._unjudged

    def _while_polling(self) -> Alerts:
        """What this tick itself has found wrong: clock and outages."""
        return self._wall.alerts + self.poller.outages.alerts

    def _advance_alerts(
        self, snapshot: Snapshot, commands: Commands, outcome: Outcome
    ) -> tuple[tuple[Notice, ...], AlertState]:
        """Notices of what is wrong since the previous tick, became worse, returned, or is over; and the new state.

        The first tick of a run knows nothing to be over: most parts have not done anything yet.
        """
        self._wall.check(snapshot.as_of)
        findings = self.observers.findings(snapshot)
        self.poller.outages.note_closes(findings, self.workers.busy, snapshot.accounts)
        wrong = together((
            outcome.alerts,
            self.reloads.lasting,
            self._after_acting,
            self._while_polling(),
            self.poller.streams.alerts,
            shortfalls(snapshot.closings),
            unreadable_commands(commands.unreadable),
            findings,
            self.reloads.alerts,
            Alerts(unknown=self._unjudged_keys() if self._has_ticked else ("",)),
        ))  # fmt: skip
        notices, alerts = advance(self._alerts, wrong, to_micros(snapshot.as_of))
        startup, self._startup_notices = self._startup_notices, ()
        return tuple(
            Notice(snapshot.as_of, "runner", "runner", "warning", *each, title="found at the start") for each in startup
        ) + notices, alerts


def _longest_gap(interpreter: Interpreter) -> timedelta:
    """The longest time between two snapshots for which no policy lacks history; a minute without a policy."""
    gaps = [graph.equity.max_gap for graph in interpreter.policies.graphs]
    return timedelta(microseconds=min(gaps, default=MINUTE))


def _without_events(snapshot: Snapshot, ids: frozenset[str]) -> Snapshot:
    """The snapshot without the events of these ids, whose commands were refused."""
    return snapshot if not ids else replace(snapshot, events=tuple(it for it in snapshot.events if it.id not in ids))
