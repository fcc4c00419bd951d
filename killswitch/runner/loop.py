"""The tick loop: poll, decide, commit, act, in this order, at an interval.

An error of a venue never leaves a tick. An error of the store, the lease or the interpreter does, and ends the run: a
runner that cannot record must not act. A store file that accepts no writes, or is damaged during the run, is no such
error for as long as the store can record elsewhere (ADR 0105, 0114).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from killswitch.accounts.arming import REMEMBERED
from killswitch.accounts.poll.account_poller import AccountPoller
from killswitch.model.decision import Decision, Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot, encode_snapshot
from killswitch.model.store import Commands, JournalEntry, Store, TickRecord
from killswitch.model.tracing import Span
from killswitch.model.words import Severity
from killswitch.planning.tick import NO_OUTCOME, Interpreter, Outcome, Pending
from killswitch.runner.alert_deduplication import AlertDeduplication
from killswitch.runner.clock import EventDates, Timeline, WallClockCheck, on_timeline
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.command_intake import UnreadableCommands, ended_closes
from killswitch.runner.lease import LeaseHolder
from killswitch.runner.observer_notification import Observers
from killswitch.runner.observers import TickReport
from killswitch.runner.performers import Effects
from killswitch.runner.scheduler import Scheduler

if TYPE_CHECKING:
    from killswitch.telemetry.metrics import NotificationCounts

REREAD_WITHIN = 2.0
"""Seconds for a second look at prices, at most an interval; after that the first snapshot is acted on."""


REMEMBERED_NOTICES = 200
"""Number of the newest notices in which a start finds what was reported already."""


@dataclass(frozen=True, slots=True)
class RunnerPace:
    """How fast a runner goes, in seconds."""

    interval: float
    read_timeout: float
    head_start: float = 0.1
    """For how long the orders of a commit have the loop to themselves before observers are notified."""
    last_words: float = 5.0
    """How long a stop waits for requests under way."""
    lock_patience: float = 0.1
    """How long a tick waits for the lock folder before it closes positions."""


class Runner:
    """One runner on one store. `start`, then `tick` as often as wanted, then `finish`; `run` does all three."""

    def __init__(
        self,
        interpreter: Interpreter,
        store: Store,
        lease: LeaseHolder,
        timeline: Timeline,
        poller: AccountPoller,
        closings: ClosingWorkers,
        effects: Effects,
        observers: Observers,
        pace: RunnerPace,
        *,
        policy_set: str,
        standing: tuple[str, ...] = (),
        found_before: tuple[tuple[Severity, str], ...] = (),
    ) -> None:
        """`lease` is held already. `timeline`: the clock of the whole run. `policy_set`: the digest of the policies.

        `standing`: problems that last for the whole run, known before it. `found_before`: what the first tick reports,
        once.
        """
        self._interpreter = interpreter
        self._store = store
        self._lease = lease
        self._clock = timeline
        self._poller = poller
        self._closings = closings
        self._effects = effects
        self._observers = observers
        self._pace = pace
        self._policy_set = policy_set
        self._standing = self._problems = standing
        self._pacing = Scheduler(closings, timeline)
        self._wall = WallClockCheck(timeline)
        self._event_dates = EventDates(timeline.leap)
        self._set_aside = UnreadableCommands()
        self._mild: frozenset[str] = frozenset()
        self._news = AlertDeduplication(found_before)
        self.left_behind: tuple[str, ...] = ()
        """A message for each thing that a clean stop could not end."""

    async def run(self, stop: asyncio.Event, ticks: int | None = None) -> None:
        """Tick at the interval until `stop` is set, or `ticks` times. Raises what must end a run."""
        try:
            await self.start()
            self._poller.listen()
            done, performing = 0, self._effects.performing
            while not stop.is_set():
                due = self._clock.monotonic() + self._pace.interval
                await self.tick()
                done += 1
                if done == ticks or performing.ends_run:
                    break
                while not performing.ends_run and await self._pacing.until(due, stop, self._poller):
                    await self.woken()
            await self.finish()
        finally:
            await self.let_go()

    async def start(self) -> None:
        """Recover from an earlier run: locks first, then closings, then the stage machines."""
        self._observers.start()
        await self._effects.performing.recover()
        self._problems = self._standing + self._effects.problems
        unfinished = [stored.decision for stored in self._store.unfinished()]
        past = [stored.decision for stored in self._store.decisions(REMEMBERED)]
        leap = self._clock.leap
        outage = None if leap is None else (to_micros(leap.since), to_micros(leap.until))
        self._interpreter.restore(self._store.states(), self._store.rows, unfinished, past, outage)
        self._news.remember(self._store.notices(REMEMBERED_NOTICES), self._closings.progress())

    async def tick(self) -> TickReport:
        """One pass: read everything, decide, write it down in one transaction, act."""
        with self._observers.tracer.span("tick") as span:
            began = self._clock.monotonic()
            self._lease.renew()
            accounts = await self._pacing.run_beside_closings(self._poller.poll(span))
            return await self._pass(accounts, {account.account for account in accounts}, began, span)

    async def woken(self) -> TickReport:
        """One pass between two ticks, on the accounts that a push called for; the others are as polled last."""
        with self._observers.tracer.span("tick") as span:
            began = self._clock.monotonic()
            self._lease.renew()
            accounts, read = self._poller.woken()
            return await self._pass(accounts, read, began, span, scheduled=False)

    async def _pass(
        self,
        accounts: tuple[AccountSnapshot, ...],
        anew: Collection[str],
        began: float,
        span: Span,
        *,
        scheduled: bool = True,
    ) -> TickReport:
        """The part of a tick after its polls. `anew`: the accounts that were polled for it."""
        fresh = [account for account in accounts if account.account in anew]
        self._pass_on(fresh)
        commands = self._store.commands()
        snapshot = self._snapshot(accounts, commands, scheduled=scheduled)
        self._poller.observe(fresh, snapshot.as_of)
        outcome = await self._decide(snapshot, span)
        acting = self._effects.acted_on(outcome.decisions)
        ended, answers = ended_closes(snapshot.events, self._store, snapshot.as_of, outcome.notices)
        unread = self._set_aside.notices(commands.unreadable, snapshot.as_of)
        notices = outcome.notices + answers + unread + self._notices(snapshot)
        with span.span("commit"):
            self._commit(snapshot, outcome, notices, acting, ended, commands)
        self._closings.give_up(ended)
        await self._act(snapshot, acting)
        if acting:
            # The first orders leave before observers are notified.
            await self._closings.advance(self._pace.head_start)
        report = TickReport(
            snapshot, outcome.decisions, notices, tuple(decision.id for decision in acting),
            self._problems, self._clock.monotonic() - began, self._interpreter.status, self._poller.streams,
            self._observers.timers, self._effects.suspended,
        )  # fmt: skip
        self._observers.notify(report, span)
        self._poller.ticked()
        return report

    async def work(self) -> bool:
        """Close without waiting for as long as passes are due; True while work is left. Renews the lease."""
        self._lease.renew()
        await self._closings.advance(self._pace.head_start)
        return self._closings.is_working

    async def work_through(self, patience: float, *, fees: bool = False) -> bool:
        """Close until nothing is left to do, for at most `patience` seconds; whether it is done.

        `fees`: also until the fees of the orders are known, or no longer queried.
        """
        deadline = self._clock.monotonic() + patience
        while self._closings.has_work(fees=fees):
            self._lease.renew()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            await self._pacing.step(min(left, self._pace.interval))
        return True

    def notifications(self) -> NotificationCounts | None:
        """The counts of the outbox, from memory; None without a route."""
        return self._observers.notifications()

    def closings(self) -> tuple[Closing, ...]:
        """The state of every closing, also after the end of the run."""
        return self._closings.progress()

    async def finish(self) -> None:
        """Let requests under way end, settle the locks, and give the lease back.

        A lock that a reset took back is lifted here if its closing has ended since the last tick. All other lock
        files stay as they are, and go stale in time.
        """
        patience = self._pace.last_words
        await self._poller.stop(patience)
        await self._closings.rest(patience)
        self.left_behind = await self._observers.rest(patience, self._problems)
        await self._effects.finish(patience)
        self._lease.release()

    async def let_go(self) -> None:
        """Close connections and files, however the run has ended."""
        await self._poller.stop(self._pace.read_timeout)
        await self._closings.abandon()
        self.left_behind += await self._observers.abandon()
        await self._effects.abandon()
        await self._poller.close()

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

    def _pass_on(self, accounts: Iterable[AccountSnapshot]) -> None:
        """Pass the snapshots to the account executors, each dated by its own poll."""
        for account in accounts:
            self._closings.observe((account,), self._poller.dated(account.account))

    async def _decide(self, snapshot: Snapshot, span: Span) -> Outcome:
        with span.span("evaluate") as part:
            pending = self._interpreter.evaluate(snapshot)
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
            return self._interpreter.decide(pending)
        within = min(REREAD_WITHIN, self._pace.interval)
        prices, again = await self._pacing.run_beside_closings(
            self._poller.second_look(snapshot, pending.reread, within, span)
        )
        if not again:
            return self._interpreter.decide(pending, prices=prices)
        self._pass_on(again.values())
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
        plans = [(decision, self._effects.performing.planned(decision, snapshot)) for decision in acting]
        self._closings.prepare(plans)
        self._store.commit_tick(
            TickRecord(
                as_of=snapshot.as_of,
                policy_set=self._policy_set,
                states=self._interpreter.states(),
                rows=self._interpreter.rows(),
                decisions=outcome.decisions,
                notices=notices,
                journal=(*(entry for _, plan in plans for entry in plan), *ended),
                snapshot=encode_snapshot(snapshot) if outcome.decisions else None,
                consumed_events=(
                    *(each.id for each in snapshot.events if each.id not in self._interpreter.unfinished_closes()),
                    *(each.id for each in commands.unreadable),
                ),
                prune_before=self._interpreter.keep_since(now),
                messages=self._observers.messages(snapshot, outcome.decisions, notices, acting),
            )
        )

    async def _act(self, snapshot: Snapshot, decisions: tuple[Decision, ...]) -> None:
        """The gate first, so that no new risk is taken on, then the closings, then all else, by the effects' ranks."""
        found = await self._effects.performing.perform(decisions, snapshot)
        found += self._observers.problems + self._closings.troubles + self._poller.stream_problems
        self._mild = self._effects.mild | frozenset(self._poller.stream_problems)
        self._problems = self._standing + self._of_now() + found

    def _of_now(self) -> tuple[str, ...]:
        """The problems that this tick itself has found: clock and outages."""
        return (*(() if self._wall.problem is None else (self._wall.problem,)), *self._poller.outage_problems)

    def _notices(self, snapshot: Snapshot) -> tuple[Notice, ...]:
        """Notices of what appeared since the previous tick, and then of what is over."""
        self._wall.look(snapshot.as_of)
        problems = tuple(dict.fromkeys(self._problems + self._of_now()))
        return (
            self._news.alerts(snapshot, problems, self._mild, self._effects.subjects)
            + self._observers.notices(snapshot)
            + self._wall.notices(snapshot.as_of)
            + self._poller.notices(snapshot.as_of)
        )
