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
from killswitch.execution.decide.line_verdict import LineAction, LineVerdict, stall_reason
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.order_pass.order_decision import LineVerdicts, OrderJudge, given_up, is_shown
from killswitch.execution.order_pass.order_selection import OrderSelection
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.order_pass.verified_positions import VerifiedPositions
from killswitch.execution.patience import PACE, ClosingPace
from killswitch.execution.protective_orders import ProtectiveOrders
from killswitch.execution.query.fee_queries import FeeQueries
from killswitch.execution.query.in_flight_orders import InFlightOrders
from killswitch.execution.query.order_query import OrderQuery
from killswitch.execution.send.order_canceller import OrderCanceller
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.codec import decode
from killswitch.journal.entries import NO_CLOSING_OBSERVER, ClosingObserver
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
        watch: ClosingObserver = NO_CLOSING_OBSERVER,
        budget: RequestBudget | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Create the executor; `watch` is notified of each adopted decision and of each durable entry.

        `budget` limits requests to the venue; None means unlimited. `breaker` is the venue's circuit breaker; None
        creates a private one.
        """
        memory = self._memory = ExecutionState(account, store, clock, pace, watch)
        context = self._context = AccountContext(
            account, venue, clock, pace, memory.record, budget or RequestBudget.unlimited(), breaker or Breaker()
        )  # fmt: skip
        self._looking = TrustedPositions(context)
        self._halts = MarketHalts(self._looking.instruments)
        self._dispatch = OrderSender(context)
        self._asking = OrderQuery(context, self._halts.is_resting)
        self._charges = FeeQueries(context, memory)
        self._guarding = ProtectiveOrders(context, memory.protections)
        self._following = InFlightOrders(context, memory, self._asking, self._halts, self._dispatch)
        self._cancelling = OrderCanceller(context, memory)
        self._judging = OrderJudge(context, memory, self._looking)
        self._sending = OrderSelection(
            context, memory, self._looking, self._judging, self._dispatch, self._guarding, self._halts
        )  # fmt: skip
        self._positions = VerifiedPositions(context, memory)
        self._due = 0.0
        self._is_out_of_budget = False
        """Whether the last pass found no room to poll, so that the next pass waits for the runner's poll."""
        self._verified: int | None = None
        """The journal counter at the last pass that only verified: while it is unchanged, the next pass may send on
        that snapshot."""
        self._has_new_snapshot = False
        """Whether the runner polled something since the last pass began that makes the next pass due at once."""
        self.passes = 0
        """Number of completed passes; waits are not counted."""

    async def recover(self) -> None:
        """Restore unfinished work from the journal and query every order of unknown status once."""
        self._memory.recover()
        self._charges.recover()
        await self._following.follow()

    def prepare(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Prepare what `adopt` starts, while the decision's `planned` entries are being committed."""
        self._memory.prepare(decision, [entry for entry in planned if entry.account == self._context.account])

    def adopt(self, decision: Decision) -> None:
        """Start a decision whose `planned` entries are committed. A decision without any is ignored."""
        if self._memory.adopt(decision):
            self._looking.has_new_work = True
            self._due = 0.0

    def give_up(self, entry: JournalEntry) -> None:
        """Stop work on a decision by operator command (`entry`, durable); it ends once no order of it is in flight."""
        if (work := self._memory.jobs.get(entry.decision)) is not None:
            work.apply(decode(entry))
            self._due = 0.0

    def apply_snapshot(self, account: AccountSnapshot, at: float | None = None) -> None:
        """Apply a snapshot polled by the runner: instrument rules always, positions only while no order is in flight.

        `at`: monotonic seconds at which the poll began. Without it, only the rules are applied.
        """
        self._looking.apply_rules(account)
        if self._memory.jobs and self._apply_market_states(account):
            self._due, self._has_new_snapshot = 0.0, True
        if at is None:
            return
        if self._memory.jobs:
            self._looking.offered = (account, at)
            self._due = 0.0 if self._is_out_of_budget else self._due
        elif at - self._memory.moved_at > self._context.pace.lags_for:
            self._looking.deciding = (account, at)

    def progress(self) -> tuple[Closing, ...]:
        """The state of every active close, and the outcome of recent ones, for the next snapshot.

        Decisions that only cancel on suspicion are left out: nothing waits for their end.
        """
        works = self._memory.jobs.values()
        working = (work.closing(self._positions.shown) for work in works if not work.decision.is_suspicion)
        return (*self._memory.ended.values(), *working)

    @property
    def distrust(self) -> str | None:
        """Why the last pass could not trust the venue's snapshot; None if it could."""
        return self._looking.distrust

    @property
    def stuck(self) -> str | None:
        """What is retried without effect and needs an operator; None if nothing does."""
        lines, now = self._memory.lines(), self._context.clock.now()
        found = [stall_reason(line, now, self._context.pace) for line in lines if not self._halts.has_notice(line)]
        found += self._halts.notices(lines, now, self._context.pace)
        return "; ".join(text for text in found if text is not None) or None

    @property
    def wait(self) -> float:
        """Seconds until the next pass is due: 0 means at once, infinite means that nothing is left to do."""
        if not self._memory.jobs:
            return self._charges.wait
        return max(0.0, self._due - self._context.clock.monotonic(), self._context.paused_for)

    @property
    def owing(self) -> bool:
        """Whether nothing is left to close, and order fees are still being queried."""
        return not self._memory.jobs and self._charges.is_pending

    def abandon(self) -> asyncio.Future[Any] | None:
        """Cancel background requests at the end of a run; returns a future that completes with them, if any."""
        ending = [each for each in (*self._dispatch.abandon(), self._charges.abandon()) if each is not None]
        return asyncio.gather(*ending, return_exceptions=True) if ending else None

    async def advance(self) -> bool:
        """Run one pass, sending the orders for which the venue has room. True while anything is left to close.

        With nothing to close, it advances the fee queries instead; `owing` is True while there are more. Venue errors
        are handled inside. StoreError is raised, and then no order was sent that is not journaled.
        """
        if not self._memory.jobs:
            await self._charges.advance()
            return False
        if (wait := self.wait) > 0:
            await self._context.clock.sleep(min(wait, self._context.pace.breath))
            return True
        written, self._has_new_snapshot = self._memory.written, False
        try:
            await self._pass()
            if self._looking.has_begun:
                # The batch is answered and the account poll is in flight: its result is applied without another wait.
                await self._pass(sending=False)
        finally:
            await self._looking.abandon()
        self.passes += 1
        now = self._context.clock.monotonic()
        moved = self._memory.written != written or self._has_new_snapshot
        self._due = now if moved else max(self._next_due(now), now + LEAST_WAIT)
        return bool(self._memory.jobs)

    async def _pass(self, *, sending: bool = True) -> None:
        cancels = self._cancelling.due()
        if not cancels or any(line.is_blocked for line in self._memory.lines()):
            await self._cancelling.run(cancels)
            await self._close(sending=sending)
            return
        # Entry orders are cancelled first, but no close waits for the answers.
        cancelling = asyncio.create_task(self._cancelling.run(cancels))
        for _ in range(3):  # a request is three tasks deep: after that it has been sent
            await asyncio.sleep(0)
        try:
            await self._close(sending=sending)
            await cancelling
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)

    async def _close(self, *, sending: bool) -> None:
        if sending and self._looking.is_unreadable:
            await self._sending.send_without_snapshot(unreadable=True)
        reading = self._deciding_snapshot() if sending else None
        if reading is not None:
            # Nothing has been sent yet: orders are based on it, and the poll that follows verifies them.
            sent = self._memory.sent
            await self._sending.send(LineVerdicts(self._judging, reading), fresh=False)
            self._positions.update(reading)
            if self._memory.sent > sent:
                return
        await self._following.follow()
        self._end_given_up()
        if sending and self._looking.is_blind:
            await self._sending.send_without_snapshot(unreadable=True)
        reading = await self._poll(sending=sending)
        if reading is None:
            if sending:
                await self._sending.send_without_snapshot(unreadable=self._looking.is_blind)
            return
        self._positions.update(reading)
        if not sending and self._has_reached_all_targets(reading):
            with self._memory.transaction():
                self._positions.verify(reading, self._looking.instruments)
                for work in list(self._memory.jobs.values()):
                    self._finish(work, [])
            return
        self._positions.verify(reading, self._looking.instruments)
        verdicts = LineVerdicts(self._judging, reading)
        if sending:
            await self._sending.send(verdicts, fresh=True)
        await self._protect(verdicts)
        await self._end(verdicts)
        self._verified = None if sending else self._memory.moved

    def _has_reached_all_targets(self, reading: TrustedBook) -> bool:
        """Whether the snapshot shows every target reached and nothing else is left to do."""
        works = self._memory.jobs.values()
        if self._guarding.protections.open() or any(work.due_cancels(after_closing=True) for work in works):
            return False
        return all(
            not line.is_counted_by_fills
            and not line.is_in_flight
            and not line.detached
            and not line.abandoned
            and is_shown(line, reading)
            and reading.contracts(line.key) <= line.target
            for line in self._memory.lines()
        ) and not any(work.has_uncancellable for work in works)

    def _next_due(self, now: float) -> float:
        """Monotonic seconds at which the next pass is due after one that changed nothing."""
        asking = max(self._asking.next_at, now + self._context.wait("find_order", ("",)))
        guarding = now + max(self._guarding.due_in(), self._context.wait("submit", ("",)))
        dues = [asking, guarding, self._sending.room_at]
        waiting, busy = self._sending.held_back, False
        for work, line in self._lines_with_jobs():
            if line.state is TargetState.READY and not line.detached:
                if (departs := self._sending.due_at(work, line)) > now:
                    dues.append(departs)
            elif self._halts.is_resting(line):
                waiting = True
            elif line.state is not TargetState.AT_TARGET:
                busy = True
        # What only waits for budget or for its time is polled when that has come: polls use budget, too.
        patient = waiting and not busy and not self._cancelling.due()
        return min(*dues, now + (self._context.pace.look_again if patient else self._context.pace.poll))

    # Polling

    def _deciding_snapshot(self) -> TrustedBook | None:
        """The snapshot that the decision was made on, if it is good for the orders that are due.

        It is not used once an order was sent, nor for orders that the venue does not limit to reduce-only.
        """
        in_play = any(line.attempt or not line.reduce_only for line in self._memory.lines())
        return None if in_play else self._looking.pop_deciding_positions(self._memory.expected())

    async def _poll(self, *, sending: bool) -> TrustedBook | None:
        """The positions of the account: polled now, unless the last snapshot is still good for sending.

        Where there is no room to poll an unchanged account, the runner's own snapshot is used.
        """
        moved = self._memory.moved
        guarded = all(line.reduce_only for line in self._memory.lines())
        good = guarded and (self._sending.held_back or (sending and self._verified == moved))
        self._verified, self._is_out_of_budget = None, False
        if good and not self._looking.has_begun and (reading := self._looking.last_if_fresh(moved)) is not None:
            return reading
        purpose = self._looking.purpose(moved)
        if self._context.paused_for > 0 or self._context.wait("snapshot", purpose=purpose) > 0:
            self._is_out_of_budget = self._context.paused_for <= 0
            return self._looking.pop_runner_positions(self._memory.expected(), moved, self._memory.moved_at)
        found = await self._looking.poll(self._memory.expected(), self._memory.moved, self._memory.sent)
        if self._looking.newest is not None:
            self._apply_market_states(self._looking.newest)
        return found

    def _apply_market_states(self, account: AccountSnapshot) -> bool:
        """Apply a snapshot to everything that waits for a market to open; returns whether anything changed."""
        opened, lines = self._looking.pop_opened(), self._memory.lines()
        names = self._halts.changed_orders(lines, account, opened)
        self._asking.expedite(names)
        return bool(names) or any(line.symbol in opened for line in lines)

    # Acting

    async def _protect(self, verdicts: LineVerdicts) -> None:
        """Restore protective orders where a close is over for now, or where they have been away for too long."""

        def over(line: PositionTarget) -> bool:
            beside = [each for each in self._memory.lines() if each.key == line.key and not each.is_counted_by_fills]
            found = [verdicts.of(each) for each in beside if each.state is not TargetState.SETTLED]
            return len(found) == len(beside) and all(each.do is LineAction.NOTHING or each.is_final for each in found)

        await self._guarding.restore(self._memory.jobs, verdicts.reading, over)

    # Ending

    async def _end(self, verdicts: LineVerdicts) -> None:
        """Finish every decision whose lines are at their targets or cannot go further.

        Cancels that are due after closing come first. An entry order may have filled meanwhile, so a pass that cancels
        leaves finishing to the next pass, which has a snapshot of its own.
        """
        for work in list(self._memory.jobs.values()):
            if any(line.is_in_flight or line.detached or line.state is TargetState.SETTLED for line in work.lines):
                continue
            found = [verdicts.of(line) for line in work.lines]
            if not all(verdict.do is LineAction.NOTHING or verdict.is_final for verdict in found):
                continue
            if self._guarding.protections.of(work.decision.id):
                continue
            if left := work.due_cancels(after_closing=True):
                await self._cancelling.run([(work, cancel) for cancel in left])
                continue
            self._finish(work, found)

    def _end_given_up(self) -> None:
        """Finish given-up decisions once none of their orders is in flight, even if the account cannot be polled."""
        for work in list(self._memory.jobs.values()):
            why = work.given_up
            idle = all(
                line.state in (TargetState.READY, TargetState.AT_TARGET) and not line.detached for line in work.lines
            )
            if why is not None and idle and not self._guarding.protections.of(work.decision.id):
                self._finish(work, [given_up(line, why, None) for line in work.lines])

    def _finish(self, work: AccountJob, verdicts: list[LineVerdict]) -> None:
        shown = self._positions.shown
        last = self._positions.unjournaled(work)
        self._memory.record([*last, work.result(self._context.clock.now(), verdicts, shown)])
        self._memory.end(work, work.closing(shown))
        self._charges.enqueue(work.decision.id)
        for line in work.lines:
            self._sending.forget(line)
            self._judging.forget(line)
        self._positions.forget(work)

    def _lines_with_jobs(self) -> list[tuple[AccountJob, PositionTarget]]:
        return [(work, line) for work in self._memory.jobs.values() for line in work.lines]
