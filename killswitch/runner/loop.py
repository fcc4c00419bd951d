"""The tick loop: read, decide, write down, act, in that order, at an interval.

What may go wrong at a venue never leaves a tick. What may go wrong with the store, the lease or the deciding
itself does, and ends the run: a runner that cannot record must not act. A file that takes no writes, or is damaged
under the run, is no such trouble for as long as the store knows where else to record (ADR 0105, 0114).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import structs

from killswitch.accounts.arming import REMEMBERED, ArmedAccount, Arming, is_acted_on, left_to_do
from killswitch.accounts.poll.outages import Unread, patience
from killswitch.accounts.poll.poll_budget import spares
from killswitch.accounts.poll.poller import FIRST_PATIENCE, Readers
from killswitch.accounts.poll.push_listener import Listening
from killswitch.accounts.poll.request_counters import Meter, metered
from killswitch.accounts.poll.wake_up import Waking
from killswitch.execution.effects.performing import Performing
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot, encode_snapshot
from killswitch.model.store import Commands, JournalEntry, Store, TickRecord
from killswitch.model.tracing import NO_TRACER, Span, Tracer
from killswitch.model.words import Severity
from killswitch.planning.tick import NOTHING, Interpreter, Outcome, Pending
from killswitch.runner.alert_deduplication import News
from killswitch.runner.clock import EventDates, Timeline, WallWatch, on_timeline
from killswitch.runner.closing_workers import Closings
from killswitch.runner.command_intake import SetAside, given_up
from killswitch.runner.dead_man.timers import Timers
from killswitch.runner.fault_isolation import Beside
from killswitch.runner.lease import LeaseHolder
from killswitch.runner.locks.broker_suspension import Suspending
from killswitch.runner.locks.lock_writer import LockWriter
from killswitch.runner.notify.notifier import Notifier
from killswitch.runner.observers import TickReport as TickReport
from killswitch.runner.observers import Troubled, Witnesses, describe, unsaid
from killswitch.runner.observers import Witness as Witness
from killswitch.runner.order_reconciliation import Confirming
from killswitch.runner.performers import RunnerParts, performers
from killswitch.runner.scheduler import Pacing

if TYPE_CHECKING:
    from killswitch.telemetry.metrics import Notifications

REREAD_WITHIN = 2.0
"""Seconds that a second look may take, and no longer than an interval, before the first one is acted on."""


REMEMBERED_NOTICES = 200
"""How many of the newest notices a start looks through for what it need not tell again."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a runner goes, in seconds."""

    interval: float
    read_timeout: float
    head_start: float = 0.1
    """After a commit, for how long its orders have the loop to themselves before anyone is told of them."""
    last_words: float = 5.0
    """How long a stop waits for a request that is under way."""
    lock_patience: float = 0.1
    """How long a tick waits for the lock folder before it goes on to close."""


class Recorder(Protocol):
    """Where snapshots are recorded, after the acting. One that is `Troubled` says what is missing."""

    def write(self, snapshot: Snapshot) -> None: ...

    def close(self) -> bool | None:
        """False: not all that was handed over could be written."""
        ...


