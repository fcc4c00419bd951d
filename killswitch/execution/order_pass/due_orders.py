"""The orders that are due in a pass, and their sequence: worst rank first, or the whole book at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import chain

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import MARKET, orders_before_last_step
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.decide.target_verdict import TargetAction, select_active, size_order
from killswitch.execution.order_pass.market_halts import MarketHalts
from killswitch.execution.order_pass.order_builder import build_order, is_untouched, next_slice
from killswitch.execution.order_pass.other_closer import OtherCloser
from killswitch.execution.order_pass.pass_verdicts import PassVerdicts, TargetEvaluator
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.protective_orders import ProtectiveOrders
from killswitch.execution.send.order_queue import QueuedOrder
from killswitch.execution.send.order_sender import OrderSender
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import WholeBookClose
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.venue import VenueError

SLICE_WINDOW = 0.25
"""Seconds for which one pass lets slices follow one another before anything else runs."""


class DueOrders:
    """Selects and sends the orders of one account, as verdicts, timetables and budget allow."""

    def __init__(
        self,
        context: AccountContext,
        state: ExecutionState,
        positions: TrustedPositions,
        evaluator: TargetEvaluator,
        sender: OrderSender,
        protective_orders: ProtectiveOrders,
        halts: MarketHalts,
        other_closer: OtherCloser | None = None,
    ) -> None:
        """`other_closer`: the closer to which this account yields; None: to none."""
        self._context = context
        self._state = state
        self._positions = positions
        self._evaluator = evaluator
        self._sender = sender
        self._protective_orders = protective_orders
        self._halts = halts
        self._other_closer = other_closer
        self._not_before: dict[TargetName, float] = {}
        self._sent_at: dict[TargetName, float] = {}
        self._unblocked: set[TargetName] = set()
        """Targets unblocked since their last fill: if they are refused as blocked again, they pause."""
        self.held_back = False
        """Whether the last pass had an order that could not be sent yet."""
        self._more_slices = False
        """Whether further slices follow an order of the batch, so that a poll would be too early."""
        self.budget_at = math.inf
        """Monotonic seconds at which there may be budget for orders that were held back; infinite if none was."""

    async def send(self, verdicts: PassVerdicts, *, fresh: bool) -> None:
        """Send for the smallest target on each position, worst rank first.

        `fresh`: whether the snapshot was polled by the executor itself; the whole book is closed on no other.
        """
        targets = select_active(self._state.targets(), lambda target: verdicts.of(target).is_final)
        self.held_back, self.budget_at = False, math.inf
        if self._other_closer is not None:
            due = [it for it in targets if verdicts.of(it).do is TargetAction.SEND and self._may_send(it, verdicts)]
            await self._other_closer.begin_round(due)
        if fresh and await self._close_book(targets, verdicts):
            return
        await self._cancel_blocking(targets, verdicts)
        await self._send_round(targets, verdicts)
        if self._other_closer is not None:
            self._other_closer.end_round()

    async def _send_round(self, targets: Sequence[PositionTarget], verdicts: PassVerdicts) -> None:
        """Send what is due, and for a moment what may follow it at once: slices, and orders that were blocked."""
        began = self._context.monotonic()
        self._more_slices = False
        sent = await self._send(self._due_orders(targets, verdicts))
        while sent and self._context.monotonic() - began < SLICE_WINDOW:
            self._more_slices = False
            blocked = [each.target for each in sent if self._is_newly_blocked(each.target)]
            retries = self._due_orders(await self._cancel_blocking(blocked, verdicts), verdicts)
            slices = self._slices([each.target for each in sent], verdicts)
            sent = await self._send(chain(retries, slices)) if blocked or slices else ()

    def _due_orders(self, targets: Sequence[PositionTarget], verdicts: PassVerdicts) -> Iterator[QueuedOrder]:
        for target in targets:
            verdict = verdicts.of(target)
            if verdict.do is TargetAction.SEND:
                amount = self._permitted(target, verdict.amount) if self._may_send(target, verdicts) else ZERO
                if amount > ZERO:
                    held = self._evaluator.assumed_position(target, verdicts.book)
                    yield self._order(target, amount, held, verdicts.book)
                else:
                    self.held_back = True

    def _may_send(self, target: PositionTarget, verdicts: PassVerdicts) -> bool:
        return self._is_due(target) and self._has_its_turn(target, verdicts)

    def _permitted(self, target: PositionTarget, amount: Decimal) -> Decimal:
        """How much of `amount` another closer leaves; all of it where the account yields to none."""
        if self._other_closer is None:
            return amount
        return self._other_closer.permitted(target, amount, self._positions.instruments.get(target.symbol))

    async def _send(self, due: Iterator[QueuedOrder]) -> Sequence[QueuedOrder]:
        """Send as the budget allows; returns what was sent, or nothing where an order was held back."""
        sent = await self._sender.send(due, self._begin_poll)
        now = self._context.monotonic()
        for each in reversed(sent.held_back):
            self._state.jobs[each.target.decision].timetable.undo_sent(each.target)
        for each in sent.orders:
            self._evaluator.forget(each.target)
            self._not_before[each.target.name] = now + self._pause_after(each.target)
            self._sent_at[each.target.name] = now
            if self._other_closer is not None:
                self._other_closer.record_sent(each.target)
        if sent.room_in is None:
            return sent.orders
        self.held_back = True
        self.budget_at = now + sent.room_in
        return ()

    async def _close_book(self, targets: Sequence[PositionTarget], verdicts: PassVerdicts) -> bool:
        """Request a whole-book close where that is the fastest way; returns whether it was requested."""
        close_book = self._context.venue.close_book
        wanted = [target for target in targets if verdicts.of(target).do is TargetAction.SEND]
        if close_book is None or not self._can_close_book(wanted, verdicts.book):
            return False
        now, decisions = self._context.clock.now(), sorted({target.decision for target in wanted})
        self._context.record([WholeBookClose(decision, now, self._context.account) for decision in decisions])
        with suppress(VenueError):  # whatever the answer, the positions show the result
            await self._context.request("close_book", close_book())
        return True

    def _can_close_book(self, wanted: Sequence[PositionTarget], book: TrustedBook) -> bool:
        """Whether one request may close all these targets at once.

        Only if every position of the account is to be closed completely, at market and at once, if nothing was sent for
        any of them yet, and if single orders would have to wait for budget.
        """
        if len(wanted) < 2 or {target.key for target in wanted} != set(book.positions) or book.unconfirmed:
            return False
        for target in wanted:
            if self._other_closer is not None and self._other_closer.must_yield(target):
                return False
            job = self._state.jobs[target.decision]
            plain = job.ladder is MARKET and not job.timetable.is_declared
            fresh = target.state is TargetState.READY and not (
                target.attempt or target.is_in_whole_close or target.detached
            )
            if not (target.is_capped_by_venue and plain and fresh):
                return False
        has_room = self._context.room("submit", [target.symbol for target in wanted]) >= len(wanted)
        return not has_room and self._context.wait("close_book") <= 0

    def _has_its_turn(self, target: PositionTarget, verdicts: PassVerdicts) -> bool:
        turn = self._state.jobs[target.decision].turn(lambda each: verdicts.of(each).is_final)
        return turn is None or turn == target.key

    def _slices(self, targets: list[PositionTarget], verdicts: PassVerdicts) -> list[QueuedOrder]:
        """The slices that follow completely filled ones at once."""
        found = []
        for target in targets:
            ledger = self._state.ledger(target.key)
            amount = next_slice(target, ledger, self._positions.instruments.get(target.symbol))
            if amount is None or not self._may_send(target, verdicts):
                continue
            if (amount := self._permitted(target, amount)) > ZERO:
                held = target.remaining if target.is_counted_by_fills else ledger.anchor or ZERO
                found.append(self._order(target, amount, held, verdicts.book, slice_after=True))
        return found

    def _order(
        self,
        target: PositionTarget,
        amount: Decimal,
        held: Decimal,
        book: TrustedBook | None,
        *,
        slice_after: bool = False,
    ) -> QueuedOrder:
        job = self._state.jobs[target.decision]
        self._more_slices |= amount + target.target_size < held and target.largest < target.decided
        job.timetable.record_sent(target, self._context.monotonic())
        seen = None if book is None else book.positions.get(target.key)
        instrument = self._positions.instruments.get(target.symbol)
        return build_order(self._context, job, target, amount, held, seen, instrument, slice_after=slice_after)

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
        for target in select_active(self._state.targets(), lambda _: False):
            if not target.is_bounded_by_venue or target.is_counted_by_fills or not self._is_due(target):
                continue
            if self._other_closer is not None and self._other_closer.must_yield(target):
                continue
            ledger = self._state.ledger(target.key)
            before = target.decided + target.target_size
            is_idle = target.state in (TargetState.READY, TargetState.SETTLED)
            if is_untouched(target, ledger) and self._is_decision_fresh(target):
                yield self._order(target, min(target.decided, target.largest), before, None)
            elif unreadable and target.is_capped_by_venue and is_idle and self._has_paused(target):
                held = ledger.closable(before, is_capped_by_venue=True)
                verdict = (
                    size_order(target, held, self._positions.instruments.get(target.symbol)) if held > ZERO else None
                )
                if verdict is not None and verdict.do is TargetAction.SEND:
                    settled = target.state is TargetState.SETTLED
                    yield self._order(target, verdict.amount, held, None, slice_after=settled)

    def _has_paused(self, target: PositionTarget) -> bool:
        """Whether an order without a snapshot may follow the last one; the pause grows with each one without a fill."""
        pause = self._context.pace.wait_after(len(target.detached) + target.attempts_without_fill)
        return self._context.monotonic() >= self._sent_at.get(target.name, -math.inf) + pause

    def _is_decision_fresh(self, target: PositionTarget) -> bool:
        decided_at = self._state.jobs[target.decision].decision.as_of
        return 0 <= self._context.seconds_since(decided_at) <= self._context.pace.longest_decision_age

    def _is_due(self, target: PositionTarget) -> bool:
        job = self._state.jobs[target.decision]
        return job.given_up is None and self._context.monotonic() >= self.due_at(job, target)

    def due_at(self, job: AccountJob, target: PositionTarget) -> float:
        """Monotonic seconds at which the target's next order is due; infinite before its market opens."""
        if self._halts.is_waiting(target):
            return math.inf
        return max(self._not_before.get(target.name, -math.inf), job.timetable.due(target), self._retry_at(job, target))

    def _retry_at(self, job: AccountJob, target: PositionTarget) -> float:
        """When a target is retried after `market_closed`, where no snapshot shows the market's state."""
        if not self._halts.is_refused(target) or self._halts.state(target.symbol) is not None:
            return -math.inf
        beyond = target.attempts_without_fill - orders_before_last_step(job.ladder)
        return self._sent_at.get(target.name, -math.inf) + self._context.pace.wait_after(max(1, beyond), closed=True)

    # Protection

    async def _cancel_blocking(self, targets: Sequence[PositionTarget], verdicts: PassVerdicts) -> list[PositionTarget]:
        """Cancel the protective orders that block closes whose next order is due; returns the unblocked targets."""
        refused = [target for target in targets if target.is_blocked and self._is_due(target)]
        blocked = [target for target in refused if verdicts.of(target).do is TargetAction.SEND]
        if not blocked:
            return []
        self._unblocked |= {target.name for target in blocked}
        targets_at_work = self._state.targets()
        names = {target.client_order_id for target in targets_at_work} | {
            name for target in targets_at_work for name in target.detached
        }
        own = frozenset(name for name in names if name is not None)
        return await self._protective_orders.cancel_blocking(blocked, own, verdicts.book.positions)

    def _is_newly_blocked(self, target: PositionTarget) -> bool:
        """Whether open orders block the target that were not cancelled before."""
        return target.is_blocked and target.name not in self._unblocked

    def _pause_after(self, target: PositionTarget) -> float:
        """Seconds until the target's next order: longer after each one without a fill, once the ladder is at its last
        step.

        There is no pause after an order that found no price within its limit, that rested, or that was refused only
        because open orders blocked it.
        """
        without_fill = target.attempts_without_fill
        if not without_fill:
            self._unblocked.discard(target.name)
        if self._is_newly_blocked(target):
            return 0.0
        beyond = without_fill - orders_before_last_step(self._state.jobs[target.decision].ladder)
        goes_to_next_step = target.refusal is None and (target.is_resting or (target.has_limit and beyond <= 0))
        if not without_fill or goes_to_next_step:
            return 0.0
        return self._context.pace.wait_after(max(1, beyond))

    def forget(self, target: PositionTarget) -> None:
        """Drop the wait times of a target that has ended."""
        self._not_before.pop(target.name, None)
        self._sent_at.pop(target.name, None)
        self._unblocked.discard(target.name)

    def _begin_poll(self) -> None:
        """Start an account poll as soon as every order of a batch is answered, while the answers are journaled."""
        if not self._more_slices and self._context.paused_for <= 0 and self._context.wait("snapshot") <= 0:
            self._positions.begin_poll(self._state.sent)
