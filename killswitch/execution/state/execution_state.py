"""The execution state of one account: jobs, ledgers and protective orders, all folded from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from itertools import chain

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.protective_record import Protections
from killswitch.journal.codec import decode, decode_all, encode
from killswitch.journal.entries import (
    Charged,
    ClosingObserver,
    Entry,
    Filled,
    OrderSending,
    PlannedWork,
    PositionKey,
    Rejected,
    Unknown,
    Verified,
    is_end,
    known,
)
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Closing
from killswitch.model.store import Journal, JournalEntry, StoredDecision

REMEMBERED_DECISIONS = 16
"""Number of ended decisions that `progress` still shows, so that no tick misses how one ended."""


class ExecutionState:
    """The execution state of one account, which changes only by an entry that is durable first."""

    def __init__(
        self,
        account: str,
        store: Journal,
        clock: Clock,
        pace: ClosingPace,
        observer: ClosingObserver,
        *,
        is_enforced: bool = False,
    ) -> None:
        """`is_enforced`: whether the account's venue is known to enforce reduce-only."""
        self._account = account
        self._is_enforced = is_enforced
        self._store = store
        self._clock = clock
        self._pace = pace
        self._observer = observer
        self.protections = Protections()
        self.ledgers: dict[PositionKey, PositionLedger] = {}
        """The ledger of each position that is worked on, and for a while after."""
        self._prepared: dict[str, AccountJob] = {}
        self._transaction: list[Entry] | None = None
        self._ended_at: dict[PositionKey, float] = {}
        self._uncharged: dict[str, dict[str, Filled]] = {}
        self.order_changed_at = -math.inf
        """Monotonic seconds of the last entry about an order."""
        self.jobs: dict[str, AccountJob] = {}
        self.ended: dict[str, Closing] = {}
        self.written = 0
        """Number of entries written."""
        self.order_changes = 0
        """Number of entries about orders: an account poll from before the last of them is out of date."""
        self.sent = 0
        """Number of orders sent."""

    def recover(self) -> None:
        """Restore unfinished jobs from the journal; the journal of each decision is read and decoded once."""
        journal_of = cache(self._journal_of)

        def jobs_of(decisions: Iterable[StoredDecision]) -> list[AccountJob]:
            return [self._job(stored.decision, journal_of(stored.decision.id)) for stored in decisions]

        recent = jobs_of(reversed(self._store.decisions(REMEMBERED_DECISIONS)))
        ended = [job for job in recent if job.finished is not None and not job.decision.is_suspicion]
        self.ended = {job.decision.id: job.closing({}) for job in ended}
        unfinished = jobs_of(self._store.unfinished())
        self.jobs = {job.decision.id: job for job in unfinished if job.planned is not None and not job.finished}
        concurrent = {**self.jobs, **{job.decision.id: job for job in jobs_of(self._concurrently_ended())}}
        self._fold_ledgers(concurrent, chain.from_iterable(map(journal_of, concurrent)))
        shown = self.jobs.keys() | self.ended.keys()
        self._uncharged = {decision: found for decision, found in self._uncharged.items() if decision in shown}
        for job in self.jobs.values():
            self._observer.begun(job.decision, self._account, journal_of(job.decision.id))

    def prepare(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Prepare the job that `adopt` starts once `planned` is durable; nothing is sent before."""
        if decision.id not in self.jobs:
            job = self._prepared[decision.id] = self._new_job(decision, decode_all(planned))
            self._count_from_now(job)

    def adopt(self, decision: Decision) -> bool:
        """Start a decision whose `planned` entries are committed; returns whether it was started."""
        if decision.id in self.jobs:
            return False
        self._forget_old()  # before closed amounts are counted by a ledger that would be dropped
        job = self._prepared.pop(decision.id, None)
        if job is None:
            job = self._job(decision, self._journal_of(decision.id))
            self._count_from_now(job)
            self._exclude_later_fills(job)
        if job.planned is None or job.finished is not None:
            return False
        self.jobs[decision.id] = job
        self._observer.begun(decision, self._account, ())
        return True

    def _count_from_now(self, job: AccountJob) -> None:
        """Start counting closed amounts of the decision's positions at the place of its plan in the journal."""
        for target in job.targets:
            target.closed_before = self.ledger(target.key).closed

    def targets(self) -> list[PositionTarget]:
        """Every target of every job."""
        return list(chain.from_iterable(job.targets for job in self.jobs.values()))

    def ledger(self, key: PositionKey) -> PositionLedger:
        found = self.ledgers.get(key)
        if found is None:
            found = self.ledgers[key] = PositionLedger()
        return found

    def expected(self) -> dict[PositionKey, Decimal]:
        """The least that our own orders leave of each active position. Cheap: it is computed before the first order."""
        found: dict[PositionKey, Decimal] = {}
        for target in self.targets():
            if target.purpose == "reduce":
                key = (target.symbol, target.position_side)
                ledger = self.ledgers.get(key)
                before = target.decided + target.target_size
                found[key] = before if ledger is None else ledger.remaining(before)
        return found

    def record(self, entries: Sequence[Entry]) -> None:
        """Make entries durable in one transaction, then apply each.

        If one cannot be folded, all are refused: ForbiddenTransitionError. StoreError.
        """
        if not entries:
            return
        for entry in entries:
            self.jobs[entry.decision].check(entry)
        if self._transaction is None:
            self.write(entries)
        else:
            self._transaction += entries
        self.written += len(entries)
        for entry in entries:
            if not isinstance(entry, Verified):
                self.order_changes, self.order_changed_at = self.order_changes + 1, self._clock.monotonic()
            self.sent += isinstance(entry, OrderSending)
            self.jobs[entry.decision].apply(entry)
            self.protections.apply(entry)
            self._apply_to_ledger(self.jobs[entry.decision], entry)
        self._count_uncharged(entries)

    def adds_information(self, entry: Entry) -> bool:
        """Whether a late answer adds anything to what queries have shown meanwhile."""
        job = self.jobs.get(entry.decision)
        target = None if job is None else job.target_of(entry)
        if target is None:
            return False
        if entry.client_order_id in target.detached:
            return isinstance(entry, Filled | Rejected)
        adds = {
            TargetState.SENDING: True,
            TargetState.UNKNOWN: not isinstance(entry, Unknown),
            TargetState.WORKING: isinstance(entry, Filled),
        }
        return entry.client_order_id == target.client_order_id and adds.get(target.state, False)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything that is recorded inside durable in one transaction at its end; StoreError then.

        Nothing may be sent to the venue inside: entries applied here are not durable before the end.
        """
        self._transaction = []
        try:
            yield
        finally:
            # Also after a failure inside: every entry applied here must be in the journal.
            entries, self._transaction = self._transaction, None
            if entries:
                self.write(entries)

    def write(self, entries: Sequence[Entry]) -> None:
        """Make entries durable together without applying them. StoreError."""
        if len(entries) == 1:
            self._store.append(encode(entries[0]))
        else:
            self._store.append_all([encode(entry) for entry in entries])
        for entry in entries:
            self._observer.wrote(entry)

    def pop_without_fee(self, decision: str) -> tuple[Filled, ...]:
        """The final fills of a decision's orders whose fee is unknown; each decision's are returned once.

        They are collected as they are written: reading them from a long journal would delay the caller.
        """
        return tuple(self._uncharged.pop(decision, {}).values())

    def _count_uncharged(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            name = entry.client_order_id
            if name is None or entry.account != self._account or not isinstance(entry, Filled | Charged):
                continue
            if isinstance(entry, Filled) and entry.has_unknown_fee:
                self._uncharged.setdefault(entry.decision, {})[name] = entry
            else:
                self._uncharged.get(entry.decision, {}).pop(name, None)

    def end(self, job: AccountJob, closing: Closing) -> None:
        """End a job; `progress` still shows its outcome for a while."""
        del self.jobs[job.decision.id]
        if not job.decision.is_suspicion:
            self.ended[job.decision.id] = closing
        while len(self.ended) > REMEMBERED_DECISIONS:
            del self.ended[next(iter(self.ended))]
        self._ended_at |= dict.fromkeys((target.key for target in job.targets), self._clock.monotonic())
        self._forget_old()

    def _exclude_later_fills(self, job: AccountJob) -> None:
        """Count fills after a decision was planned as fills since then, although the decision was adopted later."""
        counted = [target for target in job.targets if target.closed_before > 0]
        for entry in self._journal_from(job.planned or 0) if counted else ():
            for target in counted:
                if isinstance(entry, Filled) and entry.account == self._account and entry.key == target.key:
                    filled = known(entry.filled)
                    # The amount of an unreadable fill is unknown: everything then counts as closed since the plan.
                    target.closed_before = Decimal(0) if filled is None else target.closed_before - filled

    def _forget_old(self) -> None:
        """Drop the ledgers of positions without a job, once the venue must show what was closed."""
        prepared = (target.key for job in self._prepared.values() for target in job.targets)
        at_work = {target.key for target in self.targets()}.union(prepared)
        oldest = self._clock.monotonic() - self._pace.position_lag
        self._ended_at = {key: at for key, at in self._ended_at.items() if at > oldest and key not in at_work}
        self.ledgers = {key: it for key, it in self.ledgers.items() if key in at_work or key in self._ended_at}

    def _apply_to_ledger(self, job: AccountJob, entry: Entry) -> None:
        target = job.target_of(entry)
        if target is None or target.is_counted_by_fills:
            return
        if isinstance(entry, PlannedWork):
            target.closed_before = self.ledger(target.key).closed
        self.ledger(target.key).apply(entry, target.decided)

    def _concurrently_ended(self) -> list[StoredDecision]:
        """The decisions whose work on the account has ended since the oldest unfinished one began."""
        since = min((job.planned for job in self.jobs.values() if job.planned is not None), default=None)
        if since is None:
            return []
        entries = (entry for entry in self._journal_from(since) if is_end(entry) and entry.account == self._account)
        names = dict.fromkeys(entry.decision for entry in entries if entry.decision not in self.jobs)
        found = (self._store.decision(name) for name in names)
        return [stored for stored in found if stored is not None]

    def _fold_ledgers(self, concurrent: dict[str, AccountJob], entries: Iterable[Entry]) -> None:
        """Fold the ledgers of the active positions from the `entries` of every concurrent decision.

        Closes that have ended meanwhile count, too: the venue's positions may not show them yet.
        """
        self.ledgers = {}
        keys = {target.key for target in self.targets()}
        for entry in sorted(entries, key=lambda entry: entry.sequence):
            if entry.account != self._account:
                continue
            if entry.decision in self.jobs:
                self.protections.apply(entry)
            if entry.key in keys:
                self._apply_to_ledger(concurrent[entry.decision], entry)

    def _job(self, decision: Decision, journal: Sequence[Entry]) -> AccountJob:
        self._count_uncharged(journal)
        return self._new_job(decision, journal)

    def _new_job(self, decision: Decision, entries: Sequence[Entry]) -> AccountJob:
        return AccountJob(decision, self._account, entries, is_enforced=self._is_enforced)

    def _journal_of(self, decision: str) -> Sequence[Entry]:
        return decode_all(self._store.journal(decision))

    def _journal_from(self, sequence: int) -> Iterator[Entry]:
        return map(decode, self._store.journal_from(sequence))
