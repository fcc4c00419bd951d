"""Selects the orders of a pass and their sequence: worst rank first, or the whole book at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import MARKET, orders_before_last_step
from killswitch.execution.decide.line_verdict import LineAction, select_active, size_order
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.order_pass.next_order import build_order, is_untouched, next_slice
from killswitch.execution.order_pass.order_decision import LineVerdicts, OrderDecisions
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.protective_orders import ProtectiveOrders
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.send.queued_orders import QueuedOrder
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import WholeBookClose
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.venue import BookClosingVenue, VenueError

SLICE_WINDOW = 0.25
"""Seconds for which one pass lets slices follow one another before anything else runs."""


@dataclass(slots=True)
class OrderSelection:
    """Selects and sends the orders of one account, as verdicts, timetables and budget allow."""

    _context: AccountContext
    _state: ExecutionState
    _positions: TrustedPositions
    _decisions: OrderDecisions
    _sender: OrderSender
    _protective_orders: ProtectiveOrders
    _halts: MarketHalts
    _not_before: dict[TargetName, float] = field(default_factory=dict)
    _sent_at: dict[TargetName, float] = field(default_factory=dict)
    _unblocked: set[TargetName] = field(default_factory=set)
    """Lines unblocked since their last fill: if they are refused as blocked again, they pause."""
    held_back: bool = False
    """Whether the last pass had an order that could not be sent yet."""
    _more_slices: bool = False
    """Whether further slices follow an order of the batch, so that a poll would be too early."""
    budget_at: float = math.inf
    """Monotonic seconds at which there may be budget for orders that were held back; infinite if none was."""

    async def send(self, verdicts: LineVerdicts, *, fresh: bool) -> None:
        """Send for the line with the smallest target on each position, worst rank first.

        `fresh`: whether the snapshot was polled by the executor itself; the whole book is closed on no other.
        """
        lines = select_active(self._state.lines(), lambda line: verdicts.of(line).is_final)
        self.held_back, self.budget_at = False, math.inf
        if self._context.traits.whole_book and fresh and await self._close_book(lines, verdicts):
            return
        await self._cancel_blocking(lines, verdicts)
        began = self._context.monotonic()
        self._more_slices = False
        sent = await self._send(self._due_orders(lines, verdicts))
        while sent and self._context.monotonic() - began < SLICE_WINDOW:
            self._more_slices = False
            blocked = [each.line for each in sent if self._is_newly_blocked(each.line)]
            retries = self._due_orders(await self._cancel_blocking(blocked, verdicts), verdicts)
            slices = self._slices([each.line for each in sent], verdicts)
            sent = await self._send(chain(retries, slices)) if blocked or slices else ()

    def _due_orders(self, lines: Sequence[PositionTarget], verdicts: LineVerdicts) -> Iterator[QueuedOrder]:
        for line in lines:
            verdict = verdicts.of(line)
            if verdict.do is LineAction.SEND:
                if self._is_due(line) and self._has_its_turn(line, verdicts):
                    held = self._decisions.assumed_position(line, verdicts.book)
                    yield self._order(line, verdict.amount, held, verdicts.book)
                else:
                    self.held_back = True

    async def _send(self, due: Iterator[QueuedOrder]) -> Sequence[QueuedOrder]:
        """Send as the budget allows; returns what was sent, or nothing where an order was held back."""
        sent = await self._sender.send(due, self._begin_poll)
        now = self._context.monotonic()
        for each in reversed(sent.held_back):
            self._state.jobs[each.line.decision].timetable.undo_sent(each.line)
        for each in sent.orders:
            self._decisions.forget(each.line)
            self._not_before[each.line.name] = now + self._pause_after(each.line)
            self._sent_at[each.line.name] = now
        if sent.room_in is None:
            return sent.orders
        self.held_back = True
        self.budget_at = now + sent.room_in
        return ()

    async def _close_book(self, lines: Sequence[PositionTarget], verdicts: LineVerdicts) -> bool:
        """Request a whole-book close where that is the fastest way; returns whether it was requested."""
        wanted = [line for line in lines if verdicts.of(line).do is LineAction.SEND]
        if not self._can_close_book(wanted, verdicts.book) or not isinstance(self._context.venue, BookClosingVenue):
            return False
        now, decisions = self._context.clock.now(), sorted({line.decision for line in wanted})
        self._context.record([WholeBookClose(decision, now, self._context.account) for decision in decisions])
        with suppress(VenueError):  # whatever the answer, the positions show the result
            await self._context.request("close_book", self._context.venue.close_book())
        return True

    def _can_close_book(self, wanted: Sequence[PositionTarget], book: TrustedBook) -> bool:
        """Whether one request may close all these lines at once.

        Only if every position of the account is to be closed completely, at market and at once, if nothing was sent for
        any of them yet, and if single orders would have to wait for budget.
        """
        if len(wanted) < 2 or {line.key for line in wanted} != set(book.positions) or book.unconfirmed:
            return False
        for line in wanted:
            job = self._state.jobs[line.decision]
            plain = job.ladder is MARKET and not job.timetable.is_declared
            fresh = line.state is TargetState.READY and not (line.attempt or line.is_in_whole_close or line.detached)
            if not (line.is_capped_by_venue and plain and fresh):
                return False
        has_room = self._context.room("submit", [line.symbol for line in wanted]) >= len(wanted)
        return not has_room and self._context.wait("close_book") <= 0

    def _has_its_turn(self, line: PositionTarget, verdicts: LineVerdicts) -> bool:
        turn = self._state.jobs[line.decision].turn(lambda each: verdicts.of(each).is_final)
        return turn is None or turn == line.key

    def _slices(self, lines: list[PositionTarget], verdicts: LineVerdicts) -> list[QueuedOrder]:
        """The slices that follow completely filled ones at once."""
        found = []
        for line in lines:
            ledger = self._state.ledger(line.key)
            amount = next_slice(line, ledger, self._positions.instruments.get(line.symbol))
            if amount is not None and self._is_due(line) and self._has_its_turn(line, verdicts):
                held = line.remaining if line.is_counted_by_fills else ledger.anchor or ZERO
                found.append(self._order(line, amount, held, verdicts.book, slice_after=True))
        return found

    def _order(
        self,
        line: PositionTarget,
        amount: Decimal,
        held: Decimal,
        book: TrustedBook | None,
        *,
        slice_after: bool = False,
    ) -> QueuedOrder:
        job = self._state.jobs[line.decision]
        self._more_slices |= amount + line.target < held and line.largest < line.decided
        job.timetable.record_sent(line, self._context.monotonic())
        seen = None if book is None else book.positions.get(line.key)
        instrument = self._positions.instruments.get(line.symbol)
        return build_order(self._context, job, line, amount, held, seen, instrument, slice_after=slice_after)

    async def send_without_snapshot(self, *, unreadable: bool) -> None:
        """Send orders without a trusted snapshot, only where the venue itself limits them to reduce-only.

        The first order of a fresh decision is based on the decision's own snapshot. If the account is `unreadable`, not
        merely short of budget for polls, full closes continue from the last known position, less what our own orders
        have filled since.
        """
        began = self._context.monotonic()
        while await self._send(self._orders_without_snapshot(unreadable=unreadable)):
            if self._context.monotonic() - began >= SLICE_WINDOW:
                return

    def _orders_without_snapshot(self, *, unreadable: bool) -> Iterator[QueuedOrder]:
        for line in select_active(self._state.lines(), lambda _: False):
            if not line.reduce_only or line.is_counted_by_fills or not self._is_due(line):
                continue
            ledger = self._state.ledger(line.key)
            before = line.decided + line.target
            is_idle = line.state in (TargetState.READY, TargetState.SETTLED)
            if is_untouched(line, ledger) and self._is_decision_fresh(line):
                yield self._order(line, min(line.decided, line.largest), before, None)
            elif unreadable and line.is_capped_by_venue and is_idle and self._has_paused(line):
                held = ledger.closable(before, is_capped_by_venue=True)
                verdict = size_order(line, held, self._positions.instruments.get(line.symbol)) if held > ZERO else None
                if verdict is not None and verdict.do is LineAction.SEND:
                    settled = line.state is TargetState.SETTLED
                    yield self._order(line, verdict.amount, held, None, slice_after=settled)

    def _has_paused(self, line: PositionTarget) -> bool:
        """Whether an order without a snapshot may follow the last one; the pause grows with each one without a fill."""
        pause = self._context.pace.wait_after(len(line.detached) + line.attempts_without_fill)
        return self._context.monotonic() >= self._sent_at.get(line.name, -math.inf) + pause

    def _is_decision_fresh(self, line: PositionTarget) -> bool:
        decided_at = self._state.jobs[line.decision].decision.as_of
        return 0 <= self._context.seconds_since(decided_at) <= self._context.pace.longest_decision_age

    def _is_due(self, line: PositionTarget) -> bool:
        job = self._state.jobs[line.decision]
        return job.given_up is None and self._context.monotonic() >= self.due_at(job, line)

    def due_at(self, job: AccountJob, line: PositionTarget) -> float:
        """Monotonic seconds at which the line's next order is due; infinite before its market opens."""
        if self._halts.is_waiting(line):
            return math.inf
        return max(self._not_before.get(line.name, -math.inf), job.timetable.due(line), self._retry_at(job, line))

    def _retry_at(self, job: AccountJob, line: PositionTarget) -> float:
        """When a line is retried after `market_closed`, where no snapshot shows the market's state."""
        if not self._halts.is_refused(line) or self._halts.state(line.symbol) is not None:
            return -math.inf
        beyond = line.attempts_without_fill - orders_before_last_step(job.ladder)
        return self._sent_at.get(line.name, -math.inf) + self._context.pace.wait_after(max(1, beyond), closed=True)

    # Protection

    async def _cancel_blocking(self, lines: Sequence[PositionTarget], verdicts: LineVerdicts) -> list[PositionTarget]:
        """Cancel the protective orders that block closes whose next order is due; returns the unblocked lines."""
        refused = [line for line in lines if line.is_blocked and self._is_due(line)]
        blocked = [line for line in refused if verdicts.of(line).do is LineAction.SEND]
        if not blocked:
            return []
        self._unblocked |= {line.name for line in blocked}
        lines_at_work = self._state.lines()
        names = {line.client_order_id for line in lines_at_work} | {
            name for line in lines_at_work for name in line.detached
        }
        own = frozenset(name for name in names if name is not None)
        return await self._protective_orders.cancel_blocking(blocked, own, verdicts.book.positions)

    def _is_newly_blocked(self, line: PositionTarget) -> bool:
        """Whether open orders block the line that were not cancelled before."""
        return line.is_blocked and line.name not in self._unblocked

    def _pause_after(self, line: PositionTarget) -> float:
        """Seconds until the line's next order: longer after each one without a fill, once the ladder is at its last
        step.

        There is no pause after an order that found no price within its limit, that rested, or that was refused only
        because open orders blocked it.
        """
        without_fill = line.attempts_without_fill
        if not without_fill:
            self._unblocked.discard(line.name)
        if self._is_newly_blocked(line):
            return 0.0
        beyond = without_fill - orders_before_last_step(self._state.jobs[line.decision].ladder)
        goes_to_next_step = line.refusal is None and (line.is_resting or (line.has_limit and beyond <= 0))
        if not without_fill or goes_to_next_step:
            return 0.0
        return self._context.pace.wait_after(max(1, beyond))

    def forget(self, line: PositionTarget) -> None:
        """Drop the wait times of a line that has ended."""
        self._not_before.pop(line.name, None)
        self._sent_at.pop(line.name, None)
        self._unblocked.discard(line.name)

    def _begin_poll(self) -> None:
        """Start an account poll as soon as every order of a batch is answered, while the answers are journaled."""
        if not self._more_slices and self._context.paused_for <= 0 and self._context.wait("snapshot") <= 0:
            self._positions.begin_poll(self._state.sent)