class Runner:
    """One runner on one store. `start`, then `tick` as often as wanted, then `finish`; `run` does all three."""

    def __init__(
        self,
        interpreter: Interpreter,
        policies: PolicySet,
        accounts: Mapping[str, ArmedAccount],
        store: Store,
        lease: LeaseHolder,
        timeline: Timeline,
        pace: Pace,
        *,
        closings: Closings,
        locking: LockWriter | None,
        recorder: Recorder | None,
        witnesses: tuple[Witness, ...],
        notifier: Notifier,
        standing: tuple[str, ...] = (),
        tracer: Tracer = NO_TRACER,
        meters: Mapping[str, Meter] | None = None,
        confirming: Confirming | None = None,
        timers: Timers | None = None,
        suspending: Suspending | None = None,
        found_before: tuple[tuple[Severity, str], ...] = (),
    ) -> None:
        """`lease` is taken already. `timeline`: the clock of the whole run. `locking`: None where nothing is armed.

        `standing`: problems that last for the whole run, known before it. `meters`: what reading is counted on.
        `timers`: the venues' dead-man timers, where the run keeps any. `found_before`: what the first tick has to
        tell, once.
        """
        self._interpreter = interpreter
        self._policies = policies
        self._accounts = accounts
        self._arming = Arming(accounts, policies)
        self._store = store
        self._lease = lease
        self._clock = clock = timeline
        self._pace = pace
        self._wall = WallWatch(timeline)
        self._event_dates = EventDates(timeline.leap)
        self._set_aside = SetAside()
        meters = meters or metered(accounts, clock, pace.interval)
        self._readers = Readers(accounts, pace.read_timeout, meters, FIRST_PATIENCE)
        self._unread = Unread(self._arming.names, self._readers, clock, patience(pace.interval, pace.read_timeout))
        self._listening = Listening(accounts, clock)
        self._waking = Waking(
            self._listening,
            self._readers,
            meters,
            spares(accounts, pace.interval, None if timers is None else timers.refreshing),
            clock,
        )
        self._closings = closings
        self._pacing = Pacing(closings, clock)
        self._confirming = confirming
        self._timers = timers
        self._suspending = suspending
        self._locking = locking
        self._recorder = recorder
        self._notifier = notifier
        self._witnesses = Witnesses((*witnesses, notifier))
        self._standing = standing
        self._tracer = tracer
        self._problems = standing
        self._mild: frozenset[str] = frozenset()
        self._news = News(found_before)
        self._beside = Beside()
        parts = RunnerParts(locking, closings, suspending, self._beside, self._arming.names, store, clock)
        self._performing = Performing(performers(parts))
        self.left_behind: tuple[str, ...] = ()
        """What a clean stop could not put an end to, in words."""

    async def run(self, stop: asyncio.Event, ticks: int | None = None) -> None:
        """Tick at the interval until `stop` is set, or `ticks` times. Raises what must end a run."""
        try:
            await self.start()
            self._listening.start()
            done = 0
            while not stop.is_set():
                due = self._clock.monotonic() + self._pace.interval
                await self.tick()
                done += 1
                if done == ticks or self._performing.ends_run:
                    break
                while not self._performing.ends_run and await self._pacing.until(due, stop, self._waking):
                    await self.woken()
            await self.finish()
        finally:
            await self.let_go()

    async def start(self) -> None:
        """Take up what an earlier run left: locks first, then closings, then the machines' memory."""
        beside = self._beside
        beside.call("the outbox of notifications", self._notifier.start, None)
        if self._locking is not None:
            self._problems = self._standing + await beside.wait("the locks", self._locking.recover, ())
        if self._timers is not None:
            beside.call("the dead-man timers", self._timers.start, None)
        if (suspending := self._suspending) is not None:
            left = left_to_do(self._store).keys()
            beside.call("suspensions at brokers", suspending.start, None)
            self._closings.hold(beside.call("suspensions at brokers", lambda: suspending.make_way(left), {}))
        await self._closings.recover(self._pace.read_timeout)
        await self._performing.recover()
        unfinished = [stored.decision for stored in self._store.unfinished()]
        past = [stored.decision for stored in self._store.decisions(REMEMBERED)]
        leap = self._clock.leap
        outage = None if leap is None else (to_micros(leap.since), to_micros(leap.until))
        self._interpreter.restore(self._store.states(), self._store.rows, unfinished, past, outage)
        self._news.remember(self._store.notices(REMEMBERED_NOTICES), self._closings.progress())

    async def tick(self) -> TickReport:
        """One pass: read everything, decide, write it down in one transaction, act."""
        self._waking.polled()
        with self._tracer.span("tick") as span:
            began = self._clock.monotonic()
            self._lease.keep()
            accounts = await self._pacing.beside(self._readers.gather(span))
            return await self._pass(accounts, {account.account for account in accounts}, began, span)

    async def woken(self) -> TickReport:
        """A pass between two ticks, on what the woken readings came to; every other account is as it was read last."""
        with self._tracer.span("tick") as span:
            began = self._clock.monotonic()
            self._lease.keep()
            read = self._waking.take()
            # A poll may take its whole timeout, so no reading of the last one is too old before the next one is over.
            accounts = self._readers.complete(read, self._pace.interval + self._pace.read_timeout)
            return await self._pass(accounts, read.keys(), began, span, scheduled=False)

    async def _pass(
        self,
        accounts: tuple[AccountSnapshot, ...],
        anew: Collection[str],
        began: float,
        span: Span,
        *,
        scheduled: bool = True,
    ) -> TickReport:
        """What follows the reading of a tick. `anew`: the accounts that were read for it."""
        fresh = [account for account in accounts if account.account in anew]
        self._learn(fresh)
        commands = self._store.commands()
        snapshot = self._snapshot(accounts, commands, scheduled=scheduled)
        for name in self._unread.look(fresh, snapshot.as_of):
            self._listening.begin_anew(name)
        outcome = await self._decide(snapshot, span)
        acting = tuple(decision for decision in outcome.decisions if is_acted_on(decision, self._arming))
        ended = given_up(snapshot.events, self._store, snapshot.as_of, outcome.notices)
        unread = self._set_aside.notices(commands.unreadable, snapshot.as_of)
        notices = outcome.notices + ended.notices + unread + self._notices(snapshot)
        with span.span("commit"):
            self._commit(snapshot, outcome, notices, acting, ended.entries, commands)
        self._closings.give_up(ended.entries)
        await self._act(snapshot, acting)
        if acting:
            # The first orders leave before anyone is told of them.
            await self._closings.advance(self._pace.head_start)
        report = TickReport(
            snapshot, outcome.decisions, notices, tuple(decision.id for decision in acting),
            self._problems, self._clock.monotonic() - began, self._interpreter.status, self._listening.views,
            () if self._timers is None else self._timers.views,
            () if self._suspending is None else self._suspending.suspended,
        )  # fmt: skip
        self._beside.call("the trace of a tick", lambda: describe(span, report), None)
        self._record(snapshot)
        self._witnesses.tell(report)
        if (timers := self._timers) is not None:
            self._beside.call("refreshing dead-man timers", lambda: timers.healthy(snapshot), None)
        self._waking.ticked()
        return report

    async def work(self) -> bool:
        """Closing as far as it comes without waiting; True while there is more. Keeps the lease, as no tick does."""
        self._lease.keep()
        await self._closings.advance(self._pace.head_start)
        return self._closings.working

    async def work_through(self, patience: float, *, fees: bool = False) -> bool:
        """Closing until nothing is left to do, for at most `patience` seconds; whether it is done.

        `fees`: and until it is known what orders were charged, or it is asked no more.
        """
        deadline = self._clock.monotonic() + patience
        while self._closings.goes_on(fees=fees):
            self._lease.keep()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            await self._pacing.step(min(left, self._pace.interval))
        return True

    @property
    def notifications(self) -> Callable[[], Notifications | None]:
        """Asks what the outbox has come to; from memory."""
        return self._notifier.counts

    def closings(self) -> tuple[Closing, ...]:
        """What has come of every closing so far, also after the end of the run."""
        return self._closings.progress()

    async def finish(self) -> None:
        """Let requests under way end, settle the locks, and give the lease back.

        A lock that a reset took back is lifted here if its closing has ended since the last tick. All other lock
        files stay as they are, and go stale in time.
        """
        patience = self._pace.last_words
        await self._beside.wait("private streams", lambda: self._listening.stop(patience), None)
        await self._closings.rest(patience)
        if self._timers is not None:
            over = frozenset(self._timers.problems)
            self.left_behind = await self._timers.rest()
            problems = tuple(each for each in self._problems if each not in over)
            self._witnesses.stopped(self._timers.views, problems + self.left_behind)
        await self._beside.wait("notifications", lambda: self._notifier.rest(patience), None)
        if (locking := self._locking) is not None:
            await self._beside.wait("the locks", lambda: locking.settle(patience), ())
        self._lease.release()

    async def let_go(self) -> None:
        """Give back connections and files, whatever has happened."""
        await self._listening.stop(self._pace.read_timeout)
        await self._closings.abandon()
        for aside in (self._timers, self._suspending):
            if aside is not None:
                await aside.abandon()
        await self._notifier.rest(0.0)
        if self._locking is not None:
            self._locking.close()
        await self._readers.abandon()
        if self._recorder is not None and self._recorder.close() is False:
            self.left_behind += ("the recording ends early: its last snapshots could not be written",)
        # An adapter that fails to hang up has nothing to tell that matters any more.
        await asyncio.gather(*(account.adapter.close() for account in self._accounts.values()), return_exceptions=True)

    def _snapshot(self, accounts: tuple[AccountSnapshot, ...], commands: Commands, *, scheduled: bool) -> Snapshot:
        as_of = self._clock.next()
        return Snapshot(
            as_of=as_of,
            accounts=tuple(on_timeline(account, self._clock) for account in accounts),
            format="killswitch.snapshot/v1",
            scheduled=scheduled,
            events=self._event_dates.dated(commands.events, as_of),
            closings=self._closings.progress(),
        )

    def _learn(self, accounts: Iterable[AccountSnapshot]) -> None:
        """Tell the closings what was read, each account dated by itself: another may have taken much longer."""
        for account in accounts:
            self._closings.learn((account,), self._readers.dated(account.account))

    async def _decide(self, snapshot: Snapshot, span: Span) -> Outcome:
        with span.span("evaluate") as part:
            pending = self._interpreter.evaluate(snapshot)
            part.set("killswitch.eligible", 0 if pending is None else len(pending.eligible))
        if pending is None:
            return NOTHING
        with span.span("decide", {"killswitch.reread": bool(pending.reread)}) as part:
            outcome = await self._outcome(snapshot, pending, part)
            part.set("killswitch.decisions", len(outcome.decisions))
            part.set("killswitch.decision.ids", " ".join(decision.id for decision in outcome.decisions))
            return outcome

    async def _outcome(self, snapshot: Snapshot, pending: Pending, span: Span) -> Outcome:
        if not pending.reread:
            return self._interpreter.decide(pending)
        within = min(REREAD_WITHIN, self._pace.interval)
        priced = self._readers.priced(snapshot, pending.reread)
        prices = await self._pacing.beside(self._readers.prices(priced, within, span)) if priced else {}
        unpriced = tuple(name for name in pending.reread if name not in priced)
        if not unpriced:
            return self._interpreter.decide(pending, prices=prices)
        again = await self._pacing.beside(self._readers.gather_again(unpriced, within, span))
        self._learn(again.values())
        read = (again.get(account.account, account) for account in snapshot.accounts)
        accounts = tuple(on_timeline(account, self._clock) for account in read)
        reread = structs.replace(snapshot, as_of=self._clock.next(), accounts=accounts, scheduled=False, events=())
        return self._interpreter.decide(pending, reread, prices)

    def _commit(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        notices: tuple[Notice, ...],
        acting: tuple[Decision, ...],
        ended: tuple[JournalEntry, ...],
        commands: Commands,
    ) -> None:
        now = to_micros(snapshot.as_of)
        plans = [(decision, self._plan(decision, snapshot)) for decision in acting]
        self._closings.prepare(plans)
        self._store.commit_tick(
            TickRecord(
                as_of=snapshot.as_of,
                policy_set=self._policies.digest,
                states=self._interpreter.states(),
                rows=self._interpreter.rows(),
                decisions=outcome.decisions,
                notices=notices,
                journal=(*(entry for _, plan in plans for entry in plan), *ended),
                snapshot=encode_snapshot(snapshot) if outcome.decisions else None,
                consumed_events=(
                    *(each.id for each in snapshot.events if each.id not in self._interpreter.unfinished_hands()),
                    *(each.id for each in commands.unreadable),
                ),
                prune_before=self._interpreter.keep_since(now),
                messages=self._beside.call(
                    "what is to be notified",
                    lambda: self._notifier.outgoing(snapshot, outcome.decisions, unsaid(notices, snapshot), acting),
                    (),
                ),
            )
        )

    def _plan(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return self._performing.planned(decision, snapshot)

    async def _act(self, snapshot: Snapshot, decisions: tuple[Decision, ...]) -> None:
        """The gate first, so that no new risk is taken on, then the closings, then all else, by the effects' ranks."""
        beside = self._beside
        problems = await self._performing.perform(decisions, snapshot)
        if (suspending := self._suspending) is not None:
            problems += beside.call("suspensions at brokers", lambda: self._suspended(suspending), ())
        if self._timers is not None:
            problems += self._timers.problems
        problems += beside.problems
        self._mild = frozenset(self._listening.problems) | (self._locking.mild if self._locking is not None else set())
        problems += self._closings.troubles + self._listening.problems + self._witnesses.problems
        if isinstance(self._recorder, Troubled) and self._recorder.problem is not None:
            problems += (self._recorder.problem,)
        wall = () if self._wall.problem is None else (self._wall.problem,)
        self._problems = self._standing + wall + self._unread.problems + problems

    def _suspended(self, suspending: Suspending) -> tuple[str, ...]:
        locked = frozenset() if self._locking is None else self._locking.locked_whole()
        suspending.settle(locked, self._closings.busy)
        return suspending.problems

    def _record(self, snapshot: Snapshot) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.write(snapshot)
        except Exception as error:  # noqa: BLE001 - a recording is beside the point of a run
            self._recorder = None
            self._standing += (f"snapshots are not recorded from {snapshot.as_of:%H:%M:%S} on: {error}",)

    def _notices(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """What has come up since the tick before, and then what is over: of what was both, both are told."""
        self._wall.look(snapshot.as_of)
        wall = () if self._wall.problem is None else (self._wall.problem,)
        problems = tuple(dict.fromkeys(self._problems + wall + self._unread.problems))
        subjects = {} if self._locking is None else self._locking.subjects
        told = self._news.of(snapshot, problems, self._mild, subjects)
        told += self._beside.call("orders to be confirmed", lambda: self._unconfirmed(snapshot), ())
        if self._timers is not None:
            told += self._beside.call("notices of dead-man timers", self._timers.notices, ())
        return (
            told
            + self._wall.notices(snapshot.as_of)
            + self._unread.notices(snapshot.as_of)
            + self._listening.notices(snapshot.as_of)
        )

    def _unconfirmed(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """A page for every order of ours that the venue shows otherwise than the journal has it."""
        return () if self._confirming is None else self._confirming.notices(snapshot)
