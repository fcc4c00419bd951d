"""Cancels protective orders that block a close, and restores them; `protective_record` holds their state."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.client_order_id import lapses_after
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.report_validation import validated_report, venue_text
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.protective_record import (
    CancelledProtection,
    Protections,
    ProtectionState,
    blocking_orders,
    restoring_request,
    unprotected_entry,
)
from killswitch.journal.entries import AGAIN, TRIED, Cancelled, PositionKey, Protected, ProtectionAnswered
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Order, Position
from killswitch.model.venue import OrderRejectedError, RateLimitedError, VenueDownError, VenueError, is_ours

TRIES = 5
"""Attempts to restore a protective order before an operator has to do it."""


class ProtectiveOrders:
    """Cancels and restores the protective orders of one account."""

    def __init__(self, context: AccountContext, protections: Protections) -> None:
        """`protections` is folded from the same entries that the context records."""
        self._context = context
        self._rule, self._life = context.traits.client_ids, context.traits.order_life
        self.protections = protections

    async def cancel_blocking(
        self, targets: Sequence[PositionTarget], ours: frozenset[str], positions: Mapping[PositionKey, Position]
    ) -> list[PositionTarget]:
        """Cancel the orders that block `targets`; returns the targets that are now unblocked.

        Protective orders are journaled first, so that they are restored; those of another closer are not restored.
        `ours`: client order ids of our own closing orders.
        """
        if (orders := await self._context.open_orders()) is None:
            return []
        found = [(target, blocking_orders(target, orders, ours)) for target in targets]
        unprotected = [
            unprotected_entry(target, order, positions.get(target.key), self._context.clock.now())
            for target, blockers in found
            for order in blockers
            if not (self.protections.is_open(order.id) or self._is_of_another_closer(order))
        ]
        self._context.record(unprotected)
        cancelled = await asyncio.gather(
            *(self._cancel(target, order) for target, blockers in found for order in blockers)
        )
        self._context.record([entry for entry in cancelled if entry is not None])
        cleared = {entry.order for entry in cancelled if entry is not None}
        return [target for target, blockers in found if blockers and all(order.id in cleared for order in blockers)]

    def _is_of_another_closer(self, order: Order) -> bool:
        """Whether it is a closing order of this program from another store: it protects nothing."""
        is_replacement = any(order.client_order_id == it.name(self._rule) for it in self.protections.all())
        return order.trigger_price is None and is_ours(order.client_order_id) and not is_replacement

    async def restore(
        self, jobs: Mapping[str, AccountJob], book: TrustedBook, is_over: Callable[[PositionTarget], bool]
    ) -> None:
        """Restore protection of positions that are still open, for the size that is left.

        `is_over`: whether a target's close has ended or cannot go further.
        """
        for protection in self.protections.open():
            if not self._context.can_send():
                return
            job = jobs[protection.entry.decision]
            target = job.target_at(protection.key)
            if protection.state is ProtectionState.RESTORING:
                await self._query(protection, target)
            elif target is None or job.cancels_all(protection.order):
                self._end(protection, "not needed", None)
            elif target.key in book.unconfirmed:
                continue
            elif (left := book.contracts(protection.key)) <= ZERO:
                self._end(protection, "not needed", None)
            elif (is_over(target) or self._is_unprotected_too_long(protection, target)) and await self._is_gone(
                protection
            ):
                await self._restore_one(protection, left, target)

    async def _is_gone(self, protection: CancelledProtection) -> bool:
        """Whether the blocking order is no longer open; one that was never cancelled still protects."""
        if protection.is_gone:
            return True
        if (orders := await self._context.open_orders()) is None:
            return False
        if any(order.id == protection.order for order in orders):
            self._end(protection, "still there", protection.order)
            return False
        self._context.record([self._cancelled_entry(protection.entry.decision, protection.key, protection.order)])
        return True

    def due_in(self) -> float:
        """Seconds until the first position has been unprotected for too long; infinite if none is."""
        since = (protection.entry.at for protection in self.protections.open())
        return self._context.pace.longest_unprotected - max(map(self._context.seconds_since, since), default=-math.inf)

    def _is_unprotected_too_long(self, protection: CancelledProtection, target: PositionTarget) -> bool:
        idle = not target.is_in_flight and target.state is not TargetState.SETTLED
        return idle and self._context.seconds_since(protection.entry.at) >= self._context.pace.longest_unprotected

    async def _cancel(self, target: PositionTarget, order: Order) -> Cancelled | None:
        failed = await self._context.cancel(order.symbol, order.id) is not None
        return None if failed else self._cancelled_entry(target.decision, target.key, order.id)

    def _cancelled_entry(self, decision: str, key: PositionKey, order: str) -> Cancelled:
        return Cancelled(*self._entry_place(decision, key), order=order, why="blocks the close")

    def _entry_place(self, decision: str, key: PositionKey) -> tuple[str, datetime, str, str, str]:
        return (decision, self._context.clock.now(), self._context.account, *key)

    async def _restore_one(self, protection: CancelledProtection, contracts: Decimal, target: PositionTarget) -> None:
        request = restoring_request(protection, contracts, reduce_only=target.reduce_only, rule=self._rule)
        if isinstance(request, str):
            self._end(protection, f"refused: {request}", None)
            return
        entry = Protected(
            *self._entry_place(protection.entry.decision, protection.key),
            request.client_order_id,
            replaces=protection.order,
            side=request.side,
            amount=request.amount,
            type=request.type,
            price=request.price,
            trigger_price=request.trigger_price,
            trigger_when=request.trigger_when,
        )
        self._context.record([entry])
        try:
            response = await self._context.request("submit", self._context.venue.submit(request))
            report = validated_report(response, request.client_order_id, request.amount)
        except OrderRejectedError as error:
            if error.reason != "duplicate_client_order_id":
                last = protection.refused + 1 >= TRIES
                self._end(
                    protection, f"refused: {venue_text(error)}" if last else f"{TRIED}: {venue_text(error)}", None
                )
        except (RateLimitedError, VenueDownError):
            self._end(protection, AGAIN, None)
        except (VenueError, AttributeError, TypeError):
            return  # RESTORING: it is queried
        else:
            self._end(protection, "resting", report.id)

    async def _query(self, protection: CancelledProtection, target: PositionTarget | None) -> None:
        """Query the order that was sent to restore protection."""
        report = await self._context.find_order(protection.key[0], protection.name(self._rule), protection.amount)
        if isinstance(report, VenueError):
            return
        if report is not None and report.state != "open" and self.protections.is_lost(protection):
            self._end(protection, AGAIN, None)  # it ended in the lost time, and protects no more
        elif report is not None:
            self._end(protection, "resting" if report.state == "open" else report.state, report.id)
        elif protection.sent_at is None or self._context.seconds_since(protection.sent_at) >= self._absent_after(
            target
        ):
            self._end(protection, AGAIN, None)

    def _absent_after(self, target: PositionTarget | None) -> float:
        """Seconds after sending until "no such order" is accepted for an order that is sent again under its name.

        Most venues refuse a second open order of one name, and two reduce-only orders do no harm.
        """
        if self._life.names != "none" or (target is not None and target.is_bounded_by_venue):
            return self._context.pace.absence_after
        return lapses_after(self._life, self._context.pace, None)

    def _end(self, protection: CancelledProtection, state: str, order: str | None) -> None:
        name = None if order is None else venue_text(order)
        place = self._entry_place(protection.entry.decision, protection.key)
        self._context.record(
            [ProtectionAnswered(*place, replaces=protection.order, state=venue_text(state), order=name)]
        )
