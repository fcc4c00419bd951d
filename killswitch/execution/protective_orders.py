"""Cancels protective orders that block a close, and restores them; `protective_record` holds their state."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.client_order_id import over_after
from killswitch.execution.decide.position_trust import Reading
from killswitch.execution.recorded_reports import said, sound
from killswitch.execution.state.account_job import Work
from killswitch.execution.state.protective_record import (
    AGAIN,
    TRIED,
    Guard,
    Protections,
    Protective,
    blocking,
    put_back,
    taken_away,
)
from killswitch.journal.entries import Cancelled, Guarded, PositionKey, Protected
from killswitch.journal.lifecycle import ZERO, State
from killswitch.journal.targets import Line
from killswitch.model.snapshot import Order, Position
from killswitch.model.venue import OrderRejectedError, OrderRequest, RateLimitedError, VenueDownError, VenueError

TRIES = 5
"""Attempts to restore a protective order before an operator has to do it."""


class Guarding:
    """Cancels and restores the protective orders of one account."""

    def __init__(self, context: AccountContext, protections: Protections) -> None:
        """Create it; `protections` is folded from the same entries that the context records."""
        self._context = context
        self._rule, self._life = context.traits.client_ids, context.traits.order_life
        self.protections = protections

    async def clear_the_way(
        self, lines: Sequence[Line], ours: frozenset[str], positions: Mapping[PositionKey, Position]
    ) -> list[Line]:
        """Cancel the orders that block `lines`, each journaled before; returns the lines that are unblocked now.

        `ours`: client order ids of our own closing orders, which are not protective orders.
        """
        if (orders := await self._context.open_orders()) is None:
            return []
        found = [(line, blocking(line, orders, ours)) for line in lines]
        taken = [
            taken_away(line, order, positions.get(line.key), self._context.clock.now())
            for line, blockers in found
            for order in blockers
            if not self.protections.is_open(order.id)
        ]
        self._context.record(taken)
        gone = await asyncio.gather(*(self._cancel(line, order) for line, blockers in found for order in blockers))
        self._context.record([entry for entry in gone if entry is not None])
        cleared = {entry.order for entry in gone if entry is not None}
        return [line for line, blockers in found if blockers and all(order.id in cleared for order in blockers)]

    async def restore(self, works: Mapping[str, Work], reading: Reading, over: Callable[[Line], bool]) -> None:
        """Restore protection of positions that are still open, for the size that is left.

        `over`: whether a line's close has ended or cannot go further.
        """
        for guard in self.protections.open():
            if not self._context.may_act():
                return
            if guard.state is Guard.RESTORING:
                await self._ask(guard, works[guard.decision].line_at(guard.key))
                continue
            line = works[guard.decision].line_at(guard.key)
            if line is None or works[guard.decision].cancels_all(guard.order):
                self._end(guard, "not needed", None)
            elif line.key in reading.doubtful:
                continue
            elif (left := reading.contracts(guard.key)) <= ZERO:
                self._end(guard, "not needed", None)
            elif (over(line) or self._too_long(guard, line)) and await self._is_gone(guard):
                await self._put_back(guard, left, line)

    async def _is_gone(self, guard: Protective) -> bool:
        """Whether the blocking order is no longer open; one that was never cancelled still protects the position."""
        if guard.gone:
            return True
        if (orders := await self._context.open_orders()) is None:
            return False
        if any(order.id == guard.order for order in orders):
            self._end(guard, "still there", guard.order)
            return False
        self._context.record([self._gone(guard.decision, guard.key, guard.order)])
        return True

    def due_in(self) -> float:
        """Seconds until the first position has been unprotected for too long; infinite if none is."""
        away = max((self._context.since(guard.since) for guard in self.protections.open()), default=-math.inf)
        return self._context.pace.unprotected_for - away

    def _too_long(self, guard: Protective, line: Line) -> bool:
        idle = not line.in_flight and line.state is not State.SETTLED
        return idle and self._context.since(guard.since) >= self._context.pace.unprotected_for

    async def _cancel(self, line: Line, order: Order) -> Cancelled | None:
        failed = await self._context.cancel(order.symbol, order.id) is not None
        return None if failed else self._gone(line.decision, line.key, order.id)

    def _gone(self, decision: str, key: PositionKey, order: str) -> Cancelled:
        return Cancelled(*self._place(decision, key), order=order, why="blocks the close")

    def _place(self, decision: str, key: PositionKey) -> tuple[str, datetime, str, str, str]:
        return (decision, self._context.clock.now(), self._context.account, *key)

    async def _put_back(self, guard: Protective, contracts: Decimal, line: Line) -> None:
        request = put_back(guard, contracts, reduce_only=line.reduce_only, rule=self._rule)
        if isinstance(request, str):
            self._end(guard, f"refused: {request}", None)
            return
        self._context.record([self._protected(guard, request)])
        await self._send(guard, request)

    async def _send(self, guard: Protective, request: OrderRequest) -> None:
        try:
            answer = await self._context.make("submit", self._context.venue.submit(request))
            report = sound(answer, request.client_order_id, request.amount)
        except OrderRejectedError as error:
            if error.reason != "duplicate_client_order_id":
                last = guard.refused + 1 >= TRIES
                self._end(guard, f"refused: {said(error)}" if last else f"{TRIED}: {said(error)}", None)
        except (RateLimitedError, VenueDownError):
            self._end(guard, AGAIN, None)
        except VenueError:
            return  # RESTORING: it is queried
        else:
            self._end(guard, "resting", report.id)

    async def _ask(self, guard: Protective, line: Line | None) -> None:
        """Query the order that was sent to restore protection."""
        report = await self._context.find_order(guard.key[0], guard.name(self._rule), guard.amount)
        if isinstance(report, VenueError):
            return
        if report is not None:
            self._end(guard, "resting" if report.state == "open" else report.state, report.id)
        elif guard.sent_at is None or self._context.since(guard.sent_at) >= self._absent_after(line):
            self._end(guard, AGAIN, None)

    def _absent_after(self, line: Line | None) -> float:
        """Seconds after sending until "no such order" is believed of an order that is sent again under its name.

        Most venues refuse a second open order of one name, and two reduce-only orders do no harm.
        """
        if self._life.names != "none" or (line is not None and line.reduce_only):
            return self._context.pace.absence_after
        return over_after(self._life, self._context.pace, None)

    def _protected(self, guard: Protective, request: OrderRequest) -> Protected:
        return Protected(
            *self._place(guard.decision, guard.key),
            request.client_order_id,
            replaces=guard.order,
            side=request.side,
            amount=request.amount,
            type=request.type,
            price=request.price,
            trigger_price=request.trigger_price,
            trigger_when=request.trigger_when,
        )

    def _end(self, guard: Protective, state: str, order: str | None) -> None:
        known_as = None if order is None else said(order)
        place = self._place(guard.decision, guard.key)
        self._context.record([Guarded(*place, replaces=guard.order, state=said(state), order=known_as)])
