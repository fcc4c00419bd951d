"""Account executor: runs closing passes on one account until the venue shows every position at its target.

A pass runs in this order: cancel entry orders; query orders in flight; poll the account; verify positions; remove
blocking protective orders and send orders, worst rank first; restore protective orders; cancel remaining orders once
nothing is left to close; finish decisions that are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import PACE, ClosingPace
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.decide.target_verdict import TargetAction, TargetVerdict, stall_reason
from killswitch.execution.order_pass.due_orders import DueOrders
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.order_pass.other_closer import OtherCloser
from killswitch.execution.order_pass.pass_verdicts import PassVerdicts, TargetEvaluator, given_up, is_shown
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.order_pass.verified_positions import VerifiedPositions
from killswitch.execution.protective_orders import ProtectiveOrders
from killswitch.execution.query.fee_queries import FeeQueries
from killswitch.execution.query.in_flight_orders import InFlightOrders
from killswitch.execution.query.order_query import OrderQuery
from killswitch.execution.send.order_canceller import OrderCanceller
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.codec import decode
from killswitch.journal.entries import NO_CLOSING_OBSERVER, ClosingObserver, PositionKey
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Closing
from killswitch.model.store import Journal, JournalEntry
from killswitch.model.venue import VenueAdapter
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget

LEAST_WAIT = 0.02
"""Minimum wait in seconds between two passes that changed nothing."""


class AccountExecutor:
    """Brings one account to the targets of all its decisions. Its state is folded from the journal."""

    def __init__(
        self,
        account: str,
        venue: VenueAdapter,
        store: Journal,
        clock: Clock,
        *,
        pace: ClosingPace = PACE,
        observer: ClosingObserver = NO_CLOSING_OBSERVER,
        budget: RequestBudget | None = None,
        breaker: Breaker | None = None,
        yields: bool = False,
    ) -> None:
        """Create the executor; `observer` is notified of each adopted decision and of each durable entry.

        `budget` limits requests to the venue; None means unlimited. `breaker` is the venue's circuit breaker; None
        creates a private one. `yields`: whether another closer, with a store of its own, may act on the account and has
        the right.
        """
        is_enforced = venue.traits.enforces_reduce_only is True
        state = self._state = ExecutionState(account, store, clock, pace, observer, is_enforced=is_enforced)
        context = self._context = AccountContext(
            account, venue, clock, pace, state.record, budget or RequestBudget.unlimited(), breaker or Breaker()
        )  # fmt: skip
        self._trusted_positions = TrustedPositions(context)
        self._halts = MarketHalts(self._trusted_positions.instruments)
        self._sender = OrderSender(context)
        self._queries = OrderQuery(context, self._halts.is_resting)
        self._fee_queries = FeeQueries(context, state)
        self._protective_orders = ProtectiveOrders(context, state.protections)
        self._in_flight_orders = InFlightOrders(context, state, self._queries, self._halts, self._sender)
        self._canceller = OrderCanceller(context, state)
        self._evaluator = TargetEvaluator(context, state, self._trusted_positions)
        self._other_closer = OtherCloser(context, state, self.apply_snapshot) if yields else None
        self._due_orders = DueOrders(
            context, state, self._trusted_positions, self._evaluator, self._sender, self._protective_orders,
            self._halts, self._other_closer,
        )  # fmt: skip
        self._verified_positions = VerifiedPositions(context, state)
        self._due = 0.0
        self._is_out_of_budget = False
        """Whether the last pass found no room to poll, so that the next pass waits for the runner's poll."""
        self._verified_at_change: int | None = None
        """The journal counter at the last pass that only verified: while it is unchanged, the next pass may send on
        that snapshot."""
        self._has_new_snapshot = False
        """Whether the runner polled something since the last pass began that makes the next pass due at once."""
        self.passes = 0
        """Number of completed passes; waits are not counted."""

    async def recover(self) -> None:
        """Restore unfinished jobs from the journal and query every order of unknown status once."""
        self._state.recover()
        self._fee_queries.recover()
        await self._in_flight_orders.follow()

    def prepare(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Prepare what `adopt` starts, while the decision's `planned` entries are being committed."""
        self._state.prepare(decision, [entry for entry in planned if entry.account == self._context.account])

    def adopt(self, decision: Decision) -> None:
        """Start a decision whose `planned` entries are committed; a decision without any is ignored."""
        if self._state.adopt(decision):
            self._trusted_positions.has_new_job = True
            self._due = 0.0

    def give_up(self, entry: JournalEntry) -> None:
        """Give up a decision by operator command (`entry`, durable); it ends once none of its orders is in flight."""
        if (job := self._state.jobs.get(entry.decision)) is not None:
            job.apply(decode(entry))
            self._due = 0.0

    def apply_snapshot(self, account: AccountSnapshot, at: float | None = None) -> None:
        """Apply a snapshot polled by the runner: instrument rules always, positions only while no order is in flight.

        `at`: monotonic seconds at which the poll began. Without it, only the rules are applied.
        """
        self._trusted_positions.apply_rules(account)
        self._collect(account, is_newest=at is not None and at > self._state.order_changed_at)
        if self._state.jobs and self._apply_market_states(account):
            self._due, self._has_new_snapshot = 0.0, True
        if at is None:
            return
        if self._state.jobs:
            self._trusted_positions.runner_snapshot = (account, at)
            self._due = 0.0 if self._is_out_of_budget else self._due
        elif at - self._state.order_changed_at > self._context.pace.position_lag:
            self._trusted_positions.deciding_snapshot = (account, at)

    def progress(self) -> tuple[Closing, ...]:
        """The state of every active close, and the outcome of recent ones, for the next snapshot.

        Decisions that only cancel on suspicion are left out: nothing waits for their end.
        """
        jobs = self._state.jobs.values()
        working = (job.closing(self._verified_positions.shown) for job in jobs if not job.decision.is_suspicion)
        return (*self._state.ended.values(), *working)

    @property
    def closing(self) -> frozenset[PositionKey]:
        """The positions that unfinished closes reduce."""
        return frozenset(target.key for target in self._state.targets())

    @property
    def newest(self) -> AccountSnapshot | None:
        """The newest snapshot of the account, from a pass or the runner."""
        return self._trusted_positions.newest

    @property
    def distrust(self) -> str | None:
        """Why the last pass could not trust the venue's snapshot; None if it could."""
        return self._trusted_positions.distrust

    @property
    def stalls(self) -> dict[str, str]:
        """What is retried without effect and needs an operator: each target's identifiers with the kind, and a text."""
        targets, now = self._state.targets(), self._context.clock.now()
        found = {
            f"{target.decision}/{target.symbol}/{target.position_side}/{stall.kind}": stall.reason
            for target in targets
            if not self._halts.has_notice(target)
            and (stall := stall_reason(target, now, self._context.pace)) is not None
        }
        yielding = {} if self._other_closer is None or not targets else self._other_closer.problems()
        return found | self._halts.notices(targets, now, self._context.pace) | yielding

    @property
    def wait(self) -> float:
        """Seconds until the next pass is due: 0 means at once, infinite means that nothing is left to do."""
        if not self._state.jobs:
            return self._fee_queries.wait
        return max(0.0, self._due - self._context.monotonic(), self._context.paused_for)

    @property
    def has_pending_fees(self) -> bool:
        """Whether nothing is left to close, and order fees are still being queried."""
        return not self._state.jobs and self._fee_queries.is_pending

    def abandon(self) -> asyncio.Future[Any] | None:
        """Cancel background requests at the end of a run; returns a future that completes with them, or None."""
        ending = [each for each in (*self._sender.abandon(), self._fee_queries.abandon()) if each is not None]
        return asyncio.gather(*ending, return_exceptions=True) if ending else None

    async def advance(self) -> bool:
        """Run one pass, sending the orders for which the venue has room. True while anything is left to close.

        With nothing to close, it advances the fee queries instead; `has_pending_fees` is True while there are more.
        Venue errors are handled inside. StoreError is raised, and then no order was sent that is not journaled.
        """
        if not self._state.jobs:
            await self._fee_queries.advance()
            return False
        if (wait := self.wait) > 0:
            await self._context.clock.sleep(min(wait, self._context.pace.longest_sleep))
            return True
        written, self._has_new_snapshot = self._state.written, False
        try:
            await self._pass()
            if self._trusted_positions.is_polling:
                # The batch is answered and the account poll is in flight: its result is applied without another wait.
                await self._pass(sending=False)
        finally:
            await self._trusted_positions.abandon()
        self.passes += 1
        now = self._context.monotonic()
        has_changed = self._state.written != written or self._has_new_snapshot
        self._due = now if has_changed else max(self._next_due(now), now + LEAST_WAIT)
        return bool(self._state.jobs)

    async def _pass(self, *, sending: bool = True) -> None:
        cancels = self._canceller.due()
        if not cancels or any(target.is_blocked for target in self._state.targets()):
            await self._canceller.run(cancels)
            await self._close(sending=sending)
            return
        # Entry orders are cancelled first, but no close waits for the answers.
        cancelling = asyncio.create_task(self._canceller.run(cancels))
        for _ in range(3):  # a request is three tasks deep: after that it has been sent
            await asyncio.sleep(0)
        try:
            await self._close(sending=sending)
            await cancelling
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)

    async def _close(self, *, sending: bool) -> None:
        if sending and self._trusted_positions.is_unreadable:
            await self._due_orders.send_without_snapshot(unreadable=True)
        book = self._deciding_snapshot() if sending else None
        if book is not None:
            # Nothing has been sent yet: orders are based on it, and the poll that follows verifies them.
            sent = self._state.sent
            await self._due_orders.send(PassVerdicts(self._evaluator, book), fresh=False)
            self._verified_positions.update(book)
            if self._state.sent > sent:
                return
        await self._in_flight_orders.follow()
        self._end_given_up()
        if sending and self._trusted_positions.has_poll_failed:
            await self._due_orders.send_without_snapshot(unreadable=True)
        book = await self._poll(sending=sending)
        if book is None:
            if sending:
                await self._due_orders.send_without_snapshot(unreadable=self._trusted_positions.has_poll_failed)
            return
        self._verified_positions.update(book)
        self._in_flight_orders.settle_closed_positions(book)
        if not sending and self._has_reached_all_targets(book):
            with self._state.transaction():
                self._verified_positions.verify(book, self._trusted_positions.instruments)
                for job in list(self._state.jobs.values()):
                    self._finish(job, [])
            return
        self._verified_positions.verify(book, self._trusted_positions.instruments)
        verdicts = PassVerdicts(self._evaluator, book)
        if sending:
            await self._due_orders.send(verdicts, fresh=True)
        await self._protect(verdicts)
        await self._end(verdicts)
        self._verified_at_change = None if sending else self._state.order_changes

    def _has_reached_all_targets(self, book: TrustedBook) -> bool:
        """Whether the snapshot shows every target reached and nothing else is left to do."""
        jobs = self._state.jobs.values()
        if self._protective_orders.protections.open() or any(job.due_cancels(after_closing=True) for job in jobs):
            return False
        return all(
            not target.is_counted_by_fills
            and not target.is_in_flight
            and not target.detached
            and not target.abandoned
            and is_shown(target, book)
            and book.contracts(target.key) <= target.target_size
            for target in self._state.targets()
        ) and not any(job.has_uncancellable for job in jobs)

    def _next_due(self, now: float) -> float:
        """Monotonic seconds at which the next pass is due after one that changed nothing."""
        query_due = max(self._queries.next_at, now + self._context.wait("find_order", ("",)))
        restore_due = now + max(self._protective_orders.due_in(), self._context.wait("submit", ("",)))
        due_times = [query_due, restore_due, self._due_orders.budget_at]
        if self._other_closer is not None:
            due_times.append(self._other_closer.next_at)
        is_waiting, is_busy = self._due_orders.held_back, False
        for job, target in self._targets_with_jobs():
            if target.state is TargetState.READY and not target.detached:
                if (order_due := self._due_orders.due_at(job, target)) > now:
                    due_times.append(order_due)
            elif self._halts.is_resting(target):
                is_waiting = True
            elif target.state is not TargetState.AT_TARGET:
                is_busy = True
        # Targets that only wait for budget or for their time are polled when it has come: polls use budget, too.
        is_idle = is_waiting and not is_busy and not self._canceller.due()
        interval = self._context.pace.idle_poll_interval if is_idle else self._context.pace.poll_interval
        return min(*due_times, now + interval)

    # Polling

    def _deciding_snapshot(self) -> TrustedBook | None:
        """The snapshot that the decision was made on, if it is good for the orders that are due.

        It is not used once an order was sent, nor for orders that the venue does not limit to reduce-only.
        """
        is_excluded = any(target.attempt or not target.is_bounded_by_venue for target in self._state.targets())
        return None if is_excluded else self._trusted_positions.pop_deciding_positions(self._state.expected())

    async def _poll(self, *, sending: bool) -> TrustedBook | None:
        """The positions of the account: polled now, unless the last snapshot is still good for sending.

        Where there is no room to poll an unchanged account, the runner's own snapshot is used.
        """
        changes = self._state.order_changes
        are_all_bounded = all(target.is_bounded_by_venue for target in self._state.targets())
        may_reuse = are_all_bounded and (
            self._due_orders.held_back or (sending and self._verified_at_change == changes)
        )
        self._verified_at_change, self._is_out_of_budget = None, False
        if (
            may_reuse
            and not self._trusted_positions.is_polling
            and (book := self._trusted_positions.last_if_fresh(changes)) is not None
        ):
            return book
        purpose = self._trusted_positions.purpose(changes)
        if purpose == "reading" and self._evaluator.is_contradicted and not self._trusted_positions.is_polling:
            # Only time settles a contradiction: another poll would use the units of the runner's next one.
            recent = self._trusted_positions.pop_runner_positions(
                self._state.expected(), changes, self._state.order_changed_at, most=2 * self._context.pace.poll_interval
            )
            if recent is not None:
                return recent
        if self._context.paused_for > 0 or self._context.wait("snapshot", purpose=purpose) > 0:
            self._is_out_of_budget = self._context.paused_for <= 0
            return self._trusted_positions.pop_runner_positions(
                self._state.expected(), changes, self._state.order_changed_at
            )
        found = await self._trusted_positions.poll(self._state.expected(), self._state.order_changes, self._state.sent)
        if self._trusted_positions.newest is not None:
            self._apply_market_states(self._trusted_positions.newest)
            self._collect(self._trusted_positions.newest, is_newest=True)
        return found

    def _collect(self, account: AccountSnapshot, *, is_newest: bool) -> None:
        """Collect the trades of others; `is_newest`: whether polled after the last change of an order of ours."""
        self._evaluator.collect(account, is_newest=is_newest)
        if self._other_closer is not None:
            self._other_closer.collect(account)

    def _apply_market_states(self, account: AccountSnapshot) -> bool:
        """Apply a snapshot to everything that waits for a market to open; returns whether anything changed."""
        opened, targets = self._trusted_positions.pop_opened(), self._state.targets()
        names = self._halts.changed_orders(targets, account, opened)
        self._queries.expedite(names)
        return bool(names) or any(target.symbol in opened for target in targets)

    # Acting

    async def _protect(self, verdicts: PassVerdicts) -> None:
        """Restore protective orders where a close is over for now, or where they have been off for too long."""

        def is_over(target: PositionTarget) -> bool:
            same_position = [it for it in self._state.targets() if it.key == target.key and not it.is_counted_by_fills]
            found = [verdicts.of(each) for each in same_position if each.state is not TargetState.SETTLED]
            return len(found) == len(same_position) and all(
                it.do is TargetAction.NOTHING or it.is_final for it in found
            )

        await self._protective_orders.restore(self._state.jobs, verdicts.book, is_over)

    # Ending

    async def _end(self, verdicts: PassVerdicts) -> None:
        """Finish every decision whose targets are reached or cannot be approached further.

        Cancels that are due after closing come first. An entry order may have filled meanwhile, so a pass that cancels
        leaves finishing to the next pass, which has a snapshot of its own.
        """
        for job in list(self._state.jobs.values()):
            if any(
                target.is_in_flight or target.detached or target.state is TargetState.SETTLED for target in job.targets
            ):
                continue
            found = [verdicts.of(target) for target in job.targets]
            if not all(verdict.do is TargetAction.NOTHING or verdict.is_final for verdict in found):
                continue
            if self._protective_orders.protections.of(job.decision.id):
                continue
            if cancels := job.due_cancels(after_closing=True):
                await self._canceller.run([(job, cancel) for cancel in cancels])
                continue
            self._finish(job, found)

    def _end_given_up(self) -> None:
        """Finish given-up decisions once none of their orders is in flight, even if the account cannot be polled."""
        for job in list(self._state.jobs.values()):
            why = job.given_up
            idle = all(it.state in (TargetState.READY, TargetState.AT_TARGET) and not it.detached for it in job.targets)
            if why is not None and idle and not self._protective_orders.protections.of(job.decision.id):
                self._finish(job, [given_up(target, why, None) for target in job.targets])

    def _finish(self, job: AccountJob, verdicts: list[TargetVerdict]) -> None:
        shown = self._verified_positions.shown
        last_positions = self._verified_positions.unjournaled(job)
        self._state.record([*last_positions, job.result(self._context.clock.now(), verdicts, shown)])
        self._state.end(job, job.closing(shown))
        self._fee_queries.enqueue(job.decision.id)
        for target in job.targets:
            self._due_orders.forget(target)
            self._evaluator.forget(target)
        self._verified_positions.forget(job)

    def _targets_with_jobs(self) -> list[tuple[AccountJob, PositionTarget]]:
        return [(job, target) for job in self._state.jobs.values() for target in job.targets]
